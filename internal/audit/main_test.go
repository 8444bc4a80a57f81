package audit

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the process that TestCrash kills.
func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		crash(path)
		return
	}
	goleak.VerifyTestMain(m)
}
