package agent

import (
	"errors"
	"fmt"

	"github.com/culvertdev/culvert/internal/upstream"
)

// Health returns what the agent keeps current by itself: its certificate, the
// hub's CAs, what belongs to the proxy, and the policy; and which endpoints of the
// API server work. Nothing in it is secret.
func (a *Agent) Health() []Health { return append(a.followed(), a.endpointsHealth()...) }

// followed is the state of what comes from files.
func (a *Agent) followed() []Health {
	all := a.trust.health()
	for _, w := range a.way.Watched() {
		all = append(all, healthOf(w.Status()))
	}
	if a.upstream.Unverified() {
		all = append(all, Health{Name: "kubernetes", LastError: upstream.UnverifiedWarning})
	}
	if a.policy != nil {
		status := a.policy.Status()
		all = append(all, Health{Name: "policy", File: status.File, LastError: status.Err, Failures: status.Failures})
	}
	return all
}

// Reload reads every certificate, key, CA and the policy again, now; they are followed
// without it as well. A file that cannot be used leaves what was there before in
// force, and is in the error, and in Health.
func (a *Agent) Reload() error {
	err := a.trust.reload()
	for _, w := range a.way.Watched() {
		err = errors.Join(err, w.Reload())
	}
	if a.policy != nil {
		err = errors.Join(err, a.policy.Reload())
	}
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	for _, h := range a.followed() {
		args := []any{"what", h.Name, "file", h.File}
		if !h.NotAfter.IsZero() {
			args = append(args, "subject", h.Subject, "expires", timestamp(h.NotAfter))
		}
		a.log.Info("read again", args...)
	}
	return nil
}

// errNotConnected is why an agent is not ready.
var errNotConnected = errors.New("no connection to the hub")

func (a *Agent) ready() error {
	if !a.Connected() {
		return errNotConnected
	}
	return nil
}
