package server

import (
	"bytes"
	"crypto/x509"
	"fmt"

	"github.com/culvertdev/culvert/internal/pki"
)

// AgentAuthority is a CA beside the hub's own that agents' certificates come from.
// The hub issues and renews none of those; what such a certificate says counts by the
// one rule that is set here, and a certificate of the hub's own CA never by it.
type AgentAuthority struct {
	// CA is a PEM file of the authority, and of older ones that are still trusted.
	// It is read again when it changes.
	CA string `json:"ca,omitempty"`
	// OCM is the rule for agents of an addon of Open Cluster Management.
	OCM OCMAddon `json:"ocm,omitzero"`
}

// OCMAddon takes the cluster's name from the default subject of OCM's registration of
// addons, and from nothing else: the common name
// system:open-cluster-management:cluster:<cluster>:addon:<addon>:agent:<agent>.
type OCMAddon struct {
	// Addon is the name of the ClusterManagementAddOn. Agents of others are refused.
	Addon string `json:"addon,omitempty"`
}

// authorityProblems is the part of Validate for them.
func (c *Config) authorityProblems() []error {
	var problems []error
	for i, a := range c.AgentAuthorities {
		if a.CA == "" {
			problems = append(problems, fmt.Errorf("agentAuthorities[%d].ca: required: a PEM file of the CA that signs the agents' certificates", i))
		}
		if a.OCM.Addon == "" {
			problems = append(problems, fmt.Errorf("agentAuthorities[%d].ocm.addon: required: the name of the ClusterManagementAddOn", i))
		} else if err := (pki.OCMAddon{Name: a.OCM.Addon}).Check(); err != nil {
			problems = append(problems, fmt.Errorf("agentAuthorities[%d].ocm.%w", i, err))
		}
	}
	return problems
}

// loadAgents makes what tells whose agent a certificate is. issued judges those of
// the hub's own CA, foreign those of others.
func (t *trust) loadAgents(cfg Config, issued, foreign pki.AgentCheck) error {
	own := t.authorities[pki.RoleAgents]
	sources := []pki.AgentAuthority{{
		Name: "the hub's own agents CA", Roots: own, Checks: []pki.AgentCheck{issued},
		ClusterOf: func(cert *x509.Certificate) (string, error) { return pki.ClusterOf(cert, cfg.TrustDomain) },
	}}
	known := []source{{sources[0].Name, own.Certificates()}}
	for i, a := range cfg.AgentAuthorities {
		name := fmt.Sprintf("agentAuthorities[%d]", i)
		bundle, err := pki.LoadBundle(a.CA, pki.WithLogger(cfg.Logger), pki.WithName(name))
		if err != nil {
			return fmt.Errorf("%s.ca: %w", name, err)
		}
		// A CA with two rules would let its certificates be whose they like; one that
		// comes into the file later makes both refuse.
		next := source{name, bundle.Certificates()}
		for _, before := range known {
			if shared := before.shares(next); shared != nil {
				return fmt.Errorf("%s.ca: %s has the key of %q, which %s has too: give each CA one rule", name, a.CA, shared.Subject, before.name)
			}
		}
		known = append(known, next)
		sources = append(sources, pki.AgentAuthority{
			Name: name, Roots: bundle, ClusterOf: pki.OCMAddon{Name: a.OCM.Addon}.ClusterOf, Checks: []pki.AgentCheck{foreign},
		})
		t.watched = append(t.watched, bundle)
	}
	t.cluster = pki.VerifyAgents(sources...)
	return nil
}

// source is a CA and what it is called.
type source struct {
	name  string
	certs []*x509.Certificate
}

// shares returns a certificate whose key both have, or nil.
func (s source) shares(other source) *x509.Certificate {
	for _, a := range s.certs {
		for _, b := range other.certs {
			if bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo) {
				return b
			}
		}
	}
	return nil
}
