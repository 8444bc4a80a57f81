package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/mux"
)

// clockwork is a renewer whose attempts are counted and fail as told.
type clockwork struct {
	renewer

	cert     *x509.Certificate
	fail     error
	attempts []time.Duration // since the start
	bundles  []time.Duration
}

func newClockwork(life time.Duration, random float64) *clockwork {
	start := time.Now()
	c := &clockwork{cert: &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.Add(life)}}
	ignore := func(error) {}
	c.renewer = renewer{
		leaf: func() *x509.Certificate { return c.cert },
		renew: func(context.Context) error {
			c.attempts = append(c.attempts, time.Since(start))
			if c.fail != nil {
				return c.fail
			}
			now := time.Now()
			c.cert = &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now, NotAfter: now.Add(life)}
			return nil
		},
		bundle:  func(context.Context) error { c.bundles = append(c.bundles, time.Since(start)); return c.fail },
		renewed: ignore, bundled: ignore, random: func() float64 { return random },
	}
	return c
}

// during lets the loop run for a time.
func (c *clockwork) during(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	c.run(ctx)
}

func TestSchedule(t *testing.T) {
	t.Run("O9: a certificate is renewed at two thirds of its life, give or take a twentieth", func(t *testing.T) {
		for _, life := range []time.Duration{10 * time.Second, time.Minute, 30 * 24 * time.Hour} {
			for _, random := range []float64{0, 0.5, 1} {
				synctest.Test(t, func(t *testing.T) {
					c := newClockwork(life, random)
					c.during(t, life)
					if len(c.attempts) != 1 {
						t.Fatalf("%v: %d attempts", life, len(c.attempts))
					}
					want := time.Duration(float64(life) * 2 / 3 * (0.95 + 0.1*random))
					if off := (c.attempts[0] - want).Abs(); off > time.Second {
						t.Errorf("%v, %v: after %v, want %v", life, random, c.attempts[0], want)
					}
				})
			}
		}
	})
	t.Run("O9: renewals follow each other without end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClockwork(time.Minute, 0.5)
			c.during(t, 10*time.Minute-time.Second)
			if n := len(c.attempts); n != 14 {
				t.Errorf("%d renewals in ten minutes", n)
			}
		})
	})
	t.Run("O9: a failure is tried again, ever less often, and often enough before the end", func(t *testing.T) {
		for _, life := range []time.Duration{10 * time.Second, time.Minute, 30 * 24 * time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				c := newClockwork(life, 0.5)
				c.fail = errors.New("no")
				c.during(t, life)
				if n := len(c.attempts); n < 5 || n > 4000 {
					t.Errorf("%v: %d attempts", life, n)
				}
				if first := c.attempts[1] - c.attempts[0]; first > firstRetry*5/4 {
					t.Errorf("%v: the second attempt is %v after the first", life, first)
				}
				for i := 1; i < len(c.attempts); i++ {
					if wait := c.attempts[i] - c.attempts[i-1]; wait > mostRetry*5/4 || wait < leastRetry/2 {
						t.Errorf("%v: %v between attempts", life, wait)
					}
				}
				// And it is over, but not given up.
				c.fail = nil
				before := len(c.attempts)
				c.during(t, 10*time.Minute)
				if len(c.attempts) == before {
					t.Errorf("%v: nothing is tried after the end", life)
				}
			})
		}
	})
	t.Run("P16: the hub's CAs are asked for soon after the start and once an hour", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClockwork(30*24*time.Hour, 0.5)
			c.during(t, 5*time.Hour)
			if n := len(c.bundles); n != 5 || c.bundles[0] != firstBundle || c.bundles[1] != firstBundle+bundleEvery {
				t.Errorf("%v", c.bundles)
			}
		})
	})
	t.Run("a hub that says when to come again is believed", func(t *testing.T) {
		refused := &enrol.Error{RetryAfter: 20 * time.Second}
		if wait := retryAfter(refused, 1, time.Hour, 0.5); wait != 20*time.Second {
			t.Errorf("%v", wait)
		}
		if wait := retryAfter(errAbsent, 20, time.Hour, 0.5); wait != absentRetry {
			t.Errorf("%v", wait)
		}
		if wait := retryAfter(errors.New("no"), 100, -time.Hour, 1); wait != mostRetry*5/4 {
			t.Errorf("%v", wait)
		}
	})
}

