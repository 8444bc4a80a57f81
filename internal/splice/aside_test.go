package splice_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/splice"
)

func TestAside(t *testing.T) {
	ran := false
	splice.Aside(func() { ran = true })
	if !ran {
		t.Error("it did not wait for what it called")
	}

	defer func() {
		if got := fmt.Sprint(recover()); !strings.HasPrefix(got, "broken\n") || !strings.Contains(got, "splice_test.breaks") {
			t.Errorf("got %q, which tells not what panicked or not where", got)
		}
	}()
	splice.Aside(breaks)
}

func breaks() { panic("broken") }
