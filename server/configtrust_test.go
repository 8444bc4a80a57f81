package server

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func lasting(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

func TestValidateTrust(t *testing.T) {
	good := func(change func(*Config)) Config {
		c := Config{State: "s", TokenFile: "t"}
		change(&c)
		return c
	}
	for _, c := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"D6: versions before 1.2", good(func(c *Config) { c.TLS = &TLS{MinVersion: "1.1"} }), []string{`tls.minVersion: "1.1" is not 1.2 or 1.3`}},
		{"D6: suites of 1.3", good(func(c *Config) { c.TLS = &TLS{CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}} }), []string{"tls.cipherSuites: are of TLS 1.2"}},
		{"D6: suites without forward secrecy", good(func(c *Config) {
			c.TLS = &TLS{MinVersion: "1.2", CipherSuites: []string{"TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"}}
		}), []string{"tls.cipherSuites[0]: \"TLS_RSA_WITH", "tls.cipherSuites[1]: \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" is not one of"}},
		{"D16: certificates by name", good(func(c *Config) {
			c.TLS = &TLS{Certificates: []ServingCertificate{{}, {Cert: "a", Dir: "b"}, {Key: "k"}, {KeyData: "k"}, {Dir: "d", PassphraseEnv: "E", PassphraseFile: "f"}}}
		}), []string{
			"tls.certificates[0]: give one of", "tls.certificates[1]: give one of", "tls.certificates[2].cert: required", "tls.certificates[3].certData: required",
			"tls.certificates[4].passphraseFile, tls.certificates[4].passphraseEnv: give one",
		}},
		{"P16: a CA of nothing", good(func(c *Config) { c.TLS = &TLS{CA: "ca"} }), []string{"tls.ca: is for the certificate of tlsCert or acme"}},
		{"P5: acme", good(func(c *Config) {
			c.TLSCert = "x"
			c.ACME = &ACME{Hosts: []string{"hub.example.com", "10.0.0.1", "*.example.com", "hub"}, Directory: "http://x"}
		}), []string{"acme, tlsCert: give one", "acme.hosts[1]", "acme.hosts[2]", "acme.hosts[3]", "acme.acceptTerms: required", "acme.directory:"}},
		{"P5: acme without hosts", good(func(c *Config) { c.ACME = &ACME{AcceptTerms: true} }), []string{"acme.hosts: required"}},
		{"O9: lifetimes", good(func(c *Config) {
			c.Certificates = &Certificates{AgentLifetime: lasting(time.Second), ServingLifetime: lasting(-1), CALifetime: lasting(time.Minute), OpenKeys: "yes", Users: &CAFiles{Key: "k"}}
		}), []string{"certificates.agentLifetime: 1s is less than 10s", "certificates.servingLifetime", "certificates.caLifetime", "certificates.openKeys", "certificates.users.cert: required"}},
		{"O9: two CAs of agents", good(func(c *Config) {
			c.AgentCA = "a"
			c.Certificates = &Certificates{Agents: &CAFiles{Cert: "b"}}
		}), []string{"agentCA, certificates.agents: give one"}},
		{"O6: enrolment", good(func(c *Config) {
			c.Enrolment = &Enrolment{Approval: "maybe", TokenTTL: lasting(1000 * time.Hour), ServiceAccounts: []ServiceAccount{{Namespace: "n", Name: "a", Cluster: "edge-1"}}}
		}), []string{`enrolment.approval: "maybe"`, "enrolment.tokenTTL", "enrolment.serviceAccounts: needs tokenReview", "enrolment.serviceAccounts[0].audience: required"}},
		{"O9: service", good(func(c *Config) { c.TLS = &TLS{Service: "hub"} }), []string{`tls.service: "hub": want namespace/name`}},
		{"advertise", good(func(c *Config) { c.Advertise = ":8443" }), []string{`advertise: ":8443": want host:port`}},
		{"metrics", good(func(c *Config) { c.MetricsListen = "9090" }), []string{"metricsListen: want host:port"}},
		{"administrators", good(func(c *Config) { c.Admins = &Admins{Users: []string{""}, Groups: []string{"a", ""}} }), []string{"admins.users: has an empty name", "admins.groups: has"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Validate()
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
			if err != nil && strings.Count(err.Error(), "\n")+1 != len(c.want) {
				t.Errorf("%d problems are expected: %v", len(c.want), err)
			}
		})
	}
	for name, c := range map[string]Config{
		"client certificates alone": {State: "s", TLS: &TLS{ClientCA: "ca"}},
		"one file for both":         good(func(c *Config) { c.TLSCert = "both.pem" }),
		"all of it": good(func(c *Config) {
			c.TLS = &TLS{MinVersion: "1.2", CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, Service: "ns/hub", Certificates: []ServingCertificate{{Dir: "d"}}}
			c.ACME = &ACME{Hosts: []string{"hub.example.com"}, AcceptTerms: true}
			c.Certificates = &Certificates{AgentLifetime: lasting(10 * time.Second), Agents: &CAFiles{Cert: "a", Key: "b"}}
			c.TokenReview = &TokenReview{InCluster: true}
			c.Enrolment = &Enrolment{Approval: "manual", ServiceAccounts: []ServiceAccount{{Audience: "culvert", Namespace: "n", Name: "a", Cluster: "edge-1"}}}
			c.Advertise, c.MetricsListen = "hub.example.com:443", ":9090"
		}),
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClientVersions(t *testing.T) {
	t.Run("D6: clients get TLS 1.3 unless told otherwise, and only forward secret suites of 1.2", func(t *testing.T) {
		cfg, err := clientVersions(nil)
		if err != nil || cfg.MinVersion != tls.VersionTLS13 {
			t.Errorf("%+v, %v", cfg, err)
		}
		cfg, err = clientVersions(&TLS{MinVersion: "1.2"})
		if err != nil || cfg.MinVersion != tls.VersionTLS12 || len(cfg.CipherSuites) < 4 {
			t.Errorf("%+v, %v", cfg, err)
		}
		for _, id := range cfg.CipherSuites {
			if name := tls.CipherSuiteName(id); !strings.HasPrefix(name, "TLS_ECDHE_") || strings.Contains(name, "_CBC_") {
				t.Errorf("%s is allowed", name)
			}
		}
		cfg, err = clientVersions(&TLS{MinVersion: "1.2", CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"}})
		if err != nil || !slices.Equal(cfg.CipherSuites, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}) {
			t.Errorf("%+v, %v", cfg, err)
		}
	})
}
