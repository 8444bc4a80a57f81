package kubeconfig

import (
	"crypto/x509"
	"fmt"
)

// Snippets are parts of a cluster's configuration that give its API server's
// certificate another name.
type Snippets struct {
	// Name is the name that they add.
	Name string `json:"name"`
	// Kubeadm goes into kubeadm's ClusterConfiguration, and RKE2 into config.yaml of
	// the servers of RKE2 and of K3s.
	Kubeadm string `json:"kubeadm"`
	RKE2    string `json:"rke2"`
}

// SAN returns the snippets for a name. The name is a host's, and so needs no quotes
// to be plain YAML; it has them for those who put a template into its place.
//
// https://kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4/ and
// https://docs.rke2.io/reference/server_config have the fields.
func SAN(name string) Snippets {
	return Snippets{
		Name:    name,
		Kubeadm: fmt.Sprintf("apiServer:\n  certSANs:\n  - %q\n", name),
		RKE2:    fmt.Sprintf("tls-san:\n- %q\n", name),
	}
}

// Missing returns the condition of an API server whose certificate lacks the name
// of the snippets; false where it has it.
func (s Snippets) Missing(cert *x509.Certificate) (Condition, bool) {
	if cert.VerifyHostname(s.Name) == nil {
		return Condition{}, false
	}
	return Condition{Type: ConditionSANMissing, Message: fmt.Sprintf(
		"the API server's certificate has no name %q, which passthrough needs. With kubeadm add to its ClusterConfiguration\n%s"+
			"and renew the certificate (kubeadm init phase certs apiserver). With RKE2 or K3s add to config.yaml of the servers\n%s"+
			"and restart them. The modes path, sni and end-to-end need no change of the cluster",
		s.Name, s.Kubeadm, s.RKE2)}, true
}

// InternalNames are the names that the certificate of every API server has which
// kubeadm, and what follows it, has made. The hub shows a certificate for them too
// ([ModeEndToEnd]).
var InternalNames = []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}

// InternalName returns the first of [InternalNames] that a certificate has; empty
// for none.
func InternalName(cert *x509.Certificate) string {
	for _, name := range InternalNames {
		if cert.VerifyHostname(name) == nil {
			return name
		}
	}
	return ""
}
