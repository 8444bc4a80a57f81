package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Roles of an [Authority], and the start of its files' names.
const (
	// RoleAgents signs the certificates that agents show to the hub.
	RoleAgents = "agents"
	// RoleServing signs the certificates that the hub shows to agents and clients.
	RoleServing = "serving"
)

// organization is the O of every name made here. OpenSSL refuses an empty issuer.
const organization = "Culvert"

const (
	// authorityLifetime is how long an authority made here is valid.
	authorityLifetime = 10 * 365 * 24 * time.Hour
	// authorityBackdate lets peers whose clock is behind use a new authority.
	authorityBackdate = time.Hour
)

// Authority is a certificate authority with its key. It is immutable and safe
// for concurrent use; the zero value is not usable.
type Authority struct {
	role string
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
	pool *x509.CertPool
}

// LoadOrCreate returns the authority of a role, [RoleAgents] or [RoleServing],
// from dir/<role>-ca.crt and dir/<role>-ca.key, and makes it when dir has
// neither: an ECDSA key on P-256, ten years, no authorities below it. The folder
// is made with mode 0700 where it is missing.
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
func LoadOrCreate(dir, role string) (*Authority, error) {
	if !slices.Contains([]string{RoleAgents, RoleServing}, role) {
		return nil, fmt.Errorf("certificate authority: unknown role %s, want %s or %s", quote(role), RoleAgents, RoleServing)
	}
	certFile := filepath.Join(dir, role+"-ca.crt")
	keyFile := filepath.Join(dir, role+"-ca.key")
	_, err := os.Stat(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = createAuthority(certFile, keyFile, role)
	}
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	a, err := loadAuthority(certFile, keyFile, role)
	if err != nil {
		return nil, fmt.Errorf("%s CA: %w", role, err)
	}
	return a, nil
}

// createAuthority makes what is missing, the key before the certificate: so who
// sees a certificate can rely on its key being there.
func createAuthority(certFile, keyFile, role string) error {
	if err := os.MkdirAll(filepath.Dir(certFile), modeDir); err != nil {
		return err
	}
	fresh, err := NewKey()
	if err != nil {
		return err
	}
	keyPEM, err := EncodeKey(fresh)
	if err != nil {
		return err
	}
	if err := placeNew(keyFile, keyPEM, modeKey); err != nil {
		return err
	}
	// Another process may have been first: its key counts.
	key, err := readPrivateKey(keyFile)
	if err != nil {
		return err
	}
	der, err := selfSign(key, role, time.Now())
	if err != nil {
		return err
	}
	return placeNew(certFile, encodeCertificate(der), modePublic)
}

func selfSign(key crypto.Signer, role string, now time.Time) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	// The name holds a part of the key's digest, so that an error that names a
	// foreign issuer does not look like one that names the right one.
	digest := sha256.Sum256(spki)
	template := &x509.Certificate{
		Subject: pkix.Name{
			Organization: []string{organization},
			CommonName:   fmt.Sprintf("Culvert %s CA %x", role, digest[:4]),
		},
		NotBefore:             now.Add(-authorityBackdate),
		NotAfter:              now.Add(authorityLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

func loadAuthority(certFile, keyFile, role string) (*Authority, error) {
	data, _, err := readFile(certFile)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("%s: holds %d certificates, want the authority's own alone", certFile, len(certs))
	}
	cert := certs[0]
	if err := checkAuthority(cert, time.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", certFile, err)
	}
	key, err := readPrivateKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there without its key: restore %s, or move the certificate away to start a new authority, "+
			"which nobody who trusts the old one will trust", certFile, keyFile)
	}
	if err != nil {
		return nil, err
	}
	if !samePublicKey(cert, key) {
		return nil, fmt.Errorf("%s is not the key of %s: restore the two that belong together", keyFile, certFile)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{role: role, cert: cert, key: key, pem: encodeCertificate(cert.Raw), pool: pool}, nil
}

func checkAuthority(cert *x509.Certificate, now time.Time) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("not the certificate of an authority: basic constraints do not say CA")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("not the certificate of an authority: key usage does not allow signing certificates")
	case len(cert.Subject.Names) == 0:
		return errors.New("the subject is empty, which OpenSSL refuses as an issuer: give it a common name")
	}
	return checkValidity(cert, now)
}

// checkValidity names the dates and not the present time, so that the same
// problem has the same words a second later.
func checkValidity(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("not valid before %s: check the clocks", timestamp(cert.NotBefore))
	case now.After(cert.NotAfter):
		return fmt.Errorf("expired at %s (valid from %s), replace it with a new one", timestamp(cert.NotAfter), timestamp(cert.NotBefore))
	}
	return nil
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Certificate returns the authority's own certificate. It must not be changed.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// PEM returns the authority's own certificate for a file. The caller owns it.
func (a *Authority) PEM() []byte { return slices.Clone(a.pem) }

// Pool returns a pool that holds this authority alone. It must not be changed.
func (a *Authority) Pool() *x509.CertPool { return a.pool }
