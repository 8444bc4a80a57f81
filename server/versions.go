package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// clientVersions returns the TLS configuration's part for clients that t asks
// for; nil asks for the defaults.
func clientVersions(t *TLS) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if t == nil {
		return cfg, nil
	}
	var problems []error
	switch t.MinVersion {
	case "", DefaultMinVersion:
	case "1.2":
		cfg.MinVersion = tls.VersionTLS12
	default:
		problems = append(problems, fmt.Errorf("tls.minVersion: %q is not 1.2 or 1.3: older ones are not served", t.MinVersion))
	}
	if len(t.CipherSuites) > 0 && cfg.MinVersion == tls.VersionTLS13 && len(problems) == 0 {
		return nil, errors.New("tls.cipherSuites: are of TLS 1.2: set tls.minVersion to 1.2, or leave them out")
	}
	for i, name := range t.CipherSuites {
		id := slices.IndexFunc(forwardSecret(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if id < 0 {
			problems = append(problems, fmt.Errorf("tls.cipherSuites[%d]: %q is not one of %s", i, name, strings.Join(suiteNames(), ", ")))
			continue
		}
		cfg.CipherSuites = append(cfg.CipherSuites, forwardSecret()[id].ID)
	}
	if len(t.CipherSuites) == 0 {
		for _, suite := range forwardSecret() {
			cfg.CipherSuites = append(cfg.CipherSuites, suite.ID)
		}
	}
	return cfg, errors.Join(problems...)
}

// forwardSecret returns the suites of TLS 1.2 that keep what was recorded secret
// when the key leaks, and whose encryption is authenticated (RFC 9325 section
// 4.2).
func forwardSecret() []*tls.CipherSuite {
	return slices.DeleteFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool {
		aead := strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "_CHACHA20_POLY1305")
		return !slices.Contains(s.SupportedVersions, tls.VersionTLS12) || !strings.HasPrefix(s.Name, "TLS_ECDHE_") || !aead
	})
}

func suiteNames() []string {
	var names []string
	for _, suite := range forwardSecret() {
		names = append(names, suite.Name)
	}
	return names
}
