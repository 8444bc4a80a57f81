package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/culvertdev/culvert/internal/pki"
)

// serving is the certificates that the hub shows, by name.
type serving struct {
	selector *pki.Selector
	acme     *acmeCertificates // nil without ACME
	acmeCA   *pki.Bundle       // what clients need for those of acme; nil for the system's
	watched  []pki.Watched
	self     *pki.KeyPair // nil where the hub cannot issue one
}

// loadServing reads the certificates of cfg. Before any of them comes what the
// hub issues itself, where nothing else is set or as long as the files are
// missing.
func loadServing(cfg Config, authority *pki.Authority) (*serving, error) {
	s := &serving{}
	options := []pki.Option{pki.WithLogger(cfg.Logger), openKeys(cfg.Certificates)}
	lifetime := DefaultServingLifetime
	if c := cfg.Certificates; c != nil && c.ServingLifetime.Duration > 0 {
		lifetime = c.ServingLifetime.Duration
	}
	if authority.CanSign() {
		var err error
		s.self, err = pki.SelfServing(authority, PKIDir(cfg.State), cfg.selfNames(),
			append(options, pki.WithName("own serving certificate"), pki.WithLifetime(lifetime))...)
		if err != nil {
			return nil, fmt.Errorf("tlsNames: %w", err)
		}
	}
	pairs, err := s.supplied(cfg, options)
	if err != nil {
		return nil, err
	}
	switch {
	case s.self != nil && cfg.TLSCert == "":
		pairs = append(pairs, s.self)
		s.watched = append(s.watched, s.self)
	case len(pairs) == 0:
		return nil, errors.New("certificates.serving.key: required: the hub has no serving certificate, and cannot issue one without the key")
	}
	names, err := cfg.hosts()
	if err != nil {
		return nil, fmt.Errorf("hosts: %w", err)
	}
	if names != nil && authority.CanSign() {
		// For names that no supplied certificate has, which come before it.
		pair, err := pki.SelfServing(authority, PKIDir(cfg.State), append(names.Names(), proxyNames...),
			append(options, pki.WithName("own certificate of host names"), pki.WithFileBase("hosts"), pki.WithLifetime(lifetime))...)
		if err != nil {
			return nil, fmt.Errorf("hosts: %w", err)
		}
		pairs = append(pairs, pair)
		s.watched = append(s.watched, pair)
	}
	if s.selector, err = pki.NewSelector(pairs...); err != nil {
		return nil, err
	}
	if cfg.ACME != nil {
		if s.acme, err = newACME(cfg); err != nil {
			return nil, err
		}
		if cfg.TLS != nil && cfg.TLS.CA != "" {
			if s.acmeCA, err = pki.LoadBundle(cfg.TLS.CA, pki.WithLogger(cfg.Logger), pki.WithName("serving CA of acme")); err != nil {
				return nil, fmt.Errorf("tls.ca: %w", err)
			}
			s.watched = append(s.watched, s.acmeCA)
		}
	}
	s.announce(cfg)
	return s, nil
}