func TestRenewal(t *testing.T) {
	t.Run("O9,N7: a session outlives two certificates over one link, and the keys change on the disk", func(t *testing.T) {
		target := echo(t)
		h := newTestHub(t, 10*time.Second)
		var log lines
		cfg := h.config(&log)
		_, token := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
			t.Fatal(err)
		}
		first, err := state{cfg.State}.load()
		if err != nil {
			t.Fatal(err)
		}
		a, _ := h.run(cfg)
		link := <-h.links
		s, err := link.Open(t.Context(), mux.Request{Target: target})
		if err != nil {
			t.Fatal(err)
		}
		keys := map[string]bool{string(first.key): true}
		for tick := time.NewTicker(100 * time.Millisecond); len(keys) < 3; <-tick.C {
			if err := roundTrip(s, "still here"); err != nil {
				t.Fatalf("after %d renewals: %v", len(keys)-1, err)
			}
			id, err := state{cfg.State}.load()
			if err != nil {
				t.Fatal(err)
			}
			keys[string(id.key)] = true
		}
		if time.Now().Before(first.cert.Leaf.NotAfter) {
			t.Error("the first certificate is still good")
		}
		if len(h.links) > 0 || len(h.log.with("agent disconnected")) > 0 {
			t.Error("it had to connect again")
		}
		eventually(t, "the agent has said so", func() bool { return len(log.with("certificate renewed")) > 1 })
		if said := log.with("certificate renewed"); len(said) != 2 {
			t.Errorf("log: %q", said)
		}
		for _, one := range a.Health() {
			if one.LastError != "" || !one.NotAfter.After(time.Now()) {
				t.Errorf("%+v", one)
			}
		}
	})
	t.Run("O9: a renewal that cannot be saved is reported, changes nothing, and is mended by the next", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Log("root writes everywhere, so the folder is taken away in place of its mode")
		}
		h := newTestHub(t, time.Hour)
		var log lines
		cfg := h.config(&log)
		_, token := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
			t.Fatal(err)
		}
		a, _ := h.run(cfg)
		link := <-h.links
		eventually(t, "the dialler has its connection", func() bool { return a.dialer.Conn() != nil })
		trust, ok := a.trust.(*stateTrust)
		if !ok {
			t.Fatalf("%T", a.trust)
		}
		before := trust.certificate()
		away := cfg.State + "-away"
		if err := os.Rename(cfg.State, away); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cfg.State, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err := trust.renew(t.Context(), a.dialer.Conn())
		if err == nil || !strings.Contains(err.Error(), cfg.State) {
			t.Errorf("%v", err)
		}
		trust.reportRenewal(err)
		if said := log.with("certificate was not renewed, trying again"); len(said) != 1 || !strings.Contains(said[0], "cluster=edge-1") {
			t.Errorf("log: %q", said)
		}
		if health := a.Health()[0]; health.LastError == "" || health.Failures == 0 {
			t.Errorf("%+v", health)
		}
		if trust.certificate() != before {
			t.Error("the certificate in force changed")
		}
		if err := os.Remove(cfg.State); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(away, cfg.State); err != nil {
			t.Fatal(err)
		}
		err = trust.renew(t.Context(), a.dialer.Conn())
		trust.reportRenewal(err)
		if err != nil || trust.certificate() == before || a.Health()[0].LastError != "" {
			t.Errorf("%v, %+v", err, a.Health()[0])
		}
		select {
		case <-link.Done():
			t.Error("the link ended")
		default:
		}
	})
	t.Run("P16,O9: a rotation of the hub's CA reaches the agent over its tunnel", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		cfg := h.config(&lines{})
		_, token := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
			t.Fatal(err)
		}
		a, _ := h.run(cfg)
		<-h.links
		eventually(t, "the dialler has its connection", func() bool { return a.dialer.Conn() != nil })
		trust, ok := a.trust.(*stateTrust)
		if !ok {
			t.Fatalf("%T", a.trust)
		}
		if err := trust.refresh(t.Context(), a.dialer.Conn()); err != nil {
			t.Fatal(err)
		}
		if trust.current.Load().generation != nameOf(1) {
			t.Error("nothing has changed, and something was written")
		}
		if _, err := h.serving.Rotate(); err != nil {
			t.Fatal(err)
		}
		if err := trust.refresh(t.Context(), a.dialer.Conn()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(cfg.State, fileCA))
		if err != nil || strings.Count(string(text), "BEGIN CERTIFICATE") != 2 {
			t.Errorf("%s, %v", text, err)
		}
		if id := trust.current.Load(); len(id.cas) != 2 {
			t.Errorf("%d CAs are in force", len(id.cas))
		}
	})
}
