package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/telemetry"
)

// Health is the state of one certificate or file that the hub keeps current.
type Health = telemetry.Health

// Health returns the state of everything that the hub keeps current by itself:
// certificates, CAs, the policy, the token file and OIDC issuers. What could not be reloaded is in it, and
// makes the hub not unready.
func (s *Server) Health() []Health {
	var all []Health
	for _, w := range s.trust.watched {
		all = append(all, healthOf(w.Status()))
	}
	if s.trust.serving.acme != nil {
		all = append(all, s.trust.serving.acme.health()...)
	}
	if s.policyFile != nil {
		status := s.policyFile.Status()
		all = append(all, Health{Name: "policy", File: status.File, LastError: status.Err, Failures: status.Failures})
	}
	return append(all, s.identity.Health()...)
}

func healthOf(status pki.Status) Health {
	h := Health{
		Name: status.Name, Subject: status.Subject, NotAfter: status.NotAfter,
		LastError: status.Err, Failures: uint64(status.Failures), Warnings: status.Warnings,
	}
	if len(status.Files) > 0 {
		h.File = status.Files[0]
	}
	return h
}

// Reload reads every certificate, key, CA, the policy, the token file and the
// configuration of OIDC issuers now, also those that look unchanged. What cannot be used leaves what was in force before, and is
// logged and in the error. Without a call files are looked at about once a second
// while somebody connects. It may be called at any time.
func (s *Server) Reload() error {
	var problems []error
	for _, w := range s.trust.watched {
		err := w.Reload()
		status := w.Status()
		if err != nil {
			s.log.Warn("reload: what was read before stays in force", "what", status.Name, "files", status.Files, "reason", err)
			problems = append(problems, err)
			continue
		}
		s.log.Info("reload", "what", status.Name, "files", status.Files, "subject", status.Subject,
			"expires", status.NotAfter.UTC().Format(time.RFC3339))
	}
	followed := map[string]func() error{}
	if s.policyFile != nil {
		followed["policy"] = s.policyFile.Reload
	}
	if files := s.identityFiles(); len(files) > 0 {
		followed[strings.Join(files, ", ")] = s.identity.Reload
	}
	for what, reload := range followed {
		if err := reload(); err != nil {
			s.log.Warn("reload: what was read before stays in force", "what", what, "reason", err)
			problems = append(problems, err)
			continue
		}
		s.log.Info("reload", "what", what)
	}
	return errors.Join(problems...)
}

// identityFiles names the files that say who callers are.
func (s *Server) identityFiles() []string {
	var names []string
	if s.cfg.TokenFile != "" {
		names = append(names, "token file")
	}
	if s.cfg.AuthenticationConfig != "" {
		names = append(names, "authentication configuration")
	}
	return names
}

// housekeeping is how often records that nothing depends on any more are removed.
const housekeeping = time.Hour

// keepHouse removes them until ctx ends.
func (s *Server) keepHouse(ctx context.Context) {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		if _, err := s.store.Prune(time.Now()); err != nil {
			s.log.Error("cannot remove old records", "reason", err)
		}
		for role, authority := range s.trust.authorities {
			gone, err := authority.Prune()
			if err != nil {
				s.log.Error("cannot remove old authorities", "role", role, "reason", err)
			}
			for _, cert := range gone {
				s.log.Info("an authority that was rotated away is not trusted any more", "role", role, "subject", cert.Subject.String())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
