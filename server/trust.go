package server

import (
	"crypto/tls"
	"fmt"
	"path/filepath"

	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/tunnel"
)

// PKIDir is the folder of a hub's CAs and certificates in its state folder.
func PKIDir(state string) string { return filepath.Join(state, "pki") }

// trust is whom the hub believes, and what it shows of itself.
type trust struct {
	serving   *pki.KeyPair
	servingCA []byte
	cluster   func(tls.ConnectionState) (string, error)
}

func loadTrust(cfg Config) (*trust, error) {
	t := &trust{}
	dir, logger := PKIDir(cfg.State), pki.WithLogger(cfg.Logger)
	var roots pki.Roots
	agents, err := pki.LoadOrCreate(dir, pki.RoleAgents)
	if err != nil {
		return nil, fmt.Errorf("agents CA: %w", err)
	}
	roots = agents
	if cfg.AgentCA != "" {
		if roots, err = pki.LoadBundle(cfg.AgentCA, logger); err != nil {
			return nil, fmt.Errorf("agentCA: %w", err)
		}
	}
	t.cluster = pki.VerifyAgent(roots, cfg.TrustDomain)

	if cfg.TLSCert != "" {
		if t.serving, err = pki.LoadKeyPair(cfg.TLSCert, cfg.TLSKey, logger); err != nil {
			return nil, fmt.Errorf("tlsCert, tlsKey: %w", err)
		}
		return t, nil
	}
	serving, err := pki.LoadOrCreate(dir, pki.RoleServing)
	if err != nil {
		return nil, fmt.Errorf("serving CA: %w", err)
	}
	if t.serving, err = pki.SelfServing(serving, dir, cfg.TLSNames, logger); err != nil {
		return nil, fmt.Errorf("tlsNames: %w", err)
	}
	t.servingCA = serving.PEM()
	cfg.Logger.Info("the hub's certificate is from its own CA",
		"names", cfg.TLSNames, "ca", filepath.Join(dir, pki.RoleServing+"-ca.crt"))
	return t, nil
}

// agents is the TLS configuration of the tunnel: the handshake fails unless the
// certificate proves a cluster.
func (t *trust) agents() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{tunnel.Protocol},
		GetCertificate:         t.serving.GetCertificate,
		ClientAuth:             tls.RequireAnyClientCert, // VerifyConnection judges it, with the CAs of the moment
		SessionTicketsDisabled: true,                     // each connection shows its certificate
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := t.cluster(state)
			return err
		},
	}
}

// clients is the TLS configuration of the HTTPS front end.
func (t *trust) clients() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: t.serving.GetCertificate,
	}
}
