package trust

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
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"sync"
	"time"
)

// authority signs whatever a test wants.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// authorityOf is one of a hub's own, with its real key.
func (h *hub) authorityOf(role string) (authority, error) {
	pair, err := tls.LoadX509KeyPair(h.pki(role+"-ca.crt"), h.pki(role+"-ca.key"))
	if err != nil {
		return authority{}, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return authority{}, fmt.Errorf("the key of the %s CA is a %T", role, pair.PrivateKey)
	}
	return authority{pair.Leaf, key}, nil
}

func newAuthority(name string) (authority, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	pair, err := authority{}.sign(template)
	if err != nil {
		return authority{}, err
	}
	return authority{pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)}, nil
}

// sign makes a key and a certificate for it; the zero authority lets it sign
// itself.
func (a authority) sign(template *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	if a.cert == nil {
		a = authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

func (a authority) pem() []byte { return certificatePEM(a.cert.Raw) }

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// pemOf returns the texts of a pair.
func pemOf(cert tls.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	return certificatePEM(cert.Certificate[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), err
}

// writePair writes a pair in place.
func writePair(certFile, keyFile string, cert tls.Certificate) error {
	certPEM, keyPEM, err := pemOf(cert)
	return errors.Join(err, os.WriteFile(keyFile, keyPEM, 0o600), os.WriteFile(certFile, certPEM, 0o600))
}

func spiffe(id string) []*url.URL {
	u, err := url.Parse(id)
	if err != nil {
		panic(err) // a literal of a test
	}
	return []*url.URL{u}
}

// agentTemplate is a good certificate of a cluster.
func agentTemplate(cluster string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cluster},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: spiffe("spiffe://culvert.local/cluster/" + cluster),
	}
}

// serverTemplate is a good serving certificate.
func serverTemplate(names ...string) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return c
}

// forward terminates TLS and passes bytes on until ln is closed and all
// connections have ended; then it closes ended.
func forward(ln net.Listener, cert tls.Certificate, to string, ended chan<- struct{}) {
	defer close(ended)
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() { forwardOne(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}), to) })
	}
}

// forwardOne ends when either side does; the tests see it where it matters.
func forwardOne(near net.Conn, to string) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() { pipe(far, near); close(done) }()
	pipe(near, far)
	<-done
}

// pipe copies until an end and closes both.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error is an end
	to.Close()
	from.Close()
}
