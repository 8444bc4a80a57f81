package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Roles of an [Authority], and the start of its files' names.
const (
	// RoleAgents signs the certificates that agents show to the hub.
	RoleAgents = "agents"
	// RolePeers signs the certificates that hubs show to each other.
	RolePeers = "peers"
	// RoleUsers signs the certificates that people and programs show to the hub.
	RoleUsers = "users"
	// RoleServing signs the certificates that the hub shows to agents and clients.
	RoleServing = "serving"
)

// Roles returns every role there is.
func Roles() []string { return []string{RoleAgents, RolePeers, RoleUsers, RoleServing} }

const (
	// authorityLifetime is how long an authority made here is valid.
	authorityLifetime = 10 * 365 * 24 * time.Hour
	// authorityBackdate lets peers whose clock is behind use a new authority.
	authorityBackdate = time.Hour
	// maxAuthorities bounds how many certificates the file of a role may hold.
	maxAuthorities = 64
)

// ErrNoKey says that the hub trusts an authority and has no key of it.
var ErrNoKey = errors.New("the hub has the certificate of this authority and not its key: " +
	"give it the key, or have the authority's owner issue the certificate")

// Authority is the certificate authority of a role: the certificate that signs,
// with its key, and the ones before it that are still trusted. It follows its
// files, so that a rotation by one process is seen by the others. It is safe for
// concurrent use and needs no closing; the zero value is not usable.
type Authority struct {
	role              string
	certFile, keyFile string
	crossFile         string // only of the hub's own of RoleServing
	own               bool   // the hub made it, or may make the next one
	lifetime          time.Duration
	f                 *followed[*signers]

	mu     sync.Mutex           // guards what follows
	issued map[string]time.Time // until when certificates of a key may be in use, at least as far as the file says
}

// signers is what the files of an authority hold. It is immutable.
type signers struct {
	trusted []*x509.Certificate // the active one first, none expired
	active  *x509.Certificate
	key     crypto.Signer // nil when there is none
	chain   []*x509.Certificate
	pem     []byte
	pool    *x509.CertPool
}

// LoadOrCreate returns the authority of a role from dir/<role>-ca.crt and
// dir/<role>-ca.key, and makes it when dir has neither: an ECDSA key on P-256,
// ten years or what [WithLifetime] says. The folder is made with mode 0700 where
// it is missing.
//
// The certificate file may hold several certificates: the one of the key signs,
// and is the first unless a rotation was cut off; the others are trusted until
// they expire, or [Authority.Prune] finds that they are not needed.
//
// Several processes may call it for one folder at once: all return the
// authority that the first of them made. A process that dies within leaves
// nothing that the next one does not complete: the key comes first, and a key
// without certificate gets one.
//
// What is there is never changed. A certificate without its key, two that do not
// belong together, a file that is half-written, a certificate that is expired or
// no authority, and a key that others than its owner may read are errors that
// name the file and what to do.
func LoadOrCreate(dir, role string, opts ...Option) (*Authority, error) {
	if err := checkRole(role); err != nil {
		return nil, err
	}
	o := newOptions(role+" CA", opts)
	a := &Authority{
		role:     role,
		certFile: filepath.Join(dir, role+"-ca.crt"),
		keyFile:  filepath.Join(dir, role+"-ca.key"),
		own:      true,
		lifetime: o.lifetime,
		issued:   map[string]time.Time{},
	}
	if a.lifetime == 0 {
		a.lifetime = authorityLifetime
	}
	if role == RoleServing {
		a.crossFile = filepath.Join(dir, role+"-ca-cross.crt")
	}
	_, err := os.Stat(a.certFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = a.create(time.Now())
	}
	if err == nil {
		err = a.load(o)
	}
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	return a, nil
}

// LoadAuthority returns an authority of a role that an operator supplies: the
// certificate, and others that are to be trusted, in certFile, and the key in
// keyFile. Without keyFile the authority is trusted and signs nothing: then it
// needs no more than one certificate that is valid. The files are followed, and
// are never written: [Authority.Rotate] is refused, its owner replaces them.
func LoadAuthority(role, certFile, keyFile string, opts ...Option) (*Authority, error) {
	if err := checkRole(role); err != nil {
		return nil, err
	}
	a := &Authority{role: role, certFile: certFile, keyFile: keyFile}
	if certFile == "" {
		return nil, fmt.Errorf("%s CA: no certificate file given", role)
	}
	if err := a.load(newOptions(role+" CA", opts)); err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	return a, nil
}

func checkRole(role string) error {
	if slices.Contains(Roles(), role) {
		return nil
	}
	return fmt.Errorf("certificate authority: unknown role %s, want one of %s", quote(role), strings.Join(Roles(), ", "))
}

func (a *Authority) load(o options) error {
	if err := o.check(); err != nil {
		return err
	}
	files := required(a.certFile)
	if a.keyFile != "" {
		files = append(files, file{path: a.keyFile})
	}
	if o.passphraseFile != "" {
		files = append(files, file{path: o.passphraseFile})
	}
	if a.crossFile != "" {
		files = append(files, file{path: a.crossFile, optional: true})
	}
	var err error
	a.f, err = follow(o, func(in []input) (*signers, error) { return a.parse(o, in) }, files...)
	if errors.Is(err, fs.ErrNotExist) && a.keyFile != "" {
		if _, certErr := os.Stat(a.certFile); certErr != nil {
			return err
		}
		if _, keyErr := os.Stat(a.keyFile); errors.Is(keyErr, fs.ErrNotExist) {
			return fmt.Errorf("%s is there without its key: restore %s, or move the certificate away to start a new authority, "+
				"which nobody who trusts the old one will trust", a.certFile, a.keyFile)
		}
	}
	return err
}

