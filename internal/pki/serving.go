package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// LoadServing is [LoadPair] for the certificate of a server, which is also judged
// as clients will judge it: it is for TLS servers and no authority, good for the
// names of the source, its chain is in order, without gaps and valid, and leads to
// the source's CA where there is one. An error names everything that is wrong, and
// what mends it.
//
// Without a CA, a chain that ends in what the system does not trust is used with a
// warning in [Status]: it may be an operator's own, or lack a certificate.
func LoadServing(source Source, opts ...Option) (*KeyPair, error) {
	pair, err := loadServing(source, newOptions("serving certificate", opts))
	if err != nil {
		return nil, fmt.Errorf("load serving certificate: %w", err)
	}
	return pair, nil
}

func loadServing(source Source, o options) (*KeyPair, error) {
	var names servingNames
	if len(source.Names) > 0 {
		var err error
		if names, err = parseServingNames(source.Names); err != nil {
			return nil, err
		}
	}
	return loadPair(source, o, func(value *pairValue) error { return checkServing(value, names, time.Now()) })
}

// checkServing judges value, whose key and date were judged before, and adds what
// clients have to trust.
func checkServing(value *pairValue, names servingNames, now time.Time) error {
	var chain []*x509.Certificate
	for _, der := range value.cert.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, cert)
	}
	problems := checkServingLeaf(chain[0], names)
	broken := checkOrder(chain, now)
	problems = append(problems, broken...)
	if len(broken) == 0 {
		problem, warning := checkEnd(chain, value, now)
		if problem != "" {
			problems = append(problems, problem)
		}
		if warning != "" {
			value.warnings = append(value.warnings, warning)
		}
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}

func checkServingLeaf(leaf *x509.Certificate, names servingNames) []string {
	var problems []string
	if leaf.IsCA {
		problems = append(problems, "the certificate of the key is that of an authority (CA:true), which clients refuse as a server's: "+
			"use one that this authority has signed, or make it again with basicConstraints CA:false")
	}
	if !allows(leaf, x509.ExtKeyUsageServerAuth) {
		problems = append(problems, fmt.Sprintf("it is for %s: make it again with extended key usage serverAuth", usagesOf(leaf)))
	}
	var missing []string
	for _, name := range names.dns {
		if !coversDNS(leaf, name) {
			missing = append(missing, quote(name))
		}
	}
	for _, ip := range names.ips {
		if !slices.Contains(namesOf(leaf).ips, ip) {
			missing = append(missing, ip.String())
		}
	}
	switch {
	case len(missing) == 0:
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		problems = append(problems, fmt.Sprintf("it has no subject alternative name, and clients do not read the common name %s: "+
			"make it again with subjectAltName for %s", quote(leaf.Subject.CommonName), strings.Join(missing, ", ")))
	default:
		problems = append(problems, fmt.Sprintf("it is not for %s but for %s: make it again with these names, or configure the names it has",
			strings.Join(missing, ", "), describeNames(leaf)))
	}
	return problems
}

// coversDNS is VerifyHostname for names with a wildcard as well, which only the
// same wildcard covers.
func coversDNS(leaf *x509.Certificate, name string) bool {
	if strings.HasPrefix(name, "*.") {
		return slices.ContainsFunc(leaf.DNSNames, func(has string) bool { return strings.EqualFold(has, name) })
	}
	return leaf.VerifyHostname(name) == nil
}

// checkOrder wants each certificate after the first to have signed the one before
// it (RFC 8446 section 4.4.2 recommends no less, and RFC 5246 requires it).
func checkOrder(chain []*x509.Certificate, now time.Time) []string {
	var problems []string
	for i, cert := range chain[1:] {
		below := chain[i]
		if err := below.CheckSignatureFrom(cert); err != nil {
			at := slices.IndexFunc(chain, func(other *x509.Certificate) bool {
				return !other.Equal(below) && below.CheckSignatureFrom(other) == nil
			})
			if at > 0 {
				problems = append(problems, fmt.Sprintf("the chain is out of order: certificate %d (%s) is signed by certificate %d (%s): put that one right after it",
					i+1, subjectOf(below), at+1, subjectOf(chain[at])))
			} else {
				problems = append(problems, fmt.Sprintf("certificate %d (%s) has not signed certificate %d (%s), whose issuer is %s: "+
					"put the certificate of that issuer between them, or leave out what does not belong there",
					i+2, subjectOf(cert), i+1, subjectOf(below), quote(below.Issuer.String())))
			}
			return problems // what follows would be about the same mistake
		}
		if err := checkValidity(cert, now); err != nil {
			problems = append(problems, fmt.Sprintf("certificate %d of the chain (%s): %s", i+2, subjectOf(cert), err))
		}
	}
	return problems
}

func subjectOf(cert *x509.Certificate) string { return quote(cert.Subject.String()) }

// checkEnd judges where the chain leads.
func checkEnd(chain []*x509.Certificate, value *pairValue, now time.Time) (problem, warning string) {
	last := chain[len(chain)-1]
	options := x509.VerifyOptions{
		Intermediates: poolOf(chain[1:]),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if value.cas != nil {
		options.Roots = poolOf(value.cas)
		if _, err := chain[0].Verify(options); err == nil {
			return "", ""
		} else if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
			return explainChain(chain[0], err), ""
		}
		if selfIssued(last) {
			return fmt.Sprintf("the chain ends in %s, which is not the given CA (%s): give the CA that the certificate is from",
				subjectOf(last), subjectOf(value.cas[0])), ""
		}
		return fmt.Sprintf("the chain is not complete: %s is signed by %s, which is neither in the file nor the given CA (%s): "+
			"append the certificate of that issuer, or give its CA",
			subjectOf(last), quote(last.Issuer.String()), subjectOf(value.cas[0])), ""
	}
	if system, err := x509.SystemCertPool(); err == nil {
		options.Roots = system
		if _, err := chain[0].Verify(options); err == nil {
			return "", ""
		}
	}
	if selfIssued(last) {
		value.cas = []*x509.Certificate{last}
		return "", ""
	}
	return "", fmt.Sprintf("the chain ends in %s, which is signed by %s, and this system does not trust that: "+
		"clients need the certificate of that issuer as their CA, or, if it is an intermediate one, it has to be appended to the chain",
		subjectOf(last), quote(last.Issuer.String()))
}

// ServiceNames returns the four names that a Service of Kubernetes is reached by
// within its cluster, for the names of a serving certificate.
func ServiceNames(name, namespace string) []string {
	return []string{
		name,
		name + "." + namespace,
		name + "." + namespace + ".svc",
		name + "." + namespace + ".svc.cluster.local",
	}
}

func namesOf(leaf *x509.Certificate) servingNames {
	names := servingNames{dns: leaf.DNSNames}
	for _, ip := range leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			names.ips = append(names.ips, addr.Unmap())
		}
	}
	return names
}
