package main

import (
	"reflect"

	"github.com/spf13/pflag"

	"github.com/culvertdev/culvert/server"
)

// blocks are the parts of the configuration that are absent unless something in
// them is set, by the file or by a flag.
type blocks struct {
	tls          server.TLS
	acme         server.ACME
	certificates server.Certificates
	enrolment    server.Enrolment
	admins       server.Admins
	passThrough  server.PassThrough
	policy       server.Policy
	audit        server.Audit
	auditFile    server.AuditFile
	telemetry    server.Telemetry
	hosts        server.Hosts
	balancers    server.ProxyProtocol
}

// newBlocks starts with what the file has.
func newBlocks(cfg *server.Config) *blocks {
	b := &blocks{}
	take(&b.tls, cfg.TLS)
	take(&b.acme, cfg.ACME)
	take(&b.certificates, cfg.Certificates)
	take(&b.enrolment, cfg.Enrolment)
	take(&b.admins, cfg.Admins)
	take(&b.passThrough, cfg.PassThrough)
	take(&b.policy, cfg.Policy)
	take(&b.audit, cfg.Audit)
	take(&b.auditFile, b.audit.File)
	take(&b.telemetry, cfg.Telemetry)
	take(&b.hosts, cfg.Hosts)
	take(&b.balancers, cfg.ProxyProtocol)
	return b
}

func take[T any](into, from *T) {
	if from != nil {
		*into = *from
	}
}

func (b *blocks) bind(f *pflag.FlagSet) {
	f.StringVar(&b.hosts.Domain, "hosts-domain", b.hosts.Domain, "domain below which every cluster has a host name, "+server.DefaultHostTemplate+" (default none)")
	f.StringVar(&b.hosts.Mode, "hosts-mode", b.hosts.Mode, "where TLS for these names ends: terminate at the hub, or passthrough at the cluster's API server (default \""+server.ModeTerminate+"\")")
	f.StringArrayVar(&b.balancers.From, "proxy-protocol-from", b.balancers.From, "network or address of a load balancer that says by the PROXY protocol where connections come from (repeat; default none)")
	f.StringVar(&b.tls.MinVersion, "tls-min-version", b.tls.MinVersion, "least TLS version for clients, 1.2 or 1.3 (default \""+server.DefaultMinVersion+"\"; agents always have 1.3)")
	f.StringArrayVar(&b.tls.CipherSuites, "tls-cipher-suite", b.tls.CipherSuites, "cipher suite of TLS 1.2 by its IANA name (repeat; default: all with ECDHE and AEAD)")
	f.StringVar(&b.tls.PassphraseFile, "tls-key-passphrase-file", b.tls.PassphraseFile, "file whose first line is the passphrase of an encrypted --tls-key")
	f.StringVar(&b.tls.CA, "tls-ca", b.tls.CA, "PEM file of the CAs that clients need for --tls-cert or acme (default: those of their systems)")
	f.StringVar(&b.tls.Service, "tls-service", b.tls.Service, "namespace/name of the Service that leads to the hub, whose names the own certificate gets")
	f.StringVar(&b.tls.ClientCA, "client-ca", b.tls.ClientCA, "PEM file of the CAs of callers' client certificates (default: none is asked for)")
	f.StringArrayVar(&b.acme.Hosts, "acme-host", b.acme.Hosts, "name to get a certificate for from a public CA (repeat; default none)")
	f.BoolVar(&b.acme.AcceptTerms, "acme-accept-terms", b.acme.AcceptTerms, "accept the terms of service of that CA (required with --acme-host)")
	f.StringVar(&b.acme.Email, "acme-email", b.acme.Email, "address that the CA is told")
	f.StringVar(&b.acme.Directory, "acme-directory", b.acme.Directory, "URL of the CA's directory (default: Let's Encrypt)")
	f.StringVar(&b.acme.CA, "acme-ca", b.acme.CA, "PEM file of the CAs that verify the directory itself (default: the system's)")
	f.DurationVar(&b.certificates.AgentLifetime.Duration, "agent-lifetime", b.certificates.AgentLifetime.Duration,
		"how long certificates of agents are valid (default "+server.DefaultAgentLifetime.String()+")")
	f.StringVar(&b.enrolment.Approval, "enrolment-approval", b.enrolment.Approval, "auto, or manual to accept each cluster by hand (default \"auto\")")
	f.StringArrayVar(&b.admins.Users, "admin-user", b.admins.Users, "user who may administer the hub over HTTPS (repeat; default none)")
	f.StringArrayVar(&b.passThrough.Clusters, "pass-through", b.passThrough.Clusters, "cluster that judges tokens which the hub does not know, or * (repeat; default none)")
	f.StringVar(&b.policy.File, "policy", b.policy.File, "policy file: who may do what (default: the Kubernetes API of every cluster, and nothing else)")
	f.StringVar(&b.auditFile.Path, "audit-file", b.auditFile.Path, "file of audit lines, which is rotated (default none)")
	f.StringVar(&b.telemetry.OTLPEndpoint, "otlp-endpoint", b.telemetry.OTLPEndpoint, "URL of a collector of traces, OTLP over HTTP (default: what OTEL_* of the environment say)")
	f.StringArrayVar(&b.admins.Groups, "admin-group", b.admins.Groups, "group that may administer the hub over HTTPS (repeat; default none)")
}

// apply gives cfg the blocks in which something is set.
func (b *blocks) apply(cfg *server.Config) {
	give(&cfg.TLS, &b.tls)
	give(&cfg.ACME, &b.acme)
	give(&cfg.Certificates, &b.certificates)
	give(&cfg.Enrolment, &b.enrolment)
	give(&cfg.Admins, &b.admins)
	give(&cfg.PassThrough, &b.passThrough)
	give(&cfg.Policy, &b.policy)
	give(&b.audit.File, &b.auditFile)
	give(&cfg.Audit, &b.audit)
	give(&cfg.Telemetry, &b.telemetry)
	give(&cfg.Hosts, &b.hosts)
	give(&cfg.ProxyProtocol, &b.balancers)
}

func give[T any](into **T, block *T) {
	if *into != nil || !empty(reflect.ValueOf(block).Elem()) {
		*into = block
	}
}

// empty takes a list without elements, which is what pflag leaves, for none.
func empty(v reflect.Value) bool {
	for _, field := range v.Fields() {
		if field.Kind() == reflect.Slice && field.Len() > 0 || field.Kind() != reflect.Slice && !field.IsZero() {
			return false
		}
	}
	return true
}
