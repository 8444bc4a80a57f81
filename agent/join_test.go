package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/outbound"
	"github.com/culvertdev/culvert/internal/wire"
)

var noProxy = outbound.Config{URL: outbound.None}

func TestJoin(t *testing.T) {
	t.Run("K6,O6: an agent joins with a token alone, runs from its state, and again after a restart", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		var log lines
		cfg := h.config(&log)
		_, token := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
			t.Fatal(err)
		}
		target := echo(t)
		for range 2 {
			_, end := h.run(cfg)
			link := <-h.links
			s, err := link.Open(t.Context(), mux.Request{Target: target})
			if err != nil {
				t.Fatal(err)
			}
			if err := roundTrip(s, "hello"); err != nil {
				t.Error(err)
			}
			_ = s.Close()
			end()
		}
		for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, fileKey: 0o600, fileCert: 0o600, fileCA: 0o600, fileInfo: 0o600} {
			stat, err := os.Stat(filepath.Join(cfg.State, name))
			if err != nil || stat.Mode() != want {
				t.Errorf("%s: %v, %v, want %v", name, stat.Mode(), err, want)
			}
		}
	})
	t.Run("O6: the same command line again just runs; a new token joins anew, and one that is refused changes nothing", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		var log lines
		cfg := h.config(&log)
		join := func(token string, force bool) (*identity, error) {
			t.Helper()
			err := Join(t.Context(), cfg, JoinConfig{Token: token, Force: force})
			id, loadErr := state{cfg.State}.load()
			return id, errors.Join(err, loadErr)
		}
		firstID, first := h.token("edge-1")
		one, err := join(first, false)
		if err != nil || one.Token != firstID {
			t.Fatalf("%v, %v", one, err)
		}
		again, err := join(first, false)
		if err != nil || again.generation != one.generation || len(log.with("joined already")) != 1 {
			t.Errorf("again: %v\n%s", err, &log)
		}
		_, second := h.token("edge-1")
		two, err := join(second, false)
		if err != nil || string(two.key) == string(one.key) || two.Cluster != "edge-1" {
			t.Errorf("a new token: %v", err)
		}
		back, err := join(first, false) // as a unit file that still has the first one
		if err != nil || back.generation != two.generation || len(log.with("could not join anew, what was joined before goes on")) != 1 {
			t.Errorf("the old one again: %v\n%s", err, &log)
		}
		_, other := h.token("edge-2")
		if _, err := join(other, false); err == nil || !strings.Contains(err.Error(), "belongs to cluster edge-1 at hub "+h.address()+" already: give another --state, or --force") {
			t.Errorf("another cluster: %v", err)
		}
		if three, err := join(other, true); err != nil || three.Cluster != "edge-2" {
			t.Errorf("with force: %v", err)
		}
		if _, err := join(first, true); err == nil || !strings.Contains(err.Error(), "was used at") {
			t.Errorf("force with a used token: %v", err)
		}
		if strings.Contains(log.String(), secretOf(t, first)) || strings.Contains(log.String(), first) {
			t.Error("the log has a token")
		}
	})
	t.Run("K6: tokens that are used up, damaged or of another hub give no certificate and leave no state", func(t *testing.T) {
		h, other := newTestHub(t, time.Hour), newTestHub(t, time.Hour)
		_, used := h.token("edge-1")
		var log lines
		if err := Join(t.Context(), h.config(&log), JoinConfig{Token: used}); err != nil {
			t.Fatal(err)
		}
		_, fresh := h.token("edge-1")
		_, foreign := other.token("edge-1")
		for name, c := range map[string]struct {
			join   JoinConfig
			hub    string
			reason culvertv1.EnrolmentReason
			says   string
		}{
			"used":            {join: JoinConfig{Token: used}, reason: culvertv1.EnrolmentReason_ENROLMENT_REASON_TOKEN_USED, says: "was used at"},
			"cut":             {join: JoinConfig{Token: fresh[:len(fresh)-1]}, says: "the text is damaged"},
			"of another hub":  {join: JoinConfig{Token: foreign}, hub: h.address(), says: "the token is of another hub"},
			"another cluster": {join: JoinConfig{Token: fresh, Cluster: "edge-2"}, says: "the join token is for edge-1 and not for edge-2"},
			"nothing":         {says: "token, serviceAccountTokenFile: give one of them"},
			"both":            {join: JoinConfig{Token: fresh, ServiceAccountTokenFile: "x"}, says: "give one of them"},
			"account":         {join: JoinConfig{ServiceAccountTokenFile: "x"}, says: "hub: required"},
		} {
			t.Run(name, func(t *testing.T) {
				cfg := h.config(&log)
				cfg.Hub = c.hub
				err := Join(t.Context(), cfg, c.join)
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v", err)
				}
				t.Logf("agent: %v", err)
				var refused *enrol.Error
				if c.reason != 0 && (!errors.As(err, &refused) || refused.Reason != c.reason) {
					t.Errorf("%v", err)
				}
				if _, err := os.Stat(cfg.State); !os.IsNotExist(err) {
					t.Errorf("there is a state: %v", err)
				}
			})
		}
		if err := Join(t.Context(), h.config(&log), JoinConfig{Token: fresh}); err != nil {
			t.Errorf("the fresh one was spent: %v", err)
		}
	})
	t.Run("K6: an expired certificate is explained with the commands that mend it, and a new token mends it", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		var log lines
		cfg := h.config(&log)
		chain, key := h.issue("edge-1", time.Second)
		id, err := newIdentity(info{Hub: h.address(), Cluster: "edge-1", TrustDomain: "culvert.local"}, chain, key, h.serving.PEM())
		if err != nil {
			t.Fatal(err)
		}
		if err := (state{cfg.State}).save(id, ""); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Until(id.cert.Leaf.NotAfter) + time.Millisecond)
		_, err = New(cfg)
		for _, part := range []string{
			"the certificate of cluster edge-1", "expired at " + timestamp(id.cert.Leaf.NotAfter),
			"culvert token create --cluster edge-1 at the hub", "culvert-agent join --force --token TOKEN --state " + cfg.State,
		} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("the error lacks %q: %v", part, err)
			}
		}
		t.Logf("agent: %v", err)
		_, token := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
			t.Fatal(err)
		}
		h.run(cfg)
		<-h.links
	})
	t.Run("an agent without a state says how to get one", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		_, err := New(h.config(&lines{}))
		if err == nil || !strings.Contains(err.Error(), "join with culvert-agent join --token TOKEN") || !strings.Contains(err.Error(), "--cert-dir") {
			t.Errorf("%v", err)
		}
	})
	t.Run("N7: a revoked agent is cut, refused, and comes back with a new token while it runs", func(t *testing.T) {
		h := newTestHub(t, time.Hour)
		var log lines
		cfg := h.config(&log)
		_, token := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
			t.Fatal(err)
		}
		h.run(cfg)
		link := <-h.links
		if _, err := h.store.RevokeCluster("edge-1", "admin", "stolen", time.Now()); err != nil {
			t.Fatal(err)
		}
		h.tunnels.Cut("edge-1", wire.CodeUnauthenticated, "cluster edge-1 was revoked")
		<-link.Done()
		eventually(t, "the next handshake is refused", func() bool { return len(h.log.with("cluster edge-1 was revoked at")) > 0 })
		if len(h.links) > 0 {
			t.Fatal("it came back")
		}
		_, again := h.token("edge-1")
		if err := Join(t.Context(), cfg, JoinConfig{Token: again}); err != nil {
			t.Fatal(err)
		}
		<-h.links // the agent that runs has taken up what the other process saved
	})
	t.Run("O6: a printed JoinConfig does not show the token", func(t *testing.T) {
		join := JoinConfig{Token: "PLANTED", Cluster: "edge-1"}
		var log lines
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "join", join)
		if said := fmt.Sprintf("%v %+v %#v %s", join, join, join, log.String()); strings.Contains(said, "PLANTED") {
			t.Error(said)
		}
	})
}

func secretOf(t *testing.T, text string) string {
	t.Helper()
	token, err := enrol.DecodeToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return token.Secret
}
