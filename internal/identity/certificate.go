package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	requestx509 "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Roots gives the CAs that are trusted at this moment: a bundle of package pki.
type Roots interface {
	// Pool returns the CAs; the caller does not change them.
	Pool() *x509.CertPool
}

// VerifyClient returns an error when a connection shows a client certificate
// that is not of roots, valid now and for TLS clients. A connection without one
// is good: its requests need another credential. It is for
// tls.Config.VerifyConnection together with ClientAuth tls.RequestClientCert, so
// that the CAs of that moment count.
func VerifyClient(roots Roots) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		_, err := verifyClient(roots, &state)
		return err
	}
}

// ByCertificate returns the caller whom the certificate of a connection names, which
// [VerifyClient] has checked, and false where it has none or Config.ClientCA is not
// set. The error is a *fault.Error.
func (c *Chain) ByCertificate(state tls.ConnectionState) (Caller, bool, error) {
	cert, err := verifyClient(c.roots, &state)
	if err != nil {
		return Caller{}, false, unauthenticated(err)
	}
	if cert == nil {
		return Caller{}, false, nil
	}
	who, err := certificateUser(cert)
	return Caller{User: who, Method: MethodCertificate}, err == nil, err
}

// verifyClient returns the certificate of a connection that can be trusted; nil
// where there is none.
func verifyClient(roots Roots, state *tls.ConnectionState) (*x509.Certificate, error) {
	if roots == nil || state == nil || len(state.PeerCertificates) == 0 {
		return nil, nil
	}
	leaf := state.PeerCertificates[0]
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	pool := roots.Pool()
	if pool == nil {
		return nil, errors.New("client certificate: no trusted CA to check it against")
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: time.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err == nil && leaf.IsCA {
		err = errors.New("it is the certificate of an authority, not of a caller")
	}
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	return leaf, nil
}

// certificateUser returns whom a verified certificate names, as kube-apiserver
// reads it: the common name is the user, the organizations are the groups
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates).
func certificateUser(cert *x509.Certificate) (user.Info, error) {
	response, ok, err := requestx509.CommonNameUserConversion.User([]*x509.Certificate{cert})
	switch {
	case err != nil:
		return nil, unauthenticated(fmt.Errorf("client certificate: %w", err))
	case !ok || response == nil:
		return nil, unauthenticated(errors.New("client certificate: no common name, which is the user"))
	}
	if reason := refusedUser(response.User); reason != "" {
		return nil, unauthenticated(errors.New("client certificate: " + reason))
	}
	return response.User, nil
}
