package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/culvertdev/culvert/internal/route"
)

// DefaultLifetime is how long a certificate is valid where its maker does not
// say: a year, which is also what browsers accept of a server.
const DefaultLifetime = 365 * 24 * time.Hour

// DefaultAgentLifetime is how long a certificate of an agent that renews it by
// itself is valid where the hub's configuration does not say.
const DefaultAgentLifetime = 30 * 24 * time.Hour

// minLifetime: certificates count in seconds.
const minLifetime = time.Second

// maxBackdate lets peers whose clock is behind use a new certificate at once.
const maxBackdate = 5 * time.Minute

// Issued is a certificate that an [Authority] has signed. The caller owns it.
type Issued struct {
	// Certificate is the peer's own.
	Certificate *x509.Certificate
	// PEM is the certificate, and what has to be sent with it, for a file.
	PEM []byte
}

// SignAgent issues the certificate of an agent of cluster: for TLS clients only,
// with the URI of [AgentID] as its one name and a random serial number of 128
// bits. Every field but the key is decided here. The caller keeps the key that
// belongs to pub. cluster has to be a DNS-1123 label, trustDomain a DNS name;
// lifetime 0 stands for [DefaultLifetime].
//
// A certificate is valid from a little before now (five minutes, or a tenth of a
// shorter lifetime) and never longer than its authority. Without the authority's
// key the error is [ErrNoKey].
func (a *Authority) SignAgent(pub crypto.PublicKey, trustDomain, cluster string, lifetime time.Duration) (*Issued, error) {
	issued, err := a.issueAgent(pub, trustDomain, cluster, lifetime)
	if err != nil {
		return nil, fmt.Errorf("issue agent certificate: %w", err)
	}
	return issued, nil
}

// IssueAgent is [Authority.SignAgent] for who needs the PEM text alone.
func (a *Authority) IssueAgent(pub crypto.PublicKey, trustDomain, cluster string, lifetime time.Duration) ([]byte, error) {
	issued, err := a.SignAgent(pub, trustDomain, cluster, lifetime)
	if err != nil {
		return nil, err
	}
	return issued.PEM, nil
}

func (a *Authority) issueAgent(pub crypto.PublicKey, trustDomain, cluster string, lifetime time.Duration) (*Issued, error) {
	if a.role != RoleAgents {
		return nil, fmt.Errorf("the %s CA does not sign for agents, use the %s CA", a.role, RoleAgents)
	}
	if err := CheckTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	if err := route.CheckCluster(cluster); err != nil {
		return nil, err
	}
	return a.sign(a.now(), &x509.Certificate{
		// For people who look at it; nothing reads it.
		Subject:     pkix.Name{Organization: []string{organization}, CommonName: cluster},
		URIs:        []*url.URL{agentURL(trustDomain, cluster)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, pub, lifetime)
}

// IssueServing returns the certificate, as PEM with the chain that has to be sent
// with it, of a server that is reached by names: DNS names, of which the first
// label may be "*", and IP addresses. The caller keeps the key that belongs to
// pub. lifetime is as in [Authority.SignAgent].
func (a *Authority) IssueServing(pub crypto.PublicKey, names []string, lifetime time.Duration) ([]byte, error) {
	parsed, err := parseServingNames(names)
	if err != nil {
		return nil, fmt.Errorf("issue serving certificate: %w", err)
	}
	issued, err := a.issueServing(a.now(), pub, parsed, lifetime)
	if err != nil {
		return nil, fmt.Errorf("issue serving certificate: %w", err)
	}
	return issued.PEM, nil
}

func (a *Authority) issueServing(s *signers, pub crypto.PublicKey, names servingNames, lifetime time.Duration) (*Issued, error) {
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
	return a.sign(s, template, pub, lifetime)
}

// sign completes a template for a peer: what every one of them has in common.
func (a *Authority) sign(s *signers, template *x509.Certificate, pub crypto.PublicKey, lifetime time.Duration) (*Issued, error) {
	if s.key == nil {
		return nil, fmt.Errorf("the %s CA: %s: %w", a.role, a.certFile, ErrNoKey)
	}
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	if lifetime < minLifetime {
		return nil, fmt.Errorf("lifetime: %s, want at least %s", lifetime, minLifetime)
	}
	if err := checkPublicKey(pub); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	now, issuer := time.Now(), s.active
	if err := checkValidity(issuer, now); err != nil {
		return nil, fmt.Errorf("the %s CA: %w", a.role, err)
	}
	template.NotBefore = now.Add(-min(maxBackdate, lifetime/10))
	if template.NotBefore.Before(issuer.NotBefore) {
		template.NotBefore = issuer.NotBefore
	}
	template.NotAfter = now.Add(lifetime)
	if template.NotAfter.After(issuer.NotAfter) {
		template.NotAfter = issuer.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	var err error
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	if err := a.remember(issuer, template.NotAfter, lifetime); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, pub, s.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	issued := &Issued{Certificate: cert, PEM: encodeCertificate(der)}
	for _, above := range s.chain {
		issued.PEM = append(issued.PEM, encodeCertificate(above.Raw)...)
	}
	return issued, nil
}

// newSerial returns 128 random bits of which the first is set: never zero, and
// one length for all. RFC 5280 section 4.1.2.2 allows 20 octets.
func newSerial() (*big.Int, error) {
	const octets = 16
	random := make([]byte, octets)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	random[0] |= 0x80
	return new(big.Int).SetBytes(random), nil
}

// RenewAt returns when a certificate should be renewed: at two thirds of its life,
// five percent of that earlier or later. Which is decided by its serial number, so
// that it is always the same time for one certificate, and that of many that were
// issued at once not all are renewed at once.
func RenewAt(cert *x509.Certificate) time.Time {
	due := int64(cert.NotAfter.Sub(cert.NotBefore) * 2 / 3)
	sum := sha256.Sum256(cert.SerialNumber.Bytes())
	share := int64(binary.BigEndian.Uint16(sum[:])) // of 65536
	return cert.NotBefore.Add(time.Duration(due - due/20 + due/10/(1<<16)*share))
}
