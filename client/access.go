package client

import (
	"context"
	"fmt"
	"os"
)

// Access is how the hub is reached by HTTPS beside the client's connection, for libraries
// that make connections of their own.
type Access struct {
	// URL is the hub's, without a slash at its end.
	URL string
	// CA is PEM of what its certificate comes from, nil for the system's CAs, and
	// ServerName the name in it, "" for the host.
	CA         []byte
	ServerName string
	// InsecureSkipVerify verifies nobody.
	InsecureSkipVerify bool
	// CertFile and KeyFile are the client's certificate, "" where it has a token.
	CertFile, KeyFile string
	// ProxyURL is the proxy to the hub that was configured, which may hold a password;
	// "" leaves it to the environment.
	ProxyURL string
}

// Access returns how the hub is reached by HTTPS.
func (c *Client) Access() (Access, error) {
	s := c.set
	a := Access{
		URL: s.base, ServerName: s.server, InsecureSkipVerify: s.skip,
		CertFile: s.from.CertFile, KeyFile: s.from.KeyFile, ProxyURL: s.from.Proxy.URL,
	}
	switch {
	case s.from.HubCA != "":
		text, err := os.ReadFile(s.from.HubCA)
		if err != nil {
			return Access{}, fmt.Errorf("hubCA: %w", err)
		}
		a.CA = text
	case s.from.HubCAData != "":
		a.CA = []byte(s.from.HubCAData)
	}
	return a, nil
}

// Authorization returns the value of the field by which the client is known, for requests
// to the hub and nobody else: it is a secret. It is "" with a client certificate.
func (c *Client) Authorization(ctx context.Context) (string, error) {
	token, err := c.token(ctx)
	if token == "" {
		return "", err
	}
	return "Bearer " + token, nil
}
