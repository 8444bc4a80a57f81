package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// SelfServing returns the hub's own serving certificate for names, which are as
// in [Authority.IssueServing], from dir/serving.crt and dir/serving.key. It is
// issued by auth where it is missing, damaged, of another authority or for other
// names, and when two thirds of its life are over: that is looked at here and at
// every handshake. Each certificate has a key of its own and is valid for
// [DefaultLifetime].
//
// The two files belong to the hub. They are not followed while it runs: who wants
// a certificate of their own uses [LoadKeyPair]. When a certificate cannot be
// replaced at a handshake, the old one stays in force, which is logged once, and
// the next try is a second later.
func SelfServing(auth *Authority, dir string, names []string, opts ...Option) (*KeyPair, error) {
	parsed, err := parseServingNames(names)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	s := &selfServing{
		auth:     auth,
		certFile: filepath.Join(dir, "serving.crt"),
		keyFile:  filepath.Join(dir, "serving.key"),
		names:    parsed,
		log:      newOptions(opts).log,
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	return &KeyPair{get: s.get}, nil
}

// selfServing issues a certificate to itself.
type selfServing struct {
	auth              *Authority
	certFile, keyFile string
	names             servingNames
	log               *slog.Logger

	current atomic.Pointer[tls.Certificate]

	mu      sync.Mutex // guards what follows; held while a certificate is issued
	next    time.Time  // not before this is another try made
	problem string     // why the last try failed
}

// load takes the certificate in the files, or makes a new one.
func (s *selfServing) load() error {
	certPEM, _, certErr := readFile(s.certFile)
	keyPEM, _, keyErr := readFile(s.keyFile)
	missing := errors.Is(certErr, fs.ErrNotExist) || errors.Is(keyErr, fs.ErrNotExist)
	if err := errors.Join(certErr, keyErr); err != nil && !missing {
		return err // which a new certificate would not mend
	}
	unfit := errors.New("there is none")
	if !missing {
		var cert *tls.Certificate
		if cert, unfit = s.fit(certPEM, keyPEM); unfit == nil {
			s.current.Store(cert)
			return nil
		}
	}
	cert, err := s.issue()
	if err != nil {
		return err
	}
	s.current.Store(cert)
	s.log.Info("issued a serving certificate", "reason", unfit, "file", s.certFile,
		"names", namesOf(cert.Leaf).String(), "expires", timestamp(cert.Leaf.NotAfter))
	return nil
}

// fit returns the certificate in the files, or the reason why there has to be a
// new one.
func (s *selfServing) fit(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	// A key that others could read is treated as theirs, and not used again.
	if _, err := readPrivateKey(s.keyFile); err != nil {
		return nil, err
	}
	cert, err := parsePair(s.certFile, certPEM, s.keyFile, keyPEM)
	if err != nil {
		return nil, err
	}
	switch leaf, now := cert.Leaf, time.Now(); {
	case leaf.CheckSignatureFrom(s.auth.cert) != nil:
		return nil, errors.New("the one before is from another authority")
	case !namesOf(leaf).equal(s.names):
		return nil, errors.New("the one before is for other names")
	case now.Before(leaf.NotBefore):
		return nil, errors.New("the one before is not valid yet")
	case !now.Before(renewAt(leaf)):
		return nil, errors.New("two thirds of the life of the one before are over")
	}
	return cert, nil
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

// issue makes a certificate and writes it. When two processes do so at once the
// files may end up as the halves of two pairs, which load finds and mends.
func (s *selfServing) issue() (*tls.Certificate, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	certPEM, err := s.auth.issueServing(key.Public(), s.names, DefaultLifetime)
	if err != nil {
		return nil, err
	}
	cert, err := parsePair(s.certFile, certPEM, s.keyFile, keyPEM)
	if err != nil {
		return nil, err
	}
	if err := replace(s.keyFile, keyPEM, modeKey); err != nil {
		return nil, err
	}
	if err := replace(s.certFile, certPEM, modePublic); err != nil {
		return nil, err
	}
	return cert, nil
}

// get returns the certificate in force, after it was replaced if that is due.
func (s *selfServing) get() *tls.Certificate {
	cert := s.current.Load()
	if time.Now().Before(renewAt(cert.Leaf)) {
		return cert
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	cert = s.current.Load() // another handshake may have been first
	if now.Before(renewAt(cert.Leaf)) || now.Before(s.next) {
		return cert
	}
	s.next = now.Add(checkInterval)
	fresh, err := s.issue()
	if err != nil {
		if s.problem != err.Error() {
			s.problem = err.Error()
			s.log.Error("cannot replace the serving certificate, the one before stays in force",
				"file", s.certFile, "expires", timestamp(cert.Leaf.NotAfter), "err", err)
		}
		return cert
	}
	s.problem = ""
	s.current.Store(fresh)
	s.log.Info("replaced the serving certificate", "file", s.certFile, "expires", timestamp(fresh.Leaf.NotAfter))
	return fresh
}
