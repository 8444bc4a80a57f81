package server

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/pki"
)

// Defaults of the parts of [Config] that say what is trusted.
const (
	// DefaultAgentLifetime is that of certificates that the hub issues to agents.
	DefaultAgentLifetime = 30 * 24 * time.Hour
	// DefaultServingLifetime is that of the serving certificate it issues itself.
	DefaultServingLifetime = 365 * 24 * time.Hour
	// DefaultCALifetime is that of the CAs it makes.
	DefaultCALifetime = 10 * 365 * 24 * time.Hour
	// DefaultTokenTTL is how long a join token may be used.
	DefaultTokenTTL = time.Hour
	// DefaultMinVersion is the least TLS version of clients.
	DefaultMinVersion = "1.3"

	// MinAgentLifetime is the least there is: shorter ones would be renewed all
	// the time.
	MinAgentLifetime = 10 * time.Second
	// MaxTokenTTL bounds how long a secret that nobody used lies around.
	MaxTokenTTL = 30 * 24 * time.Hour
)

// ServingCertificate is a certificate with its key for some of the hub's names:
// files, a folder or text. Every text is PEM, or base64 of PEM.
type ServingCertificate struct {
	// Cert and Key are files, the certificate with its chain. Without Key, Cert has
	// both, in any order.
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// Dir is a folder with tls.crt, tls.key and, where it is there, ca.crt, as
	// cert-manager and mounted Secrets of Kubernetes have them.
	Dir string `json:"dir,omitempty"`
	// CertData and KeyData are the texts themselves, in place of files.
	CertData string `json:"certData,omitempty"`
	KeyData  string `json:"keyData,omitempty"`
	// CA is a PEM file of the CAs that clients need for this certificate. Default:
	// ca.crt of Dir, or those of the clients' systems.
	CA string `json:"ca,omitempty"`
	// PassphraseFile and PassphraseEnv say where the passphrase of an encrypted
	// key (PKCS #8) is: in the first line of a file, or an environment variable.
	PassphraseFile string `json:"passphraseFile,omitempty"`
	PassphraseEnv  string `json:"passphraseEnv,omitempty"`
}

func (c *ServingCertificate) problems(path string) []error {
	problems := passphraseProblems(path, c.PassphraseFile, c.PassphraseEnv)
	ways := 0
	for _, given := range []bool{c.Cert != "" || c.Key != "", c.Dir != "", c.CertData != "" || c.KeyData != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		problems = append(problems, fmt.Errorf("%s: give one of cert, dir and certData", path))
	case c.Key != "" && c.Cert == "":
		problems = append(problems, fmt.Errorf("%s.cert: required with key", path))
	case c.KeyData != "" && c.CertData == "":
		problems = append(problems, fmt.Errorf("%s.certData: required with keyData", path))
	}
	return problems
}

// TLS says how the hub serves clients. The tunnel has TLS 1.3 and nothing else.
type TLS struct {
	// MinVersion is the least version for clients: "1.2" or "1.3". Default "1.3".
	MinVersion string `json:"minVersion,omitempty"`
	// CipherSuites are those of TLS 1.2 by their IANA names; of 1.3 they are not a
	// setting. Only ECDHE with AEAD is allowed. Default: all of those.
	CipherSuites []string `json:"cipherSuites,omitempty"`
	// PassphraseFile and PassphraseEnv are for an encrypted Config.TLSKey, as in
	// [ServingCertificate].
	PassphraseFile string `json:"passphraseFile,omitempty"`
	PassphraseEnv  string `json:"passphraseEnv,omitempty"`
	// Certificates are further ones; a client gets the one that is for the name
	// that it asks for (SNI), and else Config.TLSCert or the first of these.
	Certificates []ServingCertificate `json:"certificates,omitempty"`
	// CA is a PEM file of the CAs that clients need for the certificate of
	// Config.TLSCert or ACME; agents and callers get it. Default: those of the
	// clients' systems.
	CA string `json:"ca,omitempty"`
	// Service is namespace/name of the Kubernetes Service that leads to the hub: its
	// four names are added to the certificate that the hub issues itself.
	Service string `json:"service,omitempty"`
	// ClientCA is a PEM file of the CAs of callers' client certificates. Default:
	// none is asked for.
	ClientCA string `json:"clientCA,omitempty"`
}

// ACME gets the serving certificate from a public CA (RFC 8555), with the
// challenge tls-alpn-01 (RFC 8737) on the hub's own port, which the CA must reach
// as port 443.
type ACME struct {
	// Hosts are the names to get certificates for; no other is asked for.
	Hosts []string `json:"hosts,omitempty"`
	// AcceptTerms says that you accept the CA's terms of service. Required.
	AcceptTerms bool `json:"acceptTerms,omitempty"`
	// Email is told to the CA. Default none.
	Email string `json:"email,omitempty"`
	// Directory is the CA's URL. Default Let's Encrypt's.
	Directory string `json:"directory,omitempty"`
	// CA is a PEM file that verifies the directory itself. Default the system's.
	CA string `json:"ca,omitempty"`
}

