package pki

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
)

// Selector chooses among several pairs by the name that a client asks for. It is
// immutable and safe for concurrent use; the pairs stay current by themselves.
type Selector struct {
	pairs []*KeyPair
}

// NewSelector returns a selector of pairs, at least one. Their order counts: see
// [Selector.For].
func NewSelector(pairs ...*KeyPair) (*Selector, error) {
	if len(pairs) == 0 || slices.Contains(pairs, nil) {
		return nil, errors.New("select certificates by name: none given")
	}
	return &Selector{pairs: slices.Clone(pairs)}, nil
}

// Pairs returns the pairs in their order.
func (s *Selector) Pairs() []*KeyPair { return slices.Clone(s.pairs) }

// For returns the pair for a client: the first of which a DNS name is the server
// name of the hello (RFC 6066 section 3), or else the first with a wildcard for
// it, or else the first of all. A client that asks for no name or for an address
// gets the first of all. Letters of both cases are the same. Of several that
// match equally, one whose kind of key the client knows goes before one whose
// kind it does not. hello may be nil.
func (s *Selector) For(hello *tls.ClientHelloInfo) *KeyPair {
	if hello == nil || hello.ServerName == "" || len(s.pairs) == 1 {
		return s.pairs[0]
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if pair := s.first(hello, name); pair != nil {
		return pair
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if pair := s.first(hello, "*."+parent); pair != nil {
			return pair
		}
	}
	return s.pairs[0]
}

func (s *Selector) first(hello *tls.ClientHelloInfo, name string) *KeyPair {
	var found *KeyPair
	for _, pair := range s.pairs {
		cert := pair.get()
		if !slices.ContainsFunc(cert.Leaf.DNSNames, func(has string) bool { return strings.EqualFold(has, name) }) {
			continue
		}
		if hello.SupportsCertificate(cert) == nil {
			return pair
		}
		if found == nil {
			found = pair
		}
	}
	return found
}

// GetCertificate is for the field of that name of a server's tls.Config. It
// never fails.
func (s *Selector) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.For(hello).GetCertificate(hello)
}

// GetCertificateWithCA is [KeyPair.GetCertificateWithCA] of the pair for a client.
func (s *Selector) GetCertificateWithCA(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.For(hello).GetCertificateWithCA(hello)
}
