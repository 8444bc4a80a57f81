package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/tunnel"
)

// PKIDir is the folder of a hub's CAs and certificates in its state folder.
func PKIDir(state string) string { return filepath.Join(state, "pki") }

// trust is whom the hub believes, and what it shows of itself.
type trust struct {
	authorities map[string]*pki.Authority
	serving     *serving
	// cluster says whose agent a connection is; it knows revocations.
	cluster func(tls.ConnectionState) (string, error)
	// users are the CAs of callers' client certificates; nil asks for none.
	users    identity.Roots
	versions *tls.Config
	watched  []pki.Watched
}

// loadTrust reads or makes the CAs and certificates. issued and foreign judge agents'
// certificates that are good otherwise.
func loadTrust(cfg Config, issued, foreign pki.AgentCheck) (*trust, error) {
	t := &trust{authorities: map[string]*pki.Authority{}}
	var err error
	if t.versions, err = clientVersions(cfg.TLS); err != nil {
		return nil, err
	}
	for _, role := range pki.Roles() {
		if t.authorities[role], err = loadAuthority(cfg, role); err != nil {
			return nil, err
		}
		t.watched = append(t.watched, t.authorities[role])
	}
	if err := t.loadAgents(cfg, issued, foreign); err != nil {
		return nil, err
	}
	if t.serving, err = loadServing(cfg, t.authorities[pki.RoleServing]); err != nil {
		return nil, err
	}
	t.watched = append(t.watched, t.serving.watched...)
	switch {
	case cfg.TLS != nil && cfg.TLS.ClientCA != "":
		bundle, err := pki.LoadBundle(cfg.TLS.ClientCA, pki.WithLogger(cfg.Logger), pki.WithName("client CA"))
		if err != nil {
			return nil, fmt.Errorf("tls.clientCA: %w", err)
		}
		t.users = bundle
		t.watched = append(t.watched, bundle)
	case cfg.Certificates.files(pki.RoleUsers) != nil:
		t.users = t.authorities[pki.RoleUsers]
	}
	return t, nil
}

// loadAuthority returns the CA of a role: the operator's, or the hub's own.
func loadAuthority(cfg Config, role string) (*pki.Authority, error) {
	options := []pki.Option{pki.WithLogger(cfg.Logger), pki.WithName(role + " CA"), openKeys(cfg.Certificates)}
	files := cfg.Certificates.files(role)
	field := "certificates." + role
	if role == pki.RoleAgents && cfg.AgentCA != "" {
		files, field = &CAFiles{Cert: cfg.AgentCA}, "agentCA"
	}
	if files != nil {
		if files.PassphraseFile != "" {
			options = append(options, pki.WithPassphraseFile(files.PassphraseFile))
		}
		authority, err := pki.LoadAuthority(role, files.Cert, files.Key, options...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return authority, nil
	}
	if cfg.Certificates != nil {
		options = append(options, pki.WithLifetime(cfg.Certificates.CALifetime.Duration))
	}
	return pki.LoadOrCreate(PKIDir(cfg.State), role, options...)
}

func openKeys(c *Certificates) pki.Option {
	switch {
	case c != nil && c.OpenKeys == "warn":
		return pki.WithOpenKeys(pki.OpenKeysWarn)
	case c != nil && c.OpenKeys == "refuse":
		return pki.WithOpenKeys(pki.OpenKeysRefuse)
	}
	return pki.WithOpenKeys(pki.OpenKeysDefault)
}

// agents is the TLS configuration of the tunnel: the handshake fails unless the
// certificate proves a cluster that is not revoked.
func (t *trust) agents() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{tunnel.Protocol},
		GetCertificate:         t.serving.getCertificate,
		ClientAuth:             tls.RequireAnyClientCert, // VerifyConnection judges it, with the CAs of the moment
		SessionTicketsDisabled: true,                     // each connection shows its certificate
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := t.cluster(state)
			return err
		},
	}
}

// newcomers is the TLS configuration of agents that have no certificate yet. They
// may know no more of the hub than the pin of its CA, so that one is sent along.
func (t *trust) newcomers() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{enrol.Protocol},
		GetCertificate:         t.serving.getCertificateWithCA,
		SessionTicketsDisabled: true,
	}
}

// programs is the TLS configuration of clients' tunnels, who may have a certificate.
func (t *trust) programs() *tls.Config {
	cfg := t.clients()
	cfg.MinVersion, cfg.CipherSuites = tls.VersionTLS13, nil
	cfg.NextProtos = []string{tunnel.ClientProtocol}
	cfg.SessionTicketsDisabled = true // each connection shows its certificate
	return cfg
}

// clients is the TLS configuration of the HTTPS front end.
func (t *trust) clients() *tls.Config {
	cfg := &tls.Config{
		MinVersion:     t.versions.MinVersion,
		CipherSuites:   slices.Clone(t.versions.CipherSuites),
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: t.serving.getCertificate,
	}
	if t.serving.acme != nil {
		cfg.NextProtos = append(cfg.NextProtos, acmeProtocol)
	}
	if t.users != nil {
		cfg.ClientAuth = tls.RequestClientCert // VerifyConnection judges it, with the CAs of the moment
		cfg.VerifyConnection = identity.VerifyClient(t.users)
	}
	return cfg
}

// authority returns the CA of a role.
func (t *trust) authority(role string) (*pki.Authority, error) {
	if a := t.authorities[role]; a != nil {
		return a, nil
	}
	return nil, errors.New("there is no such role: want agents, serving, users or peers")
}
