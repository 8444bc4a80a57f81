package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
)

func TestHangup(t *testing.T) {
	dir := folder(t)
	hub, log := clitest.Start(t, dir, "--state", "s", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
	said := clitest.AwaitText(t, log, "hub is serving")
	match := regexp.MustCompile(`msg="metrics are served" listen=(\S+)`).FindStringSubmatch(said)
	if match == nil {
		t.Fatalf("the log does not say where metrics are: %s", said)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	get := func(path string) string {
		res, err := (&http.Client{Transport: transport}).Get("http://" + match[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%s, %v", res.Status, err)
		}
		return string(body)
	}
	t.Run("D22: SIGHUP reads the files at once and says what was read and what was not", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte("broken\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := hub.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		said := clitest.AwaitText(t, log, "SIGHUP: not everything could be read")
		for _, part := range []string{`msg=reload what="agents CA"`, `what="token file"`, "line 1: has 1 columns", "stays in force"} {
			if !strings.Contains(said, part) {
				t.Errorf("the log lacks %q: %s", part, said)
			}
		}
	})
	t.Run("P5: what could not be reloaded is in readiness and the metrics, and the hub stays ready", func(t *testing.T) {
		if body := get("/readyz?verbose"); !strings.Contains(body, "[!]token file WARNING") || !strings.Contains(body, "readyz check passed") {
			t.Error(body)
		}
		if body := get("/metrics"); !strings.Contains(body, `culvert_reload_failures_total{name="token file"} 1`) ||
			!strings.Contains(body, `culvert_certificate_expiry_timestamp_seconds{name="agents CA"} `) {
			t.Error(body)
		}
	})
	if err := hub.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := hub.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

func TestCombinedFile(t *testing.T) {
	t.Run("D5: one file with certificate and key in any order is taken", func(t *testing.T) {
		dir := folder(t)
		first, log := clitest.Start(t, dir, "--state", "s", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0")
		clitest.AwaitText(t, log, "hub is serving")
		if err := first.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := first.Wait(); err != nil {
			t.Fatal(err)
		}
		var both []byte
		for _, name := range []string{"serving.key", "serving.crt"} {
			text, err := os.ReadFile(filepath.Join(dir, "s", "pki", name))
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, text...)
		}
		if err := os.WriteFile(filepath.Join(dir, "both.pem"), both, 0o600); err != nil {
			t.Fatal(err)
		}
		_, log = clitest.Start(t, dir, "--state", "s2", "--token-file", "tokens.csv", "--listen", "127.0.0.1:0", "--tls-cert", "both.pem", "--tls-ca", "s/pki/serving-ca.crt")
		match := regexp.MustCompile(`msg="hub is serving" listen=(\S+)`).FindStringSubmatch(clitest.AwaitText(t, log, "hub is serving"))
		ca, err := os.ReadFile(filepath.Join(dir, "s", "pki", "serving-ca.crt"))
		if err != nil || match == nil {
			t.Fatal(err, match)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		conn, err := tls.Dial("tcp", match[1], &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}
