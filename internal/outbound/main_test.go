package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// hub is what the tests want to reach; nobody resolves it.
const hub = "hub.example.com:8443"

// secret is a password with what makes trouble in URLs, and escaped its spelling
// there.
const (
	secret  = "p/s:w@rd%"
	escaped = "p%2Fs%3Aw%40rd%25"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clean is the environment without a proxy.
func clean(t *testing.T) {
	t.Helper()
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// scripted is a server that reads the head of one request a connection, gives it
// to the test, writes the same bytes to everybody, and then echoes.
type scripted struct {
	url      string
	requests chan *http.Request
}

func startScripted(t *testing.T, cfg *tls.Config, answer string) *scripted {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{url: "http://" + ln.Addr().String(), requests: make(chan *http.Request, 16)}
	if cfg != nil {
		ln, s.url = tls.NewListener(ln, cfg), "https://"+ln.Addr().String()
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { s.serve(conn, answer) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
	return s
}

func (s *scripted) serve(conn net.Conn, answer string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err == nil {
		s.requests <- req
	}
	// What the other side makes of it is for the test to judge.
	if _, err := io.WriteString(conn, answer); err != nil || !strings.Contains(answer, " 200 ") {
		return
	}
	_, _ = io.Copy(conn, r) // until the client is gone
}

func dialer(t *testing.T, cfg Config) *Dialer {
	t.Helper()
	d, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func write(t *testing.T, path, text string) {
	t.Helper()
	temp := path + ".new"
	if err := errors.Join(os.WriteFile(temp, []byte(text), 0o600), os.Rename(temp, path)); err != nil {
		t.Fatal(err)
	}
}

// certificate returns the TLS configuration of a server for 127.0.0.1, and the
// file of its CA.
func certificate(t *testing.T) (cfg *tls.Config, caFile string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	write(t, caFile, pemOf(server.Certificate()))
	return &tls.Config{Certificates: server.TLS.Certificates}, caFile
}

func pemOf(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}
