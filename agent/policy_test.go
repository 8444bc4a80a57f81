package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestPolicy(t *testing.T) {
	target := echo(t)
	h := newTestHub(t, time.Hour)
	var log lines
	cfg := h.config(&log)
	cfg.Policy = filepath.Join(t.TempDir(), "policy.yaml")
	const head = "apiVersion: policy.culvert.dev/v1\nkind: Policy\n"
	write := func(rules string) {
		t.Helper()
		if err := os.WriteFile(cfg.Policy, []byte(head+rules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, token := h.token("edge-1")
	if err := Join(t.Context(), cfg, JoinConfig{Token: token}); err != nil {
		t.Fatal(err)
	}
	t.Run("N8: an agent does not start with a policy that is bad, or is a hub's", func(t *testing.T) {
		for rules, want := range map[string]string{
			"rulez: []\n": "rulez",
			"rules: [{name: x, effect: deny, clusters: {names: [a]}, tcp: [{hosts: [\"*\"], ports: [\"*\"]}]}]\n": "clusters",
		} {
			write(rules)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name %s", err, want)
			}
		}
	})
	write("rules: [{name: no-tcp, effect: deny, tcp: [{hosts: [\"*\"], ports: [\"*\"]}]}]\n")
	a, _ := h.run(cfg)
	link := <-h.links
	eventually(t, "it is connected", a.Connected)
	open := func() error {
		s, err := link.Open(t.Context(), mux.Request{Target: target})
		if err != nil {
			return err
		}
		return errors.Join(roundTrip(s, "hello"), s.Close())
	}
	denied := func() bool {
		var refused *mux.Error
		err := open()
		return errors.As(err, &refused) && refused.Code == wire.CodePermissionDenied && refused.Hop == wire.HopAgent && strings.Contains(err.Error(), "no-tcp")
	}
	t.Run("N8: the owner's policy denies what an allow flag allows, and is named", func(t *testing.T) {
		if !denied() {
			t.Error(open())
		}
	})
	t.Run("N8: a bad new policy leaves the one before in force, and a good one counts with Reload", func(t *testing.T) {
		write("rules: [{name: x}]\n")
		if err := a.Reload(); err == nil || !strings.Contains(err.Error(), "effect") {
			t.Errorf("%v", err)
		}
		if !denied() {
			t.Error(open())
		}
		shown := false
		for _, health := range a.Health() {
			shown = shown || health.Name == "policy" && health.LastError != ""
		}
		if !shown {
			t.Errorf("%+v", a.Health())
		}
		write("")
		if err := a.Reload(); err != nil {
			t.Error(err)
		}
		if err := open(); err != nil {
			t.Error(err)
		}
	})
}
