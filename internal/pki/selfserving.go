package pki

import (
	"cmp"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// SelfServing returns the hub's own serving certificate for names, which are as
// in [Authority.IssueServing], from dir/serving.crt and dir/serving.key, or what [WithFileBase] says. It is
// issued by auth where it is missing, damaged, of another authority or for other
// names, after a rotation of auth, and when two thirds of its life are over, see
// [RenewAt]: that is looked at here and at every handshake. Each certificate has a
// key of its own and is valid for what [WithLifetime] says, or [DefaultLifetime].
//
// The two files belong to the hub. They are not followed while it runs: who wants
// a certificate of their own uses [LoadServing]. When a certificate cannot be
// replaced at a handshake, the old one stays in force, which is logged once, and
// the next try is a second later.
func SelfServing(auth *Authority, dir string, names []string, opts ...Option) (*KeyPair, error) {
	parsed, err := parseServingNames(names)
	if err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	o := newOptions("serving certificate", opts)
	s := &selfServing{
		options:  o,
		auth:     auth,
		certFile: filepath.Join(dir, cmp.Or(o.base, "serving")+".crt"),
		keyFile:  filepath.Join(dir, cmp.Or(o.base, "serving")+".key"),
		names:    parsed,
		lifetime: o.lifetime,
	}
	if s.lifetime == 0 {
		s.lifetime = DefaultLifetime
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("serving certificate: %w", err)
	}
	return &KeyPair{from: s}, nil
}

// selfServing issues a certificate to itself.
type selfServing struct {
	options
	auth              *Authority
	certFile, keyFile string
	names             servingNames
	lifetime          time.Duration

	current atomic.Pointer[selfValue]

	mu       sync.Mutex // guards what follows; held while a certificate is issued
	next     time.Time  // not before this is another try made
	problem  error      // why the last try failed
	failures int64      // different problems so far
	made     time.Time
}

// selfValue is a certificate and the authority that it was made, and its chain
// put together, with. It is immutable.
type selfValue struct {
	pairValue
	by *signers
}

// valueOf puts the chain of the authority of the moment behind a certificate.
func valueOf(cert *tls.Certificate, by *signers) *selfValue {
	served := &tls.Certificate{Certificate: [][]byte{cert.Leaf.Raw}, PrivateKey: cert.PrivateKey, Leaf: cert.Leaf}
	for _, above := range by.chain {
		served.Certificate = append(served.Certificate, above.Raw)
	}
	return &selfValue{pairValue{cert: served, cas: by.trusted, self: true}, by}
}

// load takes the certificate in the files, or makes a new one.
func (s *selfServing) load() error {
	certPEM, _, certErr := readFile(s.certFile)
	keyPEM, _, keyErr := readFile(s.keyFile)
	missing := errors.Is(certErr, fs.ErrNotExist) || errors.Is(keyErr, fs.ErrNotExist)
	if err := errors.Join(certErr, keyErr); err != nil && !missing {
		return err // which a new certificate would not mend
	}
	by, unfit := s.auth.now(), errors.New("there is none")
	if !missing {
		var cert *tls.Certificate
		if cert, unfit = s.fit(certPEM, keyPEM, by); unfit == nil {
			s.put(valueOf(cert, by))
			return nil
		}
	}
	fresh, err := s.issue(by)
	if err != nil {
		return err
	}
	s.put(fresh)
	s.log.Info("issued a serving certificate", "reason", unfit, "file", s.certFile,
		"names", namesOf(fresh.cert.Leaf).String(), "expires", timestamp(fresh.cert.Leaf.NotAfter))
	return nil
}

func (s *selfServing) put(value *selfValue) {
	s.current.Store(value)
	s.problem, s.made = nil, time.Now()
}

// fit returns the certificate in the files, or the reason why there has to be a
// new one.
func (s *selfServing) fit(certPEM, keyPEM []byte, by *signers) (*tls.Certificate, error) {
	// A key that others could read is treated as theirs, and not used again.
	if _, err := readPrivateKey(s.keyFile); err != nil {
		return nil, err
	}
	cert, err := parsePair(s.certFile, certPEM, s.keyFile, keyPEM, nil)
	if err != nil {
		return nil, err
	}
	switch leaf, now := cert.Leaf, time.Now(); {
	case leaf.CheckSignatureFrom(by.active) != nil:
		return nil, errors.New("the one before is from another authority")
	case !namesOf(leaf).equal(s.names):
		return nil, errors.New("the one before is for other names")
	case now.Before(leaf.NotBefore):
		return nil, errors.New("the one before is not valid yet")
	case leaf.NotAfter.After(now.Add(s.lifetime)):
		return nil, errors.New("the one before is valid for longer than is configured")
	case !now.Before(RenewAt(leaf)):
		return nil, errors.New("two thirds of the life of the one before are over")
	}
	return cert, nil
}

// issue makes a certificate and writes it. When two processes do so at once the
// files may end up as the halves of two pairs, which load finds and mends.
func (s *selfServing) issue(by *signers) (*selfValue, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	issued, err := s.auth.issueServing(by, key.Public(), s.names, s.lifetime)
	if err != nil {
		return nil, err
	}
	if err := replace(s.keyFile, keyPEM, modeKey); err != nil {
		return nil, err
	}
	if err := replace(s.certFile, issued.PEM, modePublic); err != nil {
		return nil, err
	}
	return valueOf(&tls.Certificate{PrivateKey: crypto.Signer(key), Leaf: issued.Certificate}, by), nil
}

// due tells whether something has to be done about value.
func (s *selfServing) due(value *selfValue, by *signers) bool {
	return value.by != by || !time.Now().Before(RenewAt(value.cert.Leaf))
}

// get returns the certificate in force, after it was replaced if that is due.
func (s *selfServing) get() *pairValue {
	value := s.current.Load()
	if !s.due(value, s.auth.now()) {
		return &value.pairValue
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !time.Now().Before(s.next) {
		s.renew()
	}
	return &s.current.Load().pairValue
}

// renew is called with mu held.
func (s *selfServing) renew() {
	value, by := s.current.Load(), s.auth.now() // another handshake may have been first
	if !s.due(value, by) {
		return
	}
	leaf := value.cert.Leaf
	if value.by.active.Equal(by.active) && time.Now().Before(RenewAt(leaf)) {
		// Only what is sent along has changed.
		s.put(valueOf(value.cert, by))
		return
	}
	fresh, err := s.issue(by)
	if err != nil {
		s.next = time.Now().Add(checkInterval)
		known := s.problem != nil && s.problem.Error() == err.Error()
		s.problem = err
		if !known {
			s.failures++
			s.log.Error("cannot replace the serving certificate, the one before stays in force",
				"file", s.certFile, "expires", timestamp(leaf.NotAfter), "err", err)
		}
		return
	}
	s.put(fresh)
	s.log.Info("replaced the serving certificate", "file", s.certFile, "expires", timestamp(fresh.cert.Leaf.NotAfter),
		"issuer", fresh.by.active.Subject.String())
}

func (s *selfServing) status(status Status) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status.Name, status.Files = s.name, []string{s.certFile, s.keyFile}
	status.Read, status.Failures = s.made.UTC(), s.failures
	if s.problem != nil {
		status.Err = s.problem.Error()
	}
	return status
}

func (s *selfServing) reload() error {
	if err := s.auth.Reload(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew()
	return s.problem
}
