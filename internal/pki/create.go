package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// organization is the O of every name made here. OpenSSL refuses an empty issuer.
const organization = "Culvert"

// create makes what is missing, the key before the certificate: so who sees a
// certificate can rely on its key being there.
func (a *Authority) create(now time.Time) error {
	if err := os.MkdirAll(filepath.Dir(a.certFile), modeDir); err != nil {
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
	if err := placeNew(a.keyFile, keyPEM, modeKey); err != nil {
		return err
	}
	// Another process may have been first: its key counts.
	key, err := readPrivateKey(a.keyFile)
	if err != nil {
		return err
	}
	if fresh.Equal(key) {
		// What a key that was there before has signed is not known.
		if err := a.beginRecord(fresh); err != nil {
			return err
		}
	}
	der, err := selfSign(key, a.role, now, a.lifetime)
	if err != nil {
		return err
	}
	return placeNew(a.certFile, encodeCertificate(der), modePublic)
}

func selfSign(key crypto.Signer, role string, now time.Time, lifetime time.Duration) ([]byte, error) {
	if lifetime < minLifetime {
		return nil, fmt.Errorf("lifetime: %s, want at least %s", lifetime, minLifetime)
	}
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
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		// An authority stands directly above its peers, except that the serving one
		// vouches for its successor.
		MaxPathLenZero: role != RoleServing,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

// crossSign lets who trusts old go on to trust what next signs.
func crossSign(next, old *x509.Certificate, oldKey crypto.Signer) ([]byte, error) {
	if old.MaxPathLenZero && old.MaxPathLen == 0 {
		return nil, errors.New("the certificate in use allows no authority below it (path length 0), so it cannot vouch for the next one, " +
			"and who trusts it alone could not connect any more: to start anew, stop the hub, move the files of this authority away, " +
			"and hand out the new certificate")
	}
	template := &x509.Certificate{
		Subject:               next.Subject,
		RawSubject:            next.RawSubject,
		SubjectKeyId:          next.SubjectKeyId,
		NotBefore:             next.NotBefore,
		NotAfter:              next.NotAfter,
		KeyUsage:              next.KeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            next.MaxPathLen,
		MaxPathLenZero:        next.MaxPathLenZero,
	}
	if template.NotBefore.Before(old.NotBefore) {
		template.NotBefore = old.NotBefore
	}
	if template.NotAfter.After(old.NotAfter) {
		template.NotAfter = old.NotAfter
	}
	return x509.CreateCertificate(rand.Reader, template, old, next.PublicKey, oldKey)
}

// crossChain returns the cross certificates that lead from active to the
// authorities before it, in the order in which a server sends them: each is
// signed by the next one's key. An end that is over is left out.
func crossChain(active *x509.Certificate, crosses []*x509.Certificate, now time.Time) []*x509.Certificate {
	var chain []*x509.Certificate
	subject := active.RawSubjectPublicKeyInfo
	for range crosses {
		found := false
		for _, cross := range crosses {
			if string(cross.RawSubjectPublicKeyInfo) != string(subject) || now.After(cross.NotAfter) {
				continue
			}
			chain = append(chain, cross)
			for _, above := range crosses {
				if cross.CheckSignatureFrom(above) == nil {
					subject, found = above.RawSubjectPublicKeyInfo, true
				}
			}
			break
		}
		if !found {
			break
		}
	}
	return chain
}