func (a *Authority) parse(o options, in []input) (*signers, error) {
	now := time.Now()
	certs, err := parseCertificates(in[0].data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.certFile, err)
	}
	if len(certs) > maxAuthorities {
		return nil, fmt.Errorf("%s: holds %d certificates, at most %d are allowed", a.certFile, len(certs), maxAuthorities)
	}
	for _, cert := range certs {
		if err := checkAuthority(cert); err != nil {
			return nil, fmt.Errorf("%s: %w", a.certFile, err)
		}
	}
	s := &signers{active: certs[0]}
	if a.keyFile != "" {
		if err := a.parseKey(o, s, certs, in[1:]); err != nil {
			return nil, err
		}
		// Only the one that signs has to be valid; others may be over.
		if err := checkValidity(s.active, now); err != nil {
			return nil, fmt.Errorf("%s: %w", a.certFile, err)
		}
	}
	s.trusted = slices.DeleteFunc(slices.Clone(certs), func(cert *x509.Certificate) bool { return now.After(cert.NotAfter) })
	if len(s.trusted) == 0 {
		return nil, fmt.Errorf("%s: %w", a.certFile, checkValidity(certs[0], now))
	}
	if a.keyFile == "" {
		s.active = s.trusted[0]
	}
	if !s.active.Equal(s.trusted[0]) {
		s.trusted = slices.Insert(slices.DeleteFunc(s.trusted, s.active.Equal), 0, s.active)
	}
	for _, cert := range s.trusted {
		s.pem = append(s.pem, encodeCertificate(cert.Raw)...)
	}
	s.pool = poolOf(s.trusted)
	if last := in[len(in)-1]; a.crossFile != "" && last.info != nil {
		crosses, err := parseCertificates(last.data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.crossFile, err)
		}
		s.chain = crossChain(s.active, crosses, now)
	} else {
		s.chain = chainAbove(s.active, certs)
	}
	return s, nil
}

// parseKey finds the certificate of the key. While a rotation is under way it is
// not the first.
func (a *Authority) parseKey(o options, s *signers, certs []*x509.Certificate, in []input) error {
	warning, err := o.judgeMode(in[0], 0o077, true)
	if err != nil {
		return err
	}
	if warning != "" {
		o.log.Warn("the key of an authority can be read by others", "what", o.name, "problem", warning)
	}
	var passphrase []byte
	if o.passphraseFile != "" {
		passphrase, err = o.passphrase(&in[1])
	} else {
		passphrase, err = o.passphrase(nil)
	}
	if err != nil {
		return err
	}
	if s.key, err = parseKey(in[0].data, passphrase); err != nil {
		return fmt.Errorf("%s: %w", a.keyFile, err)
	}
	i := slices.IndexFunc(certs, func(cert *x509.Certificate) bool { return samePublicKey(cert, s.key) })
	if i < 0 {
		return fmt.Errorf("%s is not the key of %s: restore the two that belong together", a.keyFile, a.certFile)
	}
	s.active = certs[i]
	return nil
}

// chainAbove returns what has to be sent with what an operator's intermediate
// authority signs: itself, and those above it but the root.
func chainAbove(active *x509.Certificate, certs []*x509.Certificate) []*x509.Certificate {
	var chain []*x509.Certificate
	for cert := active; cert != nil && !selfIssued(cert) && len(chain) < len(certs); {
		chain = append(chain, cert)
		i := slices.IndexFunc(certs, func(above *x509.Certificate) bool { return cert.CheckSignatureFrom(above) == nil })
		if i < 0 {
			break
		}
		cert = certs[i]
	}
	return chain
}

func selfIssued(cert *x509.Certificate) bool { return slices.Equal(cert.RawIssuer, cert.RawSubject) }

// checkAuthority does not judge dates.
func checkAuthority(cert *x509.Certificate) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("not the certificate of an authority: basic constraints do not say CA")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("not the certificate of an authority: key usage does not allow signing certificates")
	case len(cert.Subject.Names) == 0:
		return errors.New("the subject is empty, which OpenSSL refuses as an issuer: give it a common name")
	}
	return nil
}

func (a *Authority) now() *signers { return a.f.get() }

// Role returns which role it is for.
func (a *Authority) Role() string { return a.role }

// CanSign tells whether the hub has the key. Without it, what needs the key fails
// with [ErrNoKey].
func (a *Authority) CanSign() bool { return a.now().key != nil }

// CanRotate tells whether [Authority.Rotate] is for this authority: those of
// [LoadOrCreate] it is for, those of [LoadAuthority] it is not.
func (a *Authority) CanRotate() bool { return a.own }

// Certificate returns the certificate that signs. It must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.now().active }

// Certificates returns every certificate that is trusted, the one that signs
// first. They must not be changed.
func (a *Authority) Certificates() []*x509.Certificate { return slices.Clone(a.now().trusted) }

// PEM returns what [Authority.Certificates] does, for a file. The caller owns it.
func (a *Authority) PEM() []byte { return slices.Clone(a.now().pem) }

// Pool returns a pool of [Authority.Certificates]. It must not be changed, and
// should be asked for anew at every handshake.
func (a *Authority) Pool() *x509.CertPool { return a.now().pool }

// Status is as in [Watched].
func (a *Authority) Status() Status { return a.f.status(statusOf(a.now().active)) }

// Reload is as in [Watched].
func (a *Authority) Reload() error { return a.f.reload() }
