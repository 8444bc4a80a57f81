package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// pool is a set of roots that stays the same.
type pool struct{ certs *x509.CertPool }

func (p pool) Pool() *x509.CertPool { return p.certs }

// SystemRoots returns the authorities that the operating system trusts, as they
// are at the time of the call.
func SystemRoots() (Roots, error) {
	certs, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's CAs: %w", err)
	}
	return pool{certs}, nil
}

// FixedRoots returns the authorities of a PEM text, such as a hub sends.
func FixedRoots(pemText []byte) (Roots, error) {
	certs, err := parseCertificates(pemText)
	if err != nil {
		return nil, fmt.Errorf("CA bundle: %w", err)
	}
	return pool{poolOf(certs)}, nil
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, cert := range certs {
		p.AddCert(cert)
	}
	return p
}

// VerifyPinned returns a function for tls.Config.VerifyConnection of a client that
// knows nothing of the hub but the [Pin] of one of its authorities: the server has
// to show an authority of one of the pins, and a certificate that this authority
// stands for, valid now, for TLS servers, and for name. The server shows it when
// its tls.Config uses [KeyPair.GetCertificateWithCA]. The function is safe for
// concurrent use.
func VerifyPinned(pins []string, name string) func(tls.ConnectionState) error {
	pins = slices.Clone(pins)
	return func(state tls.ConnectionState) error {
		if err := verifyPinned(pins, name, state); err != nil {
			return fmt.Errorf("server certificate: %w", err)
		}
		return nil
	}
}

func verifyPinned(pins []string, name string, state tls.ConnectionState) error {
	switch {
	case len(pins) == 0:
		return errors.New("no pin to check it against")
	case name == "":
		return errors.New("no server name to check it against")
	case len(state.PeerCertificates) == 0:
		return errors.New("none was sent")
	}
	var pinned []*x509.Certificate
	for _, cert := range state.PeerCertificates[1:] {
		if cert.IsCA && slices.Contains(pins, Pin(cert)) {
			pinned = append(pinned, cert)
		}
	}
	if len(pinned) == 0 {
		return fmt.Errorf("none of the %d certificates that the server sent is of the authority that the join token names: "+
			"the token is of another hub, or something between reads the connection", len(state.PeerCertificates))
	}
	_, err := verifyChain(state, pool{poolOf(pinned)}, x509.ExtKeyUsageServerAuth, name)
	return err
}
