package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"

	"github.com/culvertdev/culvert/internal/route"
)

// DefaultLifetime is how long a certificate is valid where its maker does not
// say: a year, which is also what browsers accept of a server.
const DefaultLifetime = 365 * 24 * time.Hour

// minLifetime: certificates count in seconds.
const minLifetime = time.Second

// maxBackdate lets peers whose clock is behind use a new certificate at once.
const maxBackdate = 5 * time.Minute

// IssueAgent returns the certificate, as PEM, of an agent of cluster: for TLS
// clients only, with the URI of [AgentID] as its one name. The caller keeps the
// key that belongs to pub. cluster has to be a DNS-1123 label, trustDomain a DNS
// name; lifetime 0 stands for [DefaultLifetime].
//
// A certificate is valid from a little before now (five minutes, or a tenth of a
// shorter lifetime) and never longer than its authority.
func (a *Authority) IssueAgent(pub crypto.PublicKey, trustDomain, cluster string, lifetime time.Duration) ([]byte, error) {
	certPEM, err := a.issueAgent(pub, trustDomain, cluster, lifetime)
	if err != nil {
		return nil, fmt.Errorf("issue agent certificate: %w", err)
	}
	return certPEM, nil
}

func (a *Authority) issueAgent(pub crypto.PublicKey, trustDomain, cluster string, lifetime time.Duration) ([]byte, error) {
	if a.role != RoleAgents {
		return nil, fmt.Errorf("the %s CA does not sign for agents, use the %s CA", a.role, RoleAgents)
	}
	if err := CheckTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	if err := route.CheckCluster(cluster); err != nil {
		return nil, err
	}
	return a.sign(&x509.Certificate{
		// For people who look at it; nothing reads it.
		Subject:     pkix.Name{Organization: []string{organization}, CommonName: cluster},
		URIs:        []*url.URL{agentURL(trustDomain, cluster)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub, lifetime)
}

// IssueServing returns the certificate, as PEM, of a server that is reached by
// names: DNS names, of which the first label may be "*", and IP addresses. The
// caller keeps the key that belongs to pub. lifetime is as in
// [Authority.IssueAgent].
func (a *Authority) IssueServing(pub crypto.PublicKey, names []string, lifetime time.Duration) ([]byte, error) {
	parsed, err := parseServingNames(names)
	if err != nil {
		return nil, fmt.Errorf("issue serving certificate: %w", err)
	}
	certPEM, err := a.issueServing(pub, parsed, lifetime)
	if err != nil {
		return nil, fmt.Errorf("issue serving certificate: %w", err)
	}
	return certPEM, nil
}

func (a *Authority) issueServing(pub crypto.PublicKey, names servingNames, lifetime time.Duration) ([]byte, error) {
	if a.role != RoleServing {
		return nil, fmt.Errorf("the %s CA does not sign for servers, use the %s CA", a.role, RoleServing)
	}
	template := &x509.Certificate{
		// Not one of the names: a common name has 64 characters, a DNS name 253.
		Subject:     pkix.Name{Organization: []string{organization}, CommonName: "Culvert hub"},
		DNSNames:    names.dns,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range names.ips {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	}
	return a.sign(template, pub, lifetime)
}

// sign completes a template for a peer: what every one of them has in common.
func (a *Authority) sign(template *x509.Certificate, pub crypto.PublicKey, lifetime time.Duration) ([]byte, error) {
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	if lifetime < minLifetime {
		return nil, fmt.Errorf("lifetime: %s, want at least %s", lifetime, minLifetime)
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	now := time.Now()
	if err := checkValidity(a.cert, now); err != nil {
		return nil, fmt.Errorf("the %s CA: %w", a.role, err)
	}
	template.NotBefore = now.Add(-min(maxBackdate, lifetime/10))
	if template.NotBefore.Before(a.cert.NotBefore) {
		template.NotBefore = a.cert.NotBefore
	}
	template.NotAfter = now.Add(lifetime)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, err
	}
	return encodeCertificate(der), nil
}

// renewAt is two thirds of a certificate's life.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) * 2 / 3)
}
