package main

import (
	"strings"
	"testing"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
)

// TestCompletion asks what a shell asks.
func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	runHub(t, dir)
	if got := clitest.Run(t, dir, "clusters", "set", "edge-1", "--direct-url", "https://10.0.0.5:6443", "--state", "state"); got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	const files, noFiles = "default", "no files"
	for _, c := range []struct {
		line  string // its last word is the one to complete
		want  string // the words
		after string
	}{
		{"clusters get --state state ", "edge-1", noFiles},
		{"clusters get --state state edge-1 ", "", noFiles},
		{"clusters accept --state state ", "", noFiles}, // none waits
		{"kubeconfig --mode ", "path sni passthrough end-to-end", noFiles},
		{"kubeconfig --access ", "tunnel direct auto both", noFiles},
		{"pki rotate --role ", "agents peers users serving", noFiles},
		{"token create --approval ", "auto manual", noFiles},
		{"forward -o ", "text json", noFiles},
		{"dev --log-level ", "debug info warn error", noFiles},
		{"ping ", "", noFiles}, // no hub is named
		{"connect edge-1 ", "", noFiles},
		{"forward ", "", noFiles},
		{"socks ", "", noFiles},
		{"socks --cluster ", "", noFiles},
		{"forward edge-1 1:db:2 -- ", "", files},
		{"socks -- ", "", files},
		{"whoami ", "", noFiles},
		{"policy import-ocm ", "", files},
		{"policy check --policy ", "", files},
	} {
		args := append([]string{"__completeNoDesc"}, strings.Split(c.line, " ")...)
		got := clitest.Run(t, dir, args...)
		words, directive, ok := strings.Cut("\n"+got.Stdout, "\n:")
		after := map[string]string{"0": files, "4": noFiles}[strings.TrimSpace(directive)]
		if said := strings.Join(strings.Fields(words), " "); got.Code != 0 || !ok || said != c.want || after != c.after {
			t.Errorf("%q: %q, %s; want %q, %s: %+v", c.line, said, after, c.want, c.after, got)
		}
	}
}
