package pki

import (
	"crypto"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/youmark/pkcs8"
)

// Bounds of what a file may ask for before the passphrase is known to be right.
const (
	maxIterations = 10_000_000 // PBKDF2: some seconds
	maxScrypt     = 512 << 20  // bytes of memory
)

// decryptKey reads an EncryptedPrivateKeyInfo (RFC 5958 section 3) of PBES2 (RFC
// 8018 section 6.2), which is what openssl pkcs8 -topk8 and openssl genpkey write.
func decryptKey(der, passphrase []byte) (signer crypto.Signer, err error) {
	if err := checkDerivation(der); err != nil {
		return nil, fmt.Errorf("encrypted private key: %w", err)
	}
	// crypto/cipher panics at lengths that are no whole blocks, and the library
	// does not look before.
	defer func() {
		if problem := recover(); problem != nil {
			signer, err = nil, errors.New("encrypted private key: malformed")
		}
	}()
	key, err := pkcs8.ParsePKCS8PrivateKey(der, passphrase)
	if err != nil {
		return nil, fmt.Errorf("encrypted private key: %w: check the passphrase", err)
	}
	return checkKey(key)
}

// checkDerivation bounds the work and memory that deriving the key takes.
func checkDerivation(der []byte) error {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 {
		return errors.New("malformed, want PKCS #8 as openssl pkcs8 -topk8 writes it")
	}
	var scheme struct{ Derivation, Encryption pkix.AlgorithmIdentifier }
	if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return errors.New("not encrypted with PBES2: convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc")
	}
	parameters := scheme.Derivation.Parameters.FullBytes
	var scrypt struct {
		Salt    []byte
		N, R, P int
		Length  int `asn1:"optional"`
	}
	if rest, err := asn1.Unmarshal(parameters, &scrypt); err == nil && len(rest) == 0 {
		if scrypt.N < 1 || scrypt.R < 1 || scrypt.P < 1 || scrypt.P > 16 || scrypt.R > 64 || scrypt.N > maxScrypt/128/scrypt.R {
			return fmt.Errorf("scrypt with N %d, r %d, p %d is more than is allowed", scrypt.N, scrypt.R, scrypt.P)
		}
		return nil
	}
	var pbkdf2 struct {
		Salt       []byte
		Iterations int
		Rest       asn1.RawValue `asn1:"optional"`
		Function   asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(parameters, &pbkdf2); err != nil {
		return errors.New("the key derivation is neither PBKDF2 nor scrypt: convert it with openssl pkcs8 -topk8")
	}
	if pbkdf2.Iterations < 1 || pbkdf2.Iterations > maxIterations {
		return fmt.Errorf("%d iterations of PBKDF2, want 1 to %d", pbkdf2.Iterations, maxIterations)
	}
	return nil
}