// CAFiles are an operator's certificate authority.
type CAFiles struct {
	// Cert is a PEM file of the authority, and of older ones that are trusted.
	Cert string `json:"cert,omitempty"`
	// Key is its key. Without it the hub trusts the authority and signs nothing.
	Key string `json:"key,omitempty"`
	// PassphraseFile has the passphrase of an encrypted key.
	PassphraseFile string `json:"passphraseFile,omitempty"`
}

// Certificates says who signs what, and for how long.
type Certificates struct {
	// AgentLifetime is that of agents' certificates, at least 10 s. Default 30 days.
	AgentLifetime metav1.Duration `json:"agentLifetime,omitzero"`
	// ServingLifetime is that of the certificate the hub issues itself. Default a
	// year.
	ServingLifetime metav1.Duration `json:"servingLifetime,omitzero"`
	// CALifetime is that of the CAs that the hub makes. Default ten years.
	CALifetime metav1.Duration `json:"caLifetime,omitzero"`
	// OpenKeys is what is done about a private key that others on the machine can
	// read: "warn", "refuse", or by default one of them by kind: keys of CAs are
	// refused, others warned about.
	OpenKeys string `json:"openKeys,omitempty"`
	// Agents, Serving, Users and Peers are operators' CAs in place of those in the
	// state folder.
	Agents  *CAFiles `json:"agents,omitempty"`
	Serving *CAFiles `json:"serving,omitempty"`
	Users   *CAFiles `json:"users,omitempty"`
	Peers   *CAFiles `json:"peers,omitempty"`
}

// ServiceAccount lets one Kubernetes service account be the agent of a cluster.
type ServiceAccount struct {
	// Audience is what its token must be for.
	Audience string `json:"audience,omitempty"`
	// Namespace and Name are the account's.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Cluster is which one it joins as.
	Cluster string `json:"cluster,omitempty"`
}

// Enrolment says how agents join.
type Enrolment struct {
	// Approval is "auto", where a token is enough, or "manual", where somebody
	// accepts each cluster. Default "auto". A token may ask for more.
	Approval string `json:"approval,omitempty"`
	// TokenTTL is how long a join token may be used. Default 1 h, at most 30 days.
	TokenTTL metav1.Duration `json:"tokenTTL,omitzero"`
	// ServiceAccounts may join without a join token. Their tokens are judged by
	// the cluster of Config.TokenReview.
	ServiceAccounts []ServiceAccount `json:"serviceAccounts,omitempty"`
}

