package client_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLean holds that a program gets no library of Kubernetes with the client.
func TestLean(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		for _, heavy := range []string{"k8s.io/", "go.opentelemetry.io/", "github.com/prometheus/"} {
			if strings.HasPrefix(pkg, heavy) {
				t.Errorf("O2: package client depends on %s", pkg)
			}
		}
	}
}
