package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
	blockEncrypted   = "ENCRYPTED " + blockKey
)

// minRSABits is what TLS libraries of today accept at least.
const minRSABits = 2048

// NewKey makes a private key: ECDSA on P-256, which every TLS library knows.
func NewKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// DecodeKey is the reverse of [EncodeKey].
func DecodeKey(text []byte) (crypto.Signer, error) { return parseKey(text, nil) }

// EncodeKey returns a private key as PEM of PKCS #8 (RFC 5958), unencrypted.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: der})
}

// blocksOf returns the PEM blocks of data. pem.Decode passes over a damaged
// block, so that a file of which half is missing would look like a shorter one;
// here that is an error.
//
// The whole may be base64 once more, as a Secret of Kubernetes or a field of a
// manifest has it.
func blocksOf(data []byte) ([]*pem.Block, error) {
	data = unwrap(data)
	begun := 0
	for line := range bytes.Lines(data) {
		if bytes.HasPrefix(line, []byte("-----BEGIN ")) {
			begun++
		}
	}
	var blocks []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("empty, want PEM")
	case begun == 0 && data[0] == 0x30: // SEQUENCE
		return nil, errors.New("holds no PEM block but looks like DER or PKCS #12: convert it with openssl x509 -inform DER, " +
			"openssl pkey -inform DER or openssl pkcs12 -nodes")
	case begun == 0:
		return nil, errors.New("holds no PEM block")
	case len(blocks) != begun:
		return nil, fmt.Errorf("half-written or damaged: %d of %d PEM blocks are whole", len(blocks), begun)
	}
	return blocks, nil
}

// unwrap returns what data is the base64 of, or data when that is not PEM.
func unwrap(data []byte) []byte {
	const begin = "-----BEGIN "
	if bytes.Contains(data, []byte(begin)) {
		return data
	}
	compact := bytes.Join(bytes.Fields(data), nil)
	compact = bytes.TrimRight(compact, "=")
	decoded := make([]byte, base64.RawStdEncoding.DecodedLen(len(compact)))
	n, err := base64.RawStdEncoding.Decode(decoded, compact)
	if err != nil || !bytes.Contains(decoded[:n], []byte(begin)) {
		return data
	}
	return decoded[:n]
}

// parseCertificates returns every certificate of data, at least one. Blocks of
// other types are passed over, so that a file may hold a key as well.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	blocks, err := blocksOf(data)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, block := range blocks {
		if block.Type != blockCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("holds no certificate, the first PEM block is %s", quote(blocks[0].Type))
	}
	return certs, nil
}

// parseKey returns the one private key of data: PKCS #8, PKCS #1 or SEC 1. Its
// errors never hold anything of the key or of the passphrase, which is nil when
// there is none.
func parseKey(data, passphrase []byte) (crypto.Signer, error) {
	blocks, err := blocksOf(data)
	if err != nil {
		return nil, err
	}
	var found *pem.Block
	for _, block := range blocks {
		if !strings.HasSuffix(block.Type, blockKey) {
			continue
		}
		if found != nil {
			return nil, errors.New("holds more than one private key")
		}
		found = block
	}
	switch {
	case found == nil:
		return nil, fmt.Errorf("holds no private key, the first PEM block is %s", quote(blocks[0].Type))
	case found.Headers["DEK-Info"] != "":
		return nil, errors.New("the private key is encrypted in the old way of OpenSSL, which protects it badly: " +
			"convert it with openssl pkcs8 -topk8")
	case found.Type == blockEncrypted && passphrase == nil:
		return nil, errors.New("the private key is encrypted: name a file or an environment variable with its passphrase, " +
			"or decrypt it with openssl pkey")
	case found.Type == blockEncrypted:
		return decryptKey(found.Bytes, passphrase)
	}
	return parseKeyBlock(found)
}

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "EC " + blockKey:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA " + blockKey:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return checkKey(key)
}

func checkKey(key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key of type %T cannot sign, want ECDSA, Ed25519 or RSA", key)
	}
	if err := checkPublicKey(signer.Public()); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return signer, nil
}

// checkPublicKey refuses keys that TLS 1.3 has no signature scheme for (RFC 8446
// section 4.2.3), and short ones.
func checkPublicKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		case nil:
			return errors.New("ECDSA without a curve, want P-256, P-384 or P-521")
		default:
			return fmt.Errorf("ECDSA on %s, want P-256, P-384 or P-521", pub.Params().Name)
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if pub.N == nil {
			return errors.New("RSA without a modulus")
		}
		if bits := pub.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("RSA of %d bits, want at least %d", bits, minRSABits)
		}
		return nil
	default:
		return fmt.Errorf("key of type %T, want ECDSA, Ed25519 or RSA", pub)
	}
}

// samePublicKey reports whether cert is for key.
func samePublicKey(cert *x509.Certificate, key crypto.Signer) bool {
	pub, ok := cert.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && pub.Equal(key.Public())
}
