package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Roots gives the authorities that are trusted at this moment. [Bundle] and
// [Authority] do.
type Roots interface {
	// Pool returns the authorities; the caller does not change them.
	Pool() *x509.CertPool
}

// VerifyServer returns a function for tls.Config.VerifyConnection of an agent or
// client, which takes the place of the checks that InsecureSkipVerify switches
// off: the server's certificate has to be of one of the roots, valid now, for
// TLS servers, and for name, a DNS name or an IP address. Unlike
// tls.Config.RootCAs it follows a [Bundle]. The function is safe for concurrent
// use.
func VerifyServer(roots Roots, name string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if name == "" {
			return errors.New("server certificate: no server name to check it against")
		}
		if _, err := verifyChain(state, roots, x509.ExtKeyUsageServerAuth, name); err != nil {
			return fmt.Errorf("server certificate: %w", err)
		}
		return nil
	}
}

// verifyChain returns the peer's own certificate when it can be trusted for
// usage and, unless name is empty, for name.
func verifyChain(state tls.ConnectionState, roots Roots, usage x509.ExtKeyUsage, name string) (*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, errors.New("none was sent")
	}
	leaf := state.PeerCertificates[0]
	options := x509.VerifyOptions{
		Roots:         roots.Pool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{usage},
		DNSName:       name,
	}
	if options.Roots == nil {
		return nil, errors.New("no trusted CA to check it against") // x509 would take the system's
	}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(options)
	if err == nil && !leaf.IsCA {
		return leaf, nil
	}
	return nil, explain(leaf, options, err)
}

// explain says everything that is wrong with a certificate, where x509 stops at
// the first thing. It never makes a bad certificate good.
func explain(leaf *x509.Certificate, options x509.VerifyOptions, verifyErr error) error {
	var problems []string
	if leaf.IsCA {
		problems = append(problems, "it is the certificate of an authority, not of a peer")
	}
	validity := checkValidity(leaf, options.CurrentTime)
	if validity != nil {
		problems = append(problems, validity.Error())
	}
	if usage := options.KeyUsages[0]; !allows(leaf, usage) {
		problems = append(problems, fmt.Sprintf("it is for %s, want %s", usagesOf(leaf), usageName(usage)))
	}
	if options.DNSName != "" {
		if err := leaf.VerifyHostname(options.DNSName); err != nil {
			problems = append(problems, fmt.Sprintf("it is not for %s but for %s", quote(options.DNSName), describeNames(leaf)))
		}
	}
	// The chain alone, at a time at which the leaf is valid.
	options.DNSName = ""
	options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	options.CurrentTime = timeWithin(leaf, options.CurrentTime)
	// At another time than now, an authority that was not valid then is no news.
	if _, err := leaf.Verify(options); err != nil && (validity == nil || !isValidity(err)) {
		problems = append(problems, explainChain(leaf, err))
	}
	if len(problems) == 0 {
		return verifyErr
	}
	return errors.New(strings.Join(problems, "; "))
}

func isValidity(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

func explainChain(leaf *x509.Certificate, err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if slices.Equal(leaf.RawIssuer, leaf.RawSubject) {
			return "it is signed by itself and not trusted here"
		}
		return fmt.Sprintf("it is signed by a CA that is not trusted here: %s", quote(leaf.Issuer.String()))
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		return fmt.Sprintf("the CA %s is valid from %s to %s only", quote(invalid.Cert.Subject.String()),
			timestamp(invalid.Cert.NotBefore), timestamp(invalid.Cert.NotAfter))
	}
	return err.Error()
}

// allows reports what x509 takes for allowed: a certificate without extended key
// usages is for everything, RFC 5280 section 4.2.1.12.
func allows(leaf *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(leaf.ExtKeyUsage, usage) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func usagesOf(leaf *x509.Certificate) string {
	var names []string
	for _, usage := range leaf.ExtKeyUsage {
		names = append(names, usageName(usage))
	}
	if len(leaf.UnknownExtKeyUsage) > 0 {
		names = append(names, "usages of private meaning")
	}
	return strings.Join(names, " and ")
}

func usageName(usage x509.ExtKeyUsage) string {
	switch usage {
	case x509.ExtKeyUsageServerAuth:
		return "TLS servers (serverAuth)"
	case x509.ExtKeyUsageClientAuth:
		return "TLS clients (clientAuth)"
	default:
		return fmt.Sprintf("extended key usage %d", usage)
	}
}

// describeNames gives a few of the names of a server's certificate.
func describeNames(leaf *x509.Certificate) string {
	const most = 8
	var names []string
	for _, name := range leaf.DNSNames {
		names = append(names, quote(name))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	switch {
	case len(names) == 0:
		return "no DNS name or IP address at all"
	case len(names) > most:
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
