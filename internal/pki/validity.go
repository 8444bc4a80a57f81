package pki

import (
	"crypto/x509"
	"fmt"
	"time"
)

// ExpiredError says that a certificate is valid no more. Who loads a key pair
// finds with errors.As which one, and can say what to do about it.
type ExpiredError struct {
	// Certificate is the one that expired. It must not be changed.
	Certificate *x509.Certificate
}

// Error says when it expired. It does not name the present time, so that the same
// problem has the same words a second later.
func (e *ExpiredError) Error() string {
	return fmt.Sprintf("expired at %s (valid from %s), replace it with a new one",
		timestamp(e.Certificate.NotAfter), timestamp(e.Certificate.NotBefore))
}

// checkValidity is [*ExpiredError] after the end.
func checkValidity(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("not valid before %s: check the clocks", timestamp(cert.NotBefore))
	case now.After(cert.NotAfter):
		return &ExpiredError{cert}
	}
	return nil
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