// Admins are callers who may administer the hub over HTTPS. On the hub's machine
// its own user and root may, by the socket in the state folder.
type Admins struct {
	// Users and Groups are names at the hub, before any mapping.
	Users  []string `json:"users,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// trustProblems is the part of Validate for these fields.
func (c *Config) trustProblems() []error {
	problems := c.servingProblems()
	problems = append(problems, c.certificateProblems()...)
	problems = append(problems, c.authorityProblems()...)
	problems = append(problems, c.enrolmentProblems()...)
	if c.Advertise != "" {
		if host, port, err := net.SplitHostPort(c.Advertise); err != nil || host == "" || port == "" || port == "0" {
			problems = append(problems, fmt.Errorf("advertise: %q: want host:port, as agents reach the hub", c.Advertise))
		}
	}
	if c.MetricsListen != "" {
		if _, _, err := net.SplitHostPort(c.MetricsListen); err != nil {
			problems = append(problems, fmt.Errorf("metricsListen: want host:port or :port: %w", err))
		}
	}
	if a := c.Admins; a != nil {
		for field, names := range map[string][]string{"users": a.Users, "groups": a.Groups} {
			if slices.Contains(names, "") {
				problems = append(problems, fmt.Errorf("admins.%s: has an empty name, remove it", field))
			}
		}
	}
	return problems
}

func (c *Config) servingProblems() []error {
	var problems []error
	if c.TLSKey != "" && c.TLSCert == "" {
		problems = append(problems, errors.New("tlsCert: required with tlsKey"))
	}
	if t := c.TLS; t != nil {
		if _, err := clientVersions(t); err != nil {
			problems = append(problems, err)
		}
		if t.Service != "" {
			namespace, name, _ := strings.Cut(t.Service, "/")
			if len(validation.IsDNS1123Label(namespace))+len(validation.IsDNS1123Label(name)) > 0 {
				problems = append(problems, fmt.Errorf("tls.service: %q: want namespace/name", t.Service))
			}
		}
		for i, cert := range t.Certificates {
			path := fmt.Sprintf("tls.certificates[%d]", i)
			problems = append(problems, cert.problems(path)...)
		}
		problems = append(problems, passphraseProblems("tls", t.PassphraseFile, t.PassphraseEnv)...)
		if t.CA != "" && c.TLSCert == "" && c.ACME == nil {
			problems = append(problems, errors.New("tls.ca: is for the certificate of tlsCert or acme: set one of those, or leave it out"))
		}
	}
	if a := c.ACME; a != nil {
		problems = append(problems, a.problems(c.TLSCert != "")...)
	}
	return problems
}

func passphraseProblems(path, file, env string) []error {
	if file != "" && env != "" {
		return []error{fmt.Errorf("%s.passphraseFile, %s.passphraseEnv: give one of them", path, path)}
	}
	return nil
}

func (a *ACME) problems(supplied bool) []error {
	var problems []error
	if supplied {
		problems = append(problems, errors.New("acme, tlsCert: give one of them; others by name go to tls.certificates"))
	}
	if len(a.Hosts) == 0 {
		problems = append(problems, errors.New("acme.hosts: required: the names to get certificates for"))
	}
	for i, host := range a.Hosts {
		if net.ParseIP(host) != nil || strings.HasPrefix(host, "*.") || !strings.Contains(host, ".") || strings.ContainsAny(host, ":/ ") {
			problems = append(problems, fmt.Errorf("acme.hosts[%d]: %q: want a DNS name in full; tls-alpn-01 has no wildcards", i, host))
		}
	}
	if !a.AcceptTerms {
		problems = append(problems, errors.New("acme.acceptTerms: required: read the CA's terms of service, and set it to true if you accept them"))
	}
	if a.Directory != "" && !strings.HasPrefix(a.Directory, "https://") {
		problems = append(problems, fmt.Errorf("acme.directory: %q: want an https:// URL", a.Directory))
	}
	return problems
}

func (c *Config) certificateProblems() []error {
	cfg := c.Certificates
	if cfg == nil {
		return nil
	}
	var problems []error
	for _, d := range []struct {
		field string
		value time.Duration
		least time.Duration
	}{
		{"agentLifetime", cfg.AgentLifetime.Duration, MinAgentLifetime},
		{"servingLifetime", cfg.ServingLifetime.Duration, MinAgentLifetime},
		{"caLifetime", cfg.CALifetime.Duration, time.Hour},
	} {
		if d.value != 0 && d.value < d.least {
			problems = append(problems, fmt.Errorf("certificates.%s: %v is less than %v", d.field, d.value, d.least))
		}
	}
	if !slices.Contains([]string{"", "warn", "refuse"}, cfg.OpenKeys) {
		problems = append(problems, fmt.Errorf("certificates.openKeys: %q is not warn or refuse", cfg.OpenKeys))
	}
	for _, role := range pki.Roles() {
		if files := cfg.files(role); files != nil && files.Cert == "" {
			problems = append(problems, fmt.Errorf("certificates.%s.cert: required", role))
		}
	}
	if c.AgentCA != "" && cfg.Agents != nil {
		problems = append(problems, errors.New("agentCA, certificates.agents: give one of them"))
	}
	return problems
}

// files returns the operator's CA of a role, or nil.
func (c *Certificates) files(role string) *CAFiles {
	if c == nil {
		return nil
	}
	switch role {
	case pki.RoleAgents:
		return c.Agents
	case pki.RoleServing:
		return c.Serving
	case pki.RoleUsers:
		return c.Users
	case pki.RolePeers:
		return c.Peers
	}
	return nil
}

func (c *Config) enrolmentProblems() []error {
	e := c.Enrolment
	if e == nil {
		return nil
	}
	var problems []error
	if !slices.Contains([]string{"", admin.ApprovalAuto, admin.ApprovalManual}, e.Approval) {
		problems = append(problems, fmt.Errorf("enrolment.approval: %q is not auto or manual", e.Approval))
	}
	if ttl := e.TokenTTL.Duration; ttl < 0 || ttl > MaxTokenTTL {
		problems = append(problems, fmt.Errorf("enrolment.tokenTTL: %v is out of range: use more than 0s and at most %v", ttl, MaxTokenTTL))
	}
	if len(e.ServiceAccounts) > 0 && c.TokenReview == nil {
		problems = append(problems, errors.New("enrolment.serviceAccounts: needs tokenReview: the cluster that judges their tokens"))
	}
	if err := identity.CheckServiceAccountRules("enrolment.serviceAccounts", e.rules()); err != nil {
		problems = append(problems, err)
	}
	return problems
}

func (e *Enrolment) rules() []identity.ServiceAccountRule {
	if e == nil {
		return nil
	}
	var rules []identity.ServiceAccountRule
	for _, a := range e.ServiceAccounts {
		rules = append(rules, identity.ServiceAccountRule{Audience: a.Audience, Namespace: a.Namespace, Name: a.Name, Cluster: a.Cluster})
	}
	return rules
}
