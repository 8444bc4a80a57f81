package enrol

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/pki"
)

// Enrolment is what an agent keeps of an answer of the hub. The caller owns it.
type Enrolment struct {
	// Chain is PEM, the agent's own certificate first, which is Leaf. Both are nil
	// when only the hub's CAs were asked for.
	Chain []byte
	Leaf  *x509.Certificate
	// HubCA is PEM: the CAs that the hub's certificates come from. Empty: those of
	// the operating system.
	HubCA []byte
	// TrustDomain and Cluster are those of the certificate.
	TrustDomain, Cluster string
}

// check judges what the hub sent at the end of a connection with state.
func (j *joining) check(issued *culvertv1.IssuedCertificate, state tls.ConnectionState) (*Enrolment, error) {
	got := &Enrolment{
		Chain: issued.GetCertificateChain(), HubCA: issued.GetHubCa(),
		TrustDomain: issued.GetTrustDomain(), Cluster: issued.GetCluster(),
	}
	if err := got.checkChain(j.cfg.Key); err != nil {
		return nil, err
	}
	if j.cfg.Cluster != "" && got.Cluster != j.cfg.Cluster {
		return nil, fmt.Errorf("the hub gave a certificate of cluster %s where %s is wanted: make a token for that cluster", got.Cluster, j.cfg.Cluster)
	}
	roots, err := got.roots()
	if err != nil {
		return nil, err
	}
	// An agent that cannot verify the hub with what it was given would never come
	// back.
	if err := pki.VerifyServer(roots, j.cfg.HubName)(state); err != nil {
		return nil, fmt.Errorf("the hub's own certificate cannot be verified with the CAs that it hands out: set the CA of its serving certificate at the hub: %w", err)
	}
	return got, nil
}

// checkChain holds the certificate against the key and the names that the hub
// gave, and sets Leaf.
func (e *Enrolment) checkChain(key crypto.Signer) error {
	block, _ := pem.Decode(e.Chain)
	if block == nil {
		return errors.New("the hub's answer has no certificate")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("the certificate that the hub issued: %w", err)
	}
	pub, ok := leaf.PublicKey.(interface {
		Equal(other crypto.PublicKey) bool
	})
	if !ok || !pub.Equal(key.Public()) {
		return errors.New("the certificate that the hub issued is for another key")
	}
	name, err := pki.ClusterOf(leaf, e.TrustDomain)
	if err != nil {
		return fmt.Errorf("the certificate that the hub issued: %w", err)
	}
	if name != e.Cluster {
		return fmt.Errorf("the certificate that the hub issued is of cluster %s where %s is wanted", name, e.Cluster)
	}
	e.Leaf = leaf
	return nil
}

func (e *Enrolment) roots() (pki.Roots, error) {
	if len(e.HubCA) == 0 {
		return pki.SystemRoots()
	}
	roots, err := pki.FixedRoots(e.HubCA)
	if err != nil {
		return nil, fmt.Errorf("the CAs that the hub hands out: %w", err)
	}
	return roots, nil
}

// Renew asks for a new certificate over the connection of the agent's live link,
// which is of cluster in trustDomain. Without a key it asks for the hub's CAs
// alone. A hub that refuses is an [*Error].
func Renew(ctx context.Context, cc grpc.ClientConnInterface, key crypto.Signer, trustDomain, cluster string) (*Enrolment, error) {
	req := &culvertv1.RenewRequest{}
	if key != nil {
		csr, err := pki.NewRequest(key)
		if err != nil {
			return nil, fmt.Errorf("renew: %w", err)
		}
		req.Csr = csr
	}
	resp, err := culvertv1.NewEnrolmentServiceClient(cc).Renew(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("renew: %w", explain(err))
	}
	got := &Enrolment{
		Chain: resp.GetCertificateChain(), HubCA: resp.GetHubCa(), TrustDomain: trustDomain, Cluster: cluster,
	}
	if _, err := got.roots(); err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	if key == nil {
		got.Chain = nil
		return got, nil
	}
	if err := got.checkChain(key); err != nil {
		return nil, fmt.Errorf("renew: %w", err)
	}
	return got, nil
}
