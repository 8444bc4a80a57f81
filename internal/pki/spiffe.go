package pki

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/culvertdev/culvert/internal/route"
)

const (
	spiffePrefix  = "spiffe://"
	clusterPrefix = "/cluster/"
)

// tagURI is uniformResourceIdentifier of GeneralName, RFC 5280 section 4.2.1.6.
const tagURI = 6

// subjectAltName is id-ce-subjectAltName, RFC 5280 section 4.2.1.6.
func subjectAltName() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 29, 17} }

// AgentID returns the name of a cluster's agents,
// spiffe://<trust-domain>/cluster/<name>. It does not check its arguments.
func AgentID(trustDomain, cluster string) string {
	return spiffePrefix + trustDomain + clusterPrefix + cluster
}

// agentURL is AgentID for a template of crypto/x509.
func agentURL(trustDomain, cluster string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: clusterPrefix + cluster}
}

// ClusterOf returns the cluster that a certificate names. The certificate has to
// have exactly one URI subject alternative name, and that has to be
// spiffe://<trustDomain>/cluster/<name> byte for byte: no other case of a
// letter, nothing escaped, no query, fragment, port or user. Everything else is
// an error that says what is wrong. The subject is never read.
//
// It judges the name alone: who signed the certificate is for [VerifyAgent].
// cert has to come from a parser, since the raw extension is read: the parsed
// URL has already lost spellings such as an empty fragment.
func ClusterOf(cert *x509.Certificate, trustDomain string) (string, error) {
	if err := CheckTrustDomain(trustDomain); err != nil {
		return "", err
	}
	uris, err := uriNames(cert)
	if err != nil {
		return "", fmt.Errorf("subject alternative names: %w", err)
	}
	switch len(uris) {
	case 0:
		return "", fmt.Errorf("no URI subject alternative name, want %s", AgentID(trustDomain, "<name>"))
	case 1:
	default:
		return "", fmt.Errorf("%d URI subject alternative names, want one: %s", len(uris), AgentID(trustDomain, "<name>"))
	}
	cluster, err := parseAgentID(uris[0], trustDomain)
	if err != nil {
		return "", fmt.Errorf("URI subject alternative name %s: %w", quote(uris[0]), err)
	}
	return cluster, nil
}

func parseAgentID(id, trustDomain string) (string, error) {
	rest, ok := strings.CutPrefix(id, spiffePrefix)
	if !ok {
		return "", fmt.Errorf("the scheme is not %s", spiffePrefix)
	}
	// Whatever could make two spellings of one name, or one spelling of two.
	for i := range len(rest) {
		switch c := rest[i]; {
		case c == '%':
			return "", errors.New("escaped bytes are not allowed")
		case c == '?':
			return "", errors.New("a query is not allowed")
		case c == '#':
			return "", errors.New("a fragment is not allowed")
		case c <= ' ' || c > '~':
			return "", fmt.Errorf("byte %#02x is not allowed", c)
		}
	}
	domain, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		domain, path = rest[:i], rest[i:]
	}
	switch {
	case strings.Contains(domain, "@"):
		return "", errors.New("a user is not allowed")
	case strings.Contains(domain, ":"):
		return "", errors.New("a port is not allowed")
	case domain != trustDomain:
		return "", fmt.Errorf("the trust domain is %s, want %s", quote(domain), trustDomain)
	}
	cluster, ok := strings.CutPrefix(path, clusterPrefix)
	if !ok || strings.Contains(cluster, "/") {
		return "", fmt.Errorf("the path is %s, want %s<name>", quote(path), clusterPrefix)
	}
	if err := route.CheckCluster(cluster); err != nil {
		return "", err
	}
	return cluster, nil
}

// uriNames returns the URIs of the subject alternative names as they are in the
// certificate.
func uriNames(cert *x509.Certificate) ([]string, error) {
	var uris []string
	for _, extension := range cert.Extensions {
		if !extension.Id.Equal(subjectAltName()) {
			continue
		}
		var names []asn1.RawValue
		rest, err := asn1.Unmarshal(extension.Value, &names)
		if err != nil {
			return nil, fmt.Errorf("malformed: %w", err)
		}
		if len(rest) > 0 {
			return nil, errors.New("malformed: data after the end")
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == tagURI {
				if name.IsCompound {
					return nil, errors.New("malformed: a URI is made of parts")
				}
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	return uris, nil
}