// supplied reads what the operator supplies, the main certificate first.
func (s *serving) supplied(cfg Config, options []pki.Option) ([]*pki.KeyPair, error) {
	var pairs []*pki.KeyPair
	load := func(field, name string, source pki.Source, passphraseFile, passphraseEnv string, more ...pki.Option) error {
		opts := append(slices.Clone(options), pki.WithName(name))
		if passphraseFile != "" {
			opts = append(opts, pki.WithPassphraseFile(passphraseFile))
		}
		if passphraseEnv != "" {
			opts = append(opts, pki.WithPassphraseEnv(passphraseEnv))
		}
		pair, err := pki.LoadServing(source, append(opts, more...)...)
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		pairs = append(pairs, pair)
		s.watched = append(s.watched, pair)
		return nil
	}
	tlsConfig := cfg.TLS
	if tlsConfig == nil {
		tlsConfig = &TLS{}
	}
	if cfg.TLSCert != "" {
		var more []pki.Option
		if s.self != nil {
			more = append(more, pki.WithFallback(s.self))
		}
		// Names that are set are those it has to have; the default ones are not.
		source := pki.Source{CertFile: cfg.TLSCert, KeyFile: cfg.TLSKey, CAFile: tlsConfig.CA, Names: cfg.TLSNames}
		if err := load("tlsCert, tlsKey", "serving certificate", source, tlsConfig.PassphraseFile, tlsConfig.PassphraseEnv, more...); err != nil {
			return nil, err
		}
	}
	for i, c := range tlsConfig.Certificates {
		source := pki.Source{CertFile: c.Cert, KeyFile: c.Key, Dir: c.Dir, CertData: c.CertData, KeyData: c.KeyData, CAFile: c.CA}
		field := fmt.Sprintf("tls.certificates[%d]", i)
		if err := load(field, field, source, c.PassphraseFile, c.PassphraseEnv); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// announce says at the start what callers will see, with what they can compare
// it with.
func (s *serving) announce(cfg Config) {
	main := s.selector.For(nil)
	if !main.SelfIssued() {
		return
	}
	fingerprint := ""
	if cas := main.CA(); len(cas) > 0 {
		fingerprint = pki.Fingerprint(cas[0])
	}
	cfg.Logger.Info("the hub's certificate is from its own CA", "names", cfg.selfNames(),
		"ca", PKIDir(cfg.State)+"/"+pki.RoleServing+"-ca.crt", "sha256", fingerprint, "download", "/-/ca.crt")
}

// selfNames are the names of the certificate that the hub issues itself.
func (c *Config) selfNames() []string {
	names := slices.Clone(c.TLSNames)
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1", "::1"}
	}
	if c.TLS != nil && c.TLS.Service != "" {
		if namespace, name, ok := strings.Cut(c.TLS.Service, "/"); ok {
			names = append(names, pki.ServiceNames(name, namespace)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *serving) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.acme != nil {
		if cert, err := s.acme.certificate(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	return s.selector.GetCertificate(hello)
}

func (s *serving) getCertificateWithCA(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.acme != nil {
		if cert, err := s.acme.certificate(hello); cert != nil || err != nil {
			return s.withACMECA(cert), err
		}
	}
	return s.selector.GetCertificateWithCA(hello)
}

// withACMECA sends the CA of a certificate along that an ACME server issued.
func (s *serving) withACMECA(cert *tls.Certificate) *tls.Certificate {
	if cert == nil || s.acmeCA == nil {
		return cert
	}
	whole := *cert
	whole.Certificate = slices.Clone(cert.Certificate)
	for _, ca := range s.acmeCA.Certificates() {
		whole.Certificate = append(whole.Certificate, ca.Raw)
	}
	return &whole
}

// authoritiesFor returns what a client has to trust that reaches the hub by name;
// nil when that is its system's CAs.
func (s *serving) authoritiesFor(name string) []*x509.Certificate {
	if s.acme != nil && s.acme.serves(name) {
		if s.acmeCA == nil {
			return nil
		}
		return s.acmeCA.Certificates()
	}
	return s.pairFor(name).CA()
}

// public tells whether a client's system trusts the certificate that it gets by
// name, as far as this system tells.
func (s *serving) public(name string) bool {
	if s.acme != nil && s.acme.serves(name) {
		return s.acmeCA == nil
	}
	pair := s.pairFor(name)
	if len(pair.CA()) > 0 {
		return false
	}
	shown, err := pair.GetCertificate(nil)
	if err != nil {
		return false
	}
	options := x509.VerifyOptions{Intermediates: x509.NewCertPool()}
	for _, der := range shown.Certificate[1:] {
		if cert, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(cert)
		}
	}
	_, err = shown.Leaf.Verify(options)
	return err == nil
}

func (s *serving) pairFor(name string) *pki.KeyPair {
	if net.ParseIP(name) != nil {
		name = "" // addresses are not sent (RFC 6066 section 3)
	}
	return s.selector.For(&tls.ClientHelloInfo{ServerName: name})
}

// covers returns why the certificate that a client gets by name is not for it.
func (s *serving) covers(name string) error {
	if s.acme != nil && s.acme.serves(name) {
		return nil
	}
	return s.pairFor(name).Leaf().VerifyHostname(name)
}

// bundle returns the CAs of every certificate that is shown, PEM; nil when
// clients need none.
func (s *serving) bundle() []byte {
	var all []*x509.Certificate
	add := func(cas []*x509.Certificate) {
		for _, ca := range cas {
			if !slices.ContainsFunc(all, ca.Equal) {
				all = append(all, ca)
			}
		}
	}
	if s.acmeCA != nil {
		add(s.acmeCA.Certificates())
	}
	for _, pair := range s.selector.Pairs() {
		add(pair.CA())
	}
	return encodeCertificates(all)
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}
