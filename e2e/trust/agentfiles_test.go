package trust

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// httpText is what a plain HTTP address answers.
func httpText(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// TestAgentFiles is about an agent whose certificate is made elsewhere.
func TestAgentFiles(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 3*time.Minute)
	h := startHub(ctx, t, "files", hubConfig{})
	signer, err := h.authorityOf("agents")
	must(t, err)
	hubCA, err := os.ReadFile(h.caFile())
	must(t, err)
	sign := func(t *testing.T, lifetime time.Duration) tls.Certificate {
		t.Helper()
		template := agentTemplate("mounted")
		template.NotAfter = time.Now().Add(lifetime).Truncate(time.Second)
		cert, err := signer.sign(template)
		must(t, err)
		return cert
	}
	mounted, err := newSecret(filepath.Join(testbed.Dir(), "mounted"))
	must(t, err)
	must(t, mounted.putPair(sign(t, time.Hour), hubCA))
	metrics, err := testbed.ReservePort(nil, netip.MustParseAddr("127.0.0.1"))
	must(t, err)
	defer metrics.Close()
	agent := startAgent(ctx, t, "mounted", "--hub", h.addr(), "--cert-dir", mounted.dir, "--kubeconfig", the.source.kubeconfig, "--metrics-listen", metrics.Addr())
	h.await(ctx, t, "mounted")
	expires := func(cert tls.Certificate) func(context.Context) error {
		return func(ctx context.Context) error {
			text, err := httpText(ctx, "http://"+metrics.Addr()+"/metrics")
			if err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				_, value, ok := strings.Cut(line, "} ")
				if !ok || !strings.HasPrefix(line, "culvert_certificate_expiry_timestamp_seconds{") {
					continue
				}
				if at, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && int64(at) == cert.Leaf.NotAfter.Unix() {
					return nil
				}
			}
			return fmt.Errorf("no certificate ends at %d: %s", cert.Leaf.NotAfter.Unix(), text)
		}
	}

	t.Run("N7,K6: an agent takes a mounted Secret as its certificate, and the next one when that is swapped in", func(t *testing.T) {
		next := sign(t, 2*time.Hour)
		must(t, mounted.putPair(next, hubCA))
		must(t, testbed.Poll(ctx, "the new certificate", expires(next)))
		must(t, h.process.Restart(ctx))
		h.await(ctx, t, "mounted")
	})

	t.Run("N7: a bad one leaves the old one in force, is reported, and SIGHUP reads at once", func(t *testing.T) {
		good := sign(t, 3*time.Hour)
		certPEM, _, err := pemOf(good)
		must(t, err)
		_, wrongKey, err := pemOf(sign(t, time.Hour))
		must(t, err)
		must(t, mounted.put(map[string][]byte{"tls.crt": certPEM, "tls.key": wrongKey, "ca.crt": hubCA}))
		must(t, testbed.Poll(ctx, "the report", func(ctx context.Context) error {
			text, err := httpText(ctx, "http://"+metrics.Addr()+"/readyz?verbose")
			if err == nil && !strings.Contains(text, "[!]") {
				err = fmt.Errorf("%s", text)
			}
			return err
		}))
		t.Logf("log: %s", awaitLine(ctx, t, agent.Log(), 0, "level=ERROR", "stays in force"))
		must(t, h.process.Restart(ctx))
		h.await(ctx, t, "mounted")
		must(t, mounted.putPair(good, hubCA))
		skip := len(logLines(t, agent.Log(), ""))
		must(t, syscall.Kill(agent.PID(), syscall.SIGHUP))
		t.Logf("SIGHUP: %s", awaitLine(ctx, t, agent.Log(), skip, "read again", "agent certificate"))
		must(t, testbed.Poll(ctx, "the good certificate", expires(good)))
	})
}
