package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Versions are the settings of a TLS server that clients talk to. The zero value
// stands for TLS 1.3 alone.
type Versions struct {
	// Min is the lowest version that is accepted: "1.2" or "1.3", the default.
	Min string
	// CipherSuites are those of TLS 1.2 that are offered, by their IANA names; nil
	// stands for the Go library's. All have forward secrecy. Those of TLS 1.3 are
	// not chosen.
	CipherSuites []string
}

// Apply sets them in a configuration. An error names the setting and what it may
// be.
func (v Versions) Apply(config *tls.Config) error {
	var version uint16
	switch v.Min {
	case "", "1.3":
		version = tls.VersionTLS13
	case "1.2":
		version = tls.VersionTLS12
	default:
		return fmt.Errorf("lowest TLS version: %s, want \"1.2\" or \"1.3\"", quote(v.Min))
	}
	if len(v.CipherSuites) > 0 && version == tls.VersionTLS13 {
		return errors.New("cipher suites: they are those of TLS 1.2, and the lowest TLS version is 1.3, where there is nothing to choose: leave them out")
	}
	offered := forwardSecret()
	var ids []uint16
	for _, name := range v.CipherSuites {
		i := slices.IndexFunc(offered, func(suite *tls.CipherSuite) bool { return suite.Name == name })
		if i < 0 {
			return fmt.Errorf("cipher suite: %s is not one of %s", quote(name), strings.Join(names(offered), ", "))
		}
		ids = append(ids, offered[i].ID)
	}
	config.MinVersion = version
	config.CipherSuites = ids
	if ids == nil && version == tls.VersionTLS12 {
		for _, suite := range offered {
			config.CipherSuites = append(config.CipherSuites, suite.ID)
		}
	}
	return nil
}

// forwardSecret returns the suites of TLS 1.2 that the Go library takes for secure
// and that make a key of their own for each connection.
func forwardSecret() []*tls.CipherSuite {
	return slices.DeleteFunc(tls.CipherSuites(), func(suite *tls.CipherSuite) bool {
		return !strings.HasPrefix(suite.Name, "TLS_ECDHE_")
	})
}

func names(suites []*tls.CipherSuite) []string {
	list := make([]string, 0, len(suites))
	for _, suite := range suites {
		list = append(list, suite.Name)
	}
	return list
}
