package main

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
)

// TestWide runs the commands whose table is not printed at once.
func TestWide(t *testing.T) {
	dir := t.TempDir()
	address := runHub(t, dir)
	hub := []string{"--hub", "https://" + address, "--hub-ca", "state/pki/serving-ca.crt", "--token-file", "ada.token"}
	run := func(args ...string) clitest.Result { return clitest.Run(t, dir, append(args, hub...)...) }
	for _, form := range []string{"table", "wide"} {
		got := run("verify", "edge-1", "-o", form)
		if got.Code != 7 || !strings.Contains(got.Stdout, "ok      login                ada by static-token") || !strings.Contains(got.Stdout, "failed  clusters edge-1") ||
			!strings.HasPrefix(got.Stderr, "culvert: clusters edge-1: ") {
			t.Errorf("verify -o %s: %+v", form, got)
		}
		if got = run("ping", "edge-1", "-o", form); got.Code != 7 || got.Stdout != "" || !strings.Contains(got.Stderr, `no cluster named "edge-1"`) {
			t.Errorf("ping -o %s: %+v", form, got)
		}
		if got = run("token", "create", "--cluster", "edge-1", "-o", form); got.Code != 0 || !strings.HasPrefix(got.Stdout, "culvert-agent join ") || !strings.Contains(got.Stderr, "To take it back: culvert token revoke ") {
			t.Errorf("token create -o %s: %+v", form, got)
		}
		if got = run("pki", "rotate", "--role", "users", "-o", form); got.Code != 0 || !strings.Contains(got.Stderr, "The users CA signs with a new key") {
			t.Errorf("pki rotate -o %s: %+v", form, got)
		}
	}
}

// TestHostileHub calls a hub that speaks to the terminal.
func TestHostileHub(t *testing.T) {
	hub := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"reason":"Forbidden","message":"no\u001b[2J\u009b1m\u202eway"}`
		status := http.StatusForbidden
		switch {
		case strings.HasSuffix(r.URL.Path, "/tokens") && r.Method == http.MethodPost:
			status, text = http.StatusOK, `{"id":"1\u001b[2J","cluster":"c\u009b1m","command":"culvert-agent join\u001b[2J\nreboot","warnings":["w\u001b]0;title\u0007"]}`
		case strings.HasSuffix(r.URL.Path, "/clusters"):
			status, text = http.StatusOK, `{"items":[{"name":"c\u001b[2J\u202e","state":"joined","labels":{"a":"\u009b1m"}}]}`
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if _, err := io.WriteString(w, text); err != nil {
			t.Error(err)
		}
	}))
	defer hub.Close()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hub.Certificate().Raw})
	for name, text := range map[string]string{"ca.crt": string(ca), "token": "tok"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args      []string
		code      int
		out, says string
	}{
		{[]string{"clusters", "list", "--admin"}, 0, "c?[2J?", ""},
		{[]string{"token", "create", "--cluster", "c"}, 0, "culvert-agent join?[2J?reboot\n", "warning: w?]0;title?\n"},
		{[]string{"token", "list"}, 6, "", "no?[2J?1m?way"},
		{[]string{"kubeconfig", "--all"}, 6, "", "no?[2J?1m?way"},
	} {
		got := clitest.Run(t, dir, append(c.args, "--hub", hub.URL, "--hub-ca", "ca.crt", "--token-file", "token")...)
		if got.Code != c.code || !strings.Contains(got.Stdout, c.out) || !strings.Contains(got.Stderr, c.says) || strings.ContainsAny(got.Stdout+got.Stderr, "\x1b\x07\u009b\u202e") {
			t.Errorf("%v: exit code %d, %q, %q", c.args, got.Code, got.Stdout, got.Stderr)
		}
	}
}
