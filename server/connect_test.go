package server_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestVersionsOfHTTP holds the port against what ALPN and the first bytes say.
func TestVersionsOfHTTP(t *testing.T) {
	h := start(t, config(t))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.server.ServingCA())
	t.Run("O20: HTTP/2 where it is offered, with the TLS state of its connection", func(t *testing.T) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		for range 3 {
			res, err := (&http.Client{Transport: tr}).Get("https://" + h.address() + "/-/readyz")
			if err != nil {
				t.Fatal(err)
			}
			if res.ProtoMajor != 2 || res.StatusCode != http.StatusOK {
				t.Errorf("%s %s", res.Proto, res.Status)
			}
			_ = res.Body.Close()
		}
	})
	for _, c := range []struct{ title, request, want string }{
		{"N5: CONNECT in HTTP/1.1 where h2 was agreed on, as Go's clients send it", "CONNECT vm:5900 HTTP/1.1\r\nHost: vm:5900\r\n\r\n", "HTTP/1.1 407"},
		{"H: nothing else in HTTP/1.1 there", "GET /-/readyz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 505"},
	} {
		t.Run(c.title, func(t *testing.T) {
			conn, err := tls.Dial("tcp", h.server.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Fatalf("agreed on %q", got)
			}
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) || !strings.HasPrefix(line, c.want) {
				t.Errorf("%q, %v, want %s", line, err, c.want)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the connection does not end: %v", err)
			}
		})
	}
}
