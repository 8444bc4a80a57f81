package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// validity of the certificates: longer than any run, short enough to be useless
// afterwards.
const validity = 24 * time.Hour

// StaticToken is a line of kube-apiserver's --token-auth-file.
type StaticToken struct {
	Token, User, UID string
	Groups           []string
}

// credentials are the files a kube-apiserver starts with.
type credentials struct {
	ca                                          []byte // PEM
	caFile, servingCert, servingKey             string
	serviceAccountPublic, serviceAccountPrivate string
	tokenFile, adminToken                       string
}

func newCredentials(dir string, tokens []StaticToken, names []string) (credentials, error) {
	c := credentials{
		caFile:                filepath.Join(dir, "ca.crt"),
		servingCert:           filepath.Join(dir, "serving.crt"),
		servingKey:            filepath.Join(dir, "serving.key"),
		serviceAccountPublic:  filepath.Join(dir, "sa.pub"),
		serviceAccountPrivate: filepath.Join(dir, "sa.key"),
		tokenFile:             filepath.Join(dir, "tokens.csv"),
		adminToken:            rand.Text(),
	}
	if err := errors.Join(c.writeServing(names), c.writeServiceAccountKeys()); err != nil {
		return credentials{}, fmt.Errorf("credentials: %w", err)
	}
	tokens = append([]StaticToken{{Token: c.adminToken, User: "admin", UID: "admin", Groups: []string{"system:masters"}}}, tokens...)
	var csv strings.Builder
	for _, t := range tokens {
		fmt.Fprintf(&csv, "%s,%s,%s,%q\n", t.Token, t.User, t.UID, strings.Join(t.Groups, ","))
	}
	if err := writeFile(c.tokenFile, []byte(csv.String())); err != nil {
		return credentials{}, fmt.Errorf("credentials: %w", err)
	}
	return c, nil
}

// writeServing makes a CA and a serving certificate with the names that a
// cluster's API server has, and further ones.
func (c *credentials) writeServing(names []string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "kubernetes"},
		NotBefore:    time.Now().Add(-time.Minute), NotAfter: time.Now().Add(validity),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serving := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:    ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: append([]string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		}, names...),
		IPAddresses: []net.IP{
			loopback.AsSlice(), InsideAddress.AsSlice(), ServiceRange.Addr().Next().AsSlice(),
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, serving, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	c.ca = encode("CERTIFICATE", caDER)
	return errors.Join(
		writeFile(c.caFile, c.ca),
		writeFile(c.servingCert, encode("CERTIFICATE", der)),
		writeFile(c.servingKey, encode("PRIVATE KEY", keyDER)),
	)
}

// writeServiceAccountKeys makes the pair that signs and verifies tokens of
// service accounts.
func (c *credentials) writeServiceAccountKeys() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	// kube-apiserver reads EC keys in the SEC 1 form.
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(c.serviceAccountPrivate, encode("EC PRIVATE KEY", private)),
		writeFile(c.serviceAccountPublic, encode("PUBLIC KEY", public)),
	)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeFile writes a file that only its owner reads.
func writeFile(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }

// clientTLS trusts the CA, given as PEM, and nothing else.
func clientTLS(ca []byte) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("CA: no certificate in the PEM text")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
