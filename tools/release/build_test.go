package main

import (
	"strings"
	"testing"
)

func TestWarning(t *testing.T) {
	for _, old := range []string{"go1.26.8", "go1.25.12", "go1.26rc1"} {
		if got := warning(old); !strings.Contains(got, old) || !strings.Contains(got, "GOTOOLCHAIN="+leastGo) {
			t.Errorf("%s: got %q, want what is wrong and what to do", old, got)
		}
	}
	for _, good := range []string{leastGo, "go1.26.10", "go1.27rc1", "go1.28"} {
		if got := warning(good); got != "" {
			t.Errorf("%s: got %q", good, got)
		}
	}
}
