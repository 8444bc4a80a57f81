package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
)

func TestRevocation(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	h := startHub(ctx, t, "revoke", hubConfig{})
	agent := h.join(ctx, t, "edge")
	h.join(ctx, t, "bystander")
	dir := agentDir("revoke-edge")
	old, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	must(t, err)
	slow, err := h.startDownload(ctx, "bystander", "pause=20")
	must(t, err)
	// What somebody may have kept from before: a token that was used, with its key,
	// and one that was not.
	_, used := h.token(ctx, t, "edge")
	request, _ := csr(t, &x509.CertificateRequest{})
	again := &culvertv1.EnrollRequest{Credential: &culvertv1.EnrollRequest_JoinToken{JoinToken: tokenParts(t, used)}, Csr: request}
	for range 2 { // an answer may have been lost
		_, err = h.rawEnrol(ctx, again)
		must(t, err)
	}
	_, unused := h.token(ctx, t, "edge")

	t.Run("N7: revocation cuts a running download within a second, and no other", func(t *testing.T) {
		d, err := h.startDownload(ctx, "edge", "")
		must(t, err)
		const enough = 100 << 20
		started := time.Now()
		must(t, testbed.Poll(ctx, "100 MiB", func(context.Context) error { return d.atLeast(enough) }))
		rate := float64(d.bytes.Load()) / time.Since(started).Seconds() / 1e6
		before := time.Now()
		_, err = h.cli(ctx, "clusters", "revoke", "edge")
		must(t, err)
		told := time.Now()
		select {
		case <-d.ended:
		case <-ctx.Done():
			t.Fatal("the download goes on")
		}
		t.Logf("a download of %.0f MB/s was cut %v after culvert clusters revoke was called, which took %v: %v",
			rate, d.at.Sub(before).Round(time.Millisecond), told.Sub(before).Round(time.Millisecond), d.err)
		if errors.Is(d.err, errWrongBytes) {
			t.Error(d.err)
		}
		if err := testbed.InTime(ctx, bin("culvert"), d.at.Sub(before), time.Second); err != nil {
			t.Errorf("the cut: %v", err)
		}
		awaitLine(ctx, t, agent.Log(), 0, "revoked")
		t.Log(awaitLine(ctx, t, h.process.Log(), 0, "revoke", "edge"))
	})

	refused := func(t *testing.T) {
		t.Helper()
		skip := len(logLines(t, h.process.Log(), ""))
		local, err := h.shakeHands(t, h.addr(), h.tunnelConfig(old))
		if err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("the old certificate: %v, want an alert", err)
		}
		t.Log(awaitLine(ctx, t, h.process.Log(), skip, "remote="+local+" ", "tls handshake refused", "revoked"))
		if status, body, _ := h.get(ctx, "/edge/version"); status == 200 {
			t.Errorf("the cluster answers: %s", body)
		}
	}
	t.Run("N7: the revoked certificate is refused at the next handshake", refused)
	kept := func(t *testing.T) {
		t.Helper()
		if _, err := h.rawEnrol(ctx, again); err == nil {
			t.Error("the used token and its key gave another certificate")
		}
		fresh, _ := csr(t, &x509.CertificateRequest{})
		_, err := h.rawEnrol(ctx, &culvertv1.EnrollRequest{
			Credential: &culvertv1.EnrollRequest_JoinToken{JoinToken: tokenParts(t, unused)}, Csr: fresh,
		})
		if err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("a token from before the revocation: %v", err)
		}
	}
	t.Run("N7,K6: a join token from before the revocation, used or not, gives no certificate any more", kept)
	t.Run("N7: revocation holds after a crash of the hub, while others come back", func(t *testing.T) {
		must(t, slow.stop())
		must(t, h.process.Kill9())
		must(t, h.process.Start(ctx))
		h.await(ctx, t, "bystander")
		refused(t)
		kept(t)
	})
	t.Run("N7,K6: an agent that was revoked cannot come back with its certificate, but with a new token", func(t *testing.T) {
		must(t, agent.Stop(ctx))
		_, token := h.token(ctx, t, "edge")
		startAgent(ctx, t, "revoke-edge-back", "join", "--force", "--token", token, "--state", dir, "--kubeconfig", the.source.kubeconfig)
		h.await(ctx, t, "edge")
		kept(t)
		if _, err := h.shakeHands(t, h.addr(), h.tunnelConfig(old)); err == nil || !strings.Contains(err.Error(), "tls:") {
			t.Errorf("the old certificate beside the new one: %v, want an alert", err)
		}
	})
}
