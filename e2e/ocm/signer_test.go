package ocm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// signer is the CA of the addon's signer. Its key is RSA: OCM signs with no other.
type signer struct {
	cert            *x509.Certificate
	key             *rsa.PrivateKey
	certPEM, keyPEM []byte
}

func newSigner(name string) (*signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &signer{
		cert: cert, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	}, nil
}

// sign makes a certificate as OCM's signer does, for as long as is asked.
func (s *signer) sign(subject pkix.Name, lifetime time.Duration) (*pair, error) {
	p, err := newPair(subject)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject,
		NotBefore: time.Now(), NotAfter: time.Now().Add(lifetime),
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, p.key.Public(), s.key)
	if err != nil {
		return nil, err
	}
	p.certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return p, nil
}

// pair is a certificate of an agent with its key.
type pair struct {
	key             *ecdsa.PrivateKey
	request         []byte // PEM
	certPEM, keyPEM []byte
}

// newPair makes a key and a request, as the klusterlet does.
func newPair(subject pkix.Name) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return nil, err
	}
	return &pair{
		key: key, request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		keyPEM: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, nil
}

// leaf is the certificate of a pair.
func (p *pair) leaf() (*x509.Certificate, error) {
	block, _ := pem.Decode(p.certPEM)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// klusterlet is the user of a cluster's registration agent on the management cluster,
// and what OCM lets it do.
const klusterlet = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: klusterlet}
rules:
- {apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests], verbs: [create, get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: klusterlet}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: klusterlet}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:open-cluster-management:managed-clusters"}
`

// request asks OCM for a certificate as the cluster's klusterlet, and waits until it
// is signed.
func (w *world) request(ctx context.Context, name string, subject pkix.Name) (*pair, error) {
	p, err := newPair(subject)
	if err != nil {
		return nil, err
	}
	object := map[string]any{
		"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
		"metadata": map[string]any{"name": "addon-" + clusterName + "-" + name, "labels": map[string]any{
			"open-cluster-management.io/cluster-name": clusterName, "open-cluster-management.io/addon-name": addonName,
		}},
		"spec": map[string]any{
			"request": base64.StdEncoding.EncodeToString(p.request), "signerName": signerName,
			"usages": []string{"digital signature", "key encipherment", "client auth"},
		},
	}
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	_, err = w.management.Admin().Input(ctx, string(text), "create", "-f", "-", "--as=system:open-cluster-management:"+clusterName+":agent-1",
		"--as-group=system:open-cluster-management:managed-clusters", "--as-group=system:authenticated")
	if err != nil {
		return nil, err
	}
	err = testbed.Poll(ctx, "OCM to sign", func(ctx context.Context) error {
		out, err := w.management.Kubectl(ctx, "get", "csr", "addon-"+clusterName+"-"+name, "-o", "jsonpath={.status.certificate}")
		if err == nil && out == "" {
			err = errors.New("not signed")
		}
		if err != nil {
			return err
		}
		p.certPEM, err = base64.StdEncoding.DecodeString(strings.TrimSpace(out))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", name, err)
	}
	return p, nil
}

// subjectOf is OCM's default subject.
func subjectOf(cluster, addon string) pkix.Name {
	return pkix.Name{
		CommonName: "system:open-cluster-management:cluster:" + cluster + ":addon:" + addon + ":agent:" + addon + "-agent",
		Organization: []string{
			"system:open-cluster-management:cluster:" + cluster + ":addon:" + addon,
			"system:open-cluster-management:addon:" + addon, "system:authenticated",
		},
	}
}
