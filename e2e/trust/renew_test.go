package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// shortLived certificates are renewed when a third of their life is left: eight seconds, for
// which a busy machine may hold a renewal up.
const shortLived = "certificates: {agentLifetime: 24s, servingLifetime: 24s}\n"

// writeFile is for what is no secret too.
func writeFile(path string, text []byte) error { return os.WriteFile(path, text, 0o600) }

func TestRenewal(t *testing.T) {
	t.Parallel() // it waits most of the time
	ctx := within(t, 5*time.Minute)
	h := startHub(ctx, t, "renew", hubConfig{yaml: shortLived})
	first := h.roots() // what a user's kubeconfig has for ever
	oldCA, err := os.ReadFile(h.caFile())
	must(t, err)
	agent := h.join(ctx, t, "edge")
	dir := agentDir("renew-edge")
	// What an agent has that is off from now on.
	off := dir + "-off"
	if out, err := exec.CommandContext(ctx, "cp", "-a", dir, off).CombinedOutput(); err != nil {
		t.Fatalf("copy the state: %v: %s", err, out)
	}

	t.Run("N7,O9,P16: three renewals and a rotation of the agents and serving CAs break no session", func(t *testing.T) {
		fast, err := h.startDownload(ctx, "edge", "pause=5")
		must(t, err)
		slow, err := h.startDownload(ctx, "edge", "pause=200")
		must(t, err)
		alive := func() {
			t.Helper()
			for _, d := range []*download{fast, slow} {
				if err := d.atLeast(0); err != nil {
					t.Fatal(err)
				}
			}
		}
		started := time.Now()
		cert, err := leafOf(filepath.Join(dir, "tls.crt"))
		must(t, err)
		firstEnd := cert.NotAfter
		serving, err := h.presented(ctx, "localhost")
		must(t, err)
		servings := []*x509.Certificate{serving[0]}
		next := func(name string) {
			t.Helper()
			before := cert
			must(t, testbed.Poll(ctx, name, func(ctx context.Context) error {
				chain, err := h.presented(ctx, "localhost")
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(servings, chain[0].Equal) {
					servings = append(servings, chain[0])
				}
				// A client that knows the first CA alone must go on to verify.
				if err := verifies(first, chain, testbed.HubAddress.String()); err != nil {
					t.Errorf("%v after the start: %v", time.Since(started).Round(time.Millisecond), err)
				}
				if cert, err = leafOf(filepath.Join(dir, "tls.crt")); err == nil && cert.Equal(before) {
					err = fmt.Errorf("still the one that ends at %s", cert.NotAfter)
				}
				return err
			}))
			if time.Now().After(before.NotAfter) {
				t.Errorf("%s: the certificate of before had expired", name)
			}
			if bytes.Equal(cert.RawSubjectPublicKeyInfo, before.RawSubjectPublicKeyInfo) {
				t.Errorf("%s: the key is the old one", name)
			}
			alive()
			// It is gone at the end of the run.
			key, err := os.ReadFile(filepath.Join(dir, "tls.key"))
			must(t, err)
			if the.plantKey("of the "+name, key) == 0 {
				t.Error("no private key")
			}
			t.Logf("%s: %v after the start, the certificate ends in %v", name, time.Since(started).Round(time.Millisecond), time.Until(cert.NotAfter).Round(time.Millisecond))
		}
		next("first renewal")
		for _, role := range []string{"agents", "serving"} {
			before := time.Now()
			_, err := h.cli(ctx, "pki", "rotate", "--role", role)
			must(t, err)
			t.Logf("culvert pki rotate --role %s took %v", role, time.Since(before).Round(time.Millisecond))
			alive()
		}
		next("second renewal")
		next("third renewal")
		if now := time.Now(); now.Before(firstEnd) {
			t.Errorf("the first certificate is good until %v", firstEnd)
		}
		for name, d := range map[string]*download{"fast": fast, "slow": slow} {
			n := d.bytes.Load()
			check(t, d.stop())
			t.Logf("%s download: %.1f MB in %v, every byte compared, %d serving certificates seen", name, float64(n)/1e6, time.Since(started).Round(time.Millisecond), len(servings))
		}
		if len(servings) < 3 {
			t.Errorf("%d serving certificates were shown, want three at least", len(servings))
		}
		if lines := logLines(t, agent.Log(), "connected to the hub"); len(lines) != 1 {
			t.Errorf("the agent connected %d times: %q", len(lines), lines)
		}
		// The agent's new certificate is of the new CA, and it knows the hub's new one.
		agents, err := h.authorityOf("agents")
		must(t, err)
		if err := cert.CheckSignatureFrom(agents.cert); err != nil {
			t.Errorf("the agent's certificate is not from the new CA: %v", err)
		}
		known, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		must(t, err)
		servingCA, err := h.authorityOf("serving")
		must(t, err)
		for name, want := range map[string][]byte{"new": servingCA.pem(), "old": oldCA} {
			if !strings.Contains(string(known), strings.TrimSpace(string(want))) {
				t.Errorf("the agent does not know the hub's %s CA", name)
			}
		}
	})

	t.Run("P16: the hub hands its CAs out, the new one and the old one, to a client that knows the old one", func(t *testing.T) {
		h.cfg.roots = first
		defer func() { h.cfg.roots = nil }()
		status, text, err := h.getAs(ctx, "/-/ca.crt", "")
		must(t, err)
		serving, err := h.authorityOf("serving")
		must(t, err)
		for name, want := range map[string][]byte{"new": serving.pem(), "old": oldCA} {
			if status != 200 || !strings.Contains(text, strings.TrimSpace(string(want))) {
				t.Errorf("/-/ca.crt has not the %s CA: %d %s", name, status, text)
			}
		}
	})

	t.Run("N7,K6: after the rotation the agent comes back by itself, and a new one joins", func(t *testing.T) {
		must(t, agent.Restart(ctx))
		h.await(ctx, t, "edge")
		h.join(ctx, t, "late")
	})

	t.Run("K6: a certificate that expired while the agent was off is explained, with the commands that mend it", func(t *testing.T) {
		must(t, agent.Stop(ctx))
		cert, err := leafOf(filepath.Join(off, "tls.crt"))
		must(t, err)
		<-time.After(time.Until(cert.NotAfter.Add(time.Second))) // long ago by now, as a rule
		_, err = run(ctx, "culvert-agent", "--state", off, "--kubeconfig", the.source.kubeconfig)
		if err == nil {
			t.Fatal("it ran")
		}
		t.Logf("%v", err)
		for _, part := range []string{"edge", "expired", "culvert token create --cluster edge", "culvert-agent join --force --token"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("it does not say %q", part)
			}
		}
		_, token := h.token(ctx, t, "edge")
		startAgent(ctx, t, "renew-edge-mended", "join", "--force", "--token", token, "--state", off, "--kubeconfig", the.source.kubeconfig)
		h.await(ctx, t, "edge")
	})
}

// verifies is what a client does that has roots alone.
func verifies(roots *x509.CertPool, chain []*x509.Certificate, name string) error {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: name})
	return err
}
