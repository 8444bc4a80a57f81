package pki

import (
	"crypto/x509"
	"time"
)

// Watched is something that is made of files and made again when they change:
// [*KeyPair], [*Bundle] and [*Authority] are. Its methods are safe for concurrent
// use.
type Watched interface {
	// Status says what is in force and whether the files are as good. It looks at
	// the files when the last look is a second ago, as a handshake does.
	Status() Status
	// Reload reads the files at once, also when they look unchanged. The error
	// says why they cannot be used; what was in force before then stays so.
	Reload() error
}

// Status is the state of a [Watched].
type Status struct {
	// Name says what it is: the one of [WithName], or "key pair", "CA bundle",
	// "agents CA" and so on.
	Name string `json:"name"`
	// Files are where it comes from.
	Files []string `json:"files"`
	// Subject is that of the certificate in force: of a CA bundle, the one that is
	// valid for longest; of an authority, the one that signs.
	Subject string `json:"subject"`
	// Serial is that certificate's serial number in lower-case hexadecimal.
	Serial string `json:"serial"`
	// Fingerprint is that certificate's [Fingerprint].
	Fingerprint string `json:"fingerprint"`
	// NotAfter is when that certificate expires, in UTC.
	NotAfter time.Time `json:"notAfter"`
	// Err is why the files as they are now cannot be used; empty when they are in
	// force.
	Err string `json:"error,omitempty"`
	// Read is when what is in force was read or made, in UTC.
	Read time.Time `json:"read"`
	// Failures counts how often files were found that cannot be used, since start.
	// The same problem found again is one failure.
	Failures int64 `json:"failures"`
	// Warnings are what is not as it should be about the files in force, though
	// they are used: a key that others can read, a chain that may be incomplete.
	Warnings []string `json:"warnings,omitempty"`
}

// statusOf describes a certificate.
func statusOf(cert *x509.Certificate) Status {
	return Status{
		Subject:     cert.Subject.String(),
		Serial:      cert.SerialNumber.Text(16),
		Fingerprint: Fingerprint(cert),
		NotAfter:    cert.NotAfter.UTC(),
	}
}
