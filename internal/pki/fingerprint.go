package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Fingerprint returns the SHA-256 of a certificate as openssl x509 -fingerprint
// -sha256 prints it: hexadecimal, upper case, with colons.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	digits := strings.ToUpper(hex.EncodeToString(sum[:]))
	parts := make([]string, 0, len(sum))
	for i := 0; i < len(digits); i += 2 {
		parts = append(parts, digits[i:i+2])
	}
	return strings.Join(parts, ":")
}

// Pin returns the SHA-256 of a certificate's public key (its
// SubjectPublicKeyInfo, RFC 7469 section 2.4) in base64url without padding. It
// stays the same when the certificate is made again for the same key.
func Pin(cert *x509.Certificate) string {
	return pinOf(cert.RawSubjectPublicKeyInfo)
}

// PinKey returns the [Pin] of certificates for a public key.
func PinKey(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return pinOf(spki), nil
}

func pinOf(spki []byte) string {
	sum := sha256.Sum256(spki)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
