package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// AgentCheck refuses the certificate of a cluster's agent by an error. It is
// called after the certificate was found to be trusted and to be that cluster's,
// by several goroutines at once, and must not change cert. The method
// CheckCertificate of the hub's store is one.
type AgentCheck func(cluster string, cert *x509.Certificate) error

// AgentAuthority is one source of agents' certificates, with the only rule by which
// a certificate of that source names a cluster.
type AgentAuthority struct {
	// Name is what errors call it: the setting that it comes from.
	Name string
	// Roots are its certificates.
	Roots Roots
	// ClusterOf reads the cluster's name out of a certificate that Roots vouch for.
	ClusterOf func(*x509.Certificate) (string, error)
	// Checks are asked in their order, and the first error refuses the certificate:
	// that is where revocation comes in.
	Checks []AgentCheck
}

// VerifyAgent is [VerifyAgents] with one authority, whose certificates name a
// cluster of trustDomain as [ClusterOf] reads it.
func VerifyAgent(roots Roots, trustDomain string, checks ...AgentCheck) func(tls.ConnectionState) (cluster string, err error) {
	return VerifyAgents(AgentAuthority{
		Roots:     roots,
		ClusterOf: func(cert *x509.Certificate) (string, error) { return ClusterOf(cert, trustDomain) },
		Checks:    checks,
	})
}

// VerifyAgents returns a function that says which cluster the peer of a
// connection is an agent of. The certificate has to be of exactly one of the
// authorities, valid now, for TLS clients, no authority itself, and to name a cluster
// by that authority's rule; the rules of others are never tried. An error names
// everything that is wrong, and what mends it.
//
// The function is for tls.Config.VerifyConnection of the hub, together with
// ClientAuth tls.RequireAnyClientCert: it judges the chain itself, with the roots
// of that moment and for resumed sessions too. It may be called later for the
// same connection, and by several goroutines.
func VerifyAgents(authorities ...AgentAuthority) func(tls.ConnectionState) (cluster string, err error) {
	return func(state tls.ConnectionState) (string, error) {
		cluster, err := verifyAgent(state, authorities)
		if err != nil {
			return "", fmt.Errorf("agent certificate: %w", err)
		}
		return cluster, nil
	}
}

func verifyAgent(state tls.ConnectionState, authorities []AgentAuthority) (string, error) {
	from, err := authorityOf(state, authorities)
	if err != nil {
		return "", err
	}
	leaf, err := verifyChain(state, from.Roots, x509.ExtKeyUsageClientAuth, "")
	if err != nil {
		if names := sourceNames(authorities[1:]); len(names) > 0 && !leadsTo(state, from.Roots) {
			err = fmt.Errorf("%w; nor by one of %s", err, strings.Join(names, ", "))
		}
		return "", err
	}
	cluster, err := from.ClusterOf(leaf)
	if err != nil {
		if from.Name != "" {
			err = fmt.Errorf("by the rule of %s: %w", from.Name, err)
		}
		return "", err
	}
	for _, check := range from.Checks {
		if err := check(cluster, leaf); err != nil {
			return "", err
		}
	}
	return cluster, nil
}

// authorityOf returns the authority that a certificate comes from, and the first
// of all, for what is wrong, where it comes from none.
func authorityOf(state tls.ConnectionState, authorities []AgentAuthority) (AgentAuthority, error) {
	if len(authorities) == 1 {
		return authorities[0], nil
	}
	var from []AgentAuthority
	for _, authority := range authorities {
		if leadsTo(state, authority.Roots) {
			from = append(from, authority)
		}
	}
	switch len(from) {
	case 0:
		return authorities[0], nil
	case 1:
		return from[0], nil
	default:
		return AgentAuthority{}, fmt.Errorf("it is signed by a CA of %s at once, so that no rule is certain: each CA belongs in one of them",
			strings.Join(sourceNames(from), " and "))
	}
}

func sourceNames(authorities []AgentAuthority) []string {
	var names []string
	for _, authority := range authorities {
		names = append(names, authority.Name)
	}
	return names
}

// leadsTo tells that a chain leads to one of the roots, whatever else is wrong with
// the certificate, its end included.
func leadsTo(state tls.ConnectionState, roots Roots) bool {
	options := x509.VerifyOptions{Roots: roots.Pool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if len(state.PeerCertificates) == 0 || options.Roots == nil {
		return false
	}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	leaf := state.PeerCertificates[0]
	options.CurrentTime = timeWithin(leaf, time.Now())
	_, err := leaf.Verify(options)
	if err == nil {
		return true
	}
	// An authority that is not valid now is still the one that it comes from.
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Cert != nil && !invalid.Cert.Equal(leaf)
}

// timeWithin is the time in a certificate's validity that is nearest to now.
func timeWithin(leaf *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(leaf.NotBefore):
		return leaf.NotBefore
	case now.After(leaf.NotAfter):
		return leaf.NotAfter
	}
	return now
}
