package upstream_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// TestKubernetesTLS holds what carries a caller's own TLS against the owner's rules.
func TestKubernetesTLS(t *testing.T) {
	server := newAPIServer(t)
	rules := func(text string) string { return "apiVersion: policy.culvert.dev/v1\nkind: Policy\n" + text }
	for _, c := range []struct {
		name    string
		cfg     upstream.Config
		allowed bool
	}{
		{"S4: not unless the owner lets callers have credentials of their own", upstream.Config{}, false},
		{"S4: the owner can", upstream.Config{PassThrough: true}, true},
		{"N8: never read-only", upstream.Config{PassThrough: true, ReadOnly: true}, false},
		{"N8: nor where a rule denies a part of what it may carry", upstream.Config{PassThrough: true,
			Policy: parsePolicy(t, rules("rules: [{name: no-secrets, effect: deny, kubernetes: [{resources: [secrets]}]}]"))}, false},
		{"N8: nor where a rule denies it to somebody", upstream.Config{PassThrough: true,
			Policy: parsePolicy(t, rules("rules: [{name: not-bob, effect: deny, users: [bob], kubernetes: [{}]}]"))}, false},
		{"N8: rules about other things do not matter", upstream.Config{PassThrough: true,
			Policy: parsePolicy(t, rules("rules: [{name: no-web, effect: deny, services: [{namespace: web, name: '*'}]}]"))}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Kubernetes = &server.rest
			u := start(t, c.cfg)
			if err := u.Check(wire.KubernetesTLS()); (err == nil) != c.allowed {
				t.Fatalf("at the open: %v", err)
			}
			conn, err := u.Dial(t.Context(), wire.KubernetesTLS())
			if !c.allowed {
				if f := fault.As(err); f == nil || f.Code != wire.CodePermissionDenied {
					t.Fatalf("got %v", err)
				}
				return
			}
			ok(t, err)
			defer conn.Close()
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(server.rest.CAData)
			client := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://kubernetes/version", nil)
			ok(t, err)
			req.Header.Set("Authorization", "Bearer of-caller")
			ok(t, req.Write(client))
			res, err := http.ReadResponse(bufio.NewReader(client), req)
			ok(t, err)
			ok(t, res.Body.Close())
			if h := server.last.Load().Header; h.Get("Authorization") != "Bearer of-caller" || h.Get("Impersonate-User") != "" {
				t.Errorf("the API server got %v", h)
			}
		})
	}
}
