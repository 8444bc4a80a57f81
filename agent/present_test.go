package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
)

// prolonged is false where the machine took longer for it than the life of the first
// certificate.
func prolonged(t *testing.T, life time.Duration) bool {
	t.Helper()
	target := echo(t)
	h := newTestHub(t, time.Hour)
	dir := t.TempDir()
	chain, key := h.issue("edge-1", life)
	mounted(t, dir, map[string][]byte{fileCert: chain, fileKey: key, fileCA: h.serving.PEM()})
	certs, err := certificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	var log lines
	cfg := h.config(&log)
	cfg.State, cfg.Hub, cfg.CertDir = "", h.address(), dir
	h.run(cfg)
	over := func() bool { return time.Now().After(certs[0].NotAfter) }
	var link *mux.Link
	select {
	case link = <-h.links:
	case <-time.After(time.Until(certs[0].NotAfter)):
		return false
	}
	s, err := link.Open(t.Context(), mux.Request{Target: target})
	if err != nil && over() {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	chain, key = h.issue("edge-1", time.Hour)
	mounted(t, dir, map[string][]byte{fileCert: chain, fileKey: key, fileCA: h.serving.PEM()})
	eventually(t, "the hub knows it", func() bool { return over() || len(h.log.with("certificate presented")) == 1 })
	if over() {
		return false
	}
	select {
	case <-link.Done():
		t.Fatalf("the link ended: %v", link.Err())
	case <-time.After(time.Until(certs[0].NotAfter) + 200*time.Millisecond):
	}
	if err := roundTrip(s, "still there"); err != nil {
		t.Errorf("after the end of the first certificate: %v", err)
	}
	if len(h.links) > 0 || len(h.log.with("certificate presented")) != 1 {
		t.Errorf("%d further links: %s", len(h.links), h.log)
	}
	// One that the hub refuses leaves the tunnel as it is, and both sides say so.
	chain, key = h.issue("edge-2", time.Hour)
	mounted(t, dir, map[string][]byte{fileCert: chain, fileKey: key, fileCA: h.serving.PEM()})
	eventually(t, "the agent says so", func() bool { return len(log.with("the hub did not take the new certificate")) == 1 })
	if refused := h.log.with("presented certificate refused"); len(refused) == 0 || !strings.Contains(refused[0], "it is of the cluster edge-2, and this link of edge-1") {
		t.Errorf("%q", refused)
	}
	if err := roundTrip(s, "and on"); err != nil {
		t.Error(err)
	}
	return true
}

func TestPresenter(t *testing.T) {
	t.Run("N7: a certificate that appears in the files prolongs the tunnel, and its sessions outlive the one before", func(t *testing.T) {
		for life := 6 * time.Second; !prolonged(t, life); life *= 2 {
			if life > time.Minute {
				t.Fatalf("the files were not taken up within %v", life)
			}
		}
	})
	t.Run("N7: failures are told once and tried again, ever less often", func(t *testing.T) {
		for name, c := range map[string]struct {
			err  error
			most int
		}{"refused": {errors.New("no"), 20}, "an older hub": {tunnel.ErrPresentUnknown, 11}} {
			synctest.Test(t, func(t *testing.T) {
				var log lines
				attempts := 0
				p := &presenter{
					certificate: func() *tls.Certificate { return nil },
					present:     func(context.Context, *tls.Certificate) (bool, error) { attempts++; return false, c.err },
					log:         slog.New(slog.NewTextHandler(&log, nil)),
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				p.run(ctx)
				if attempts < 8 || attempts > c.most || len(log.with("")) != 1 {
					t.Errorf("%s: %d attempts, log: %s", name, attempts, &log)
				}
			})
		}
	})
}
