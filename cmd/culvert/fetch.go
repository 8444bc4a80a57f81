package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/profile"
)

const (
	fetchTime = 30 * time.Second
	// maxCA bounds what is read of a hub, in bytes.
	maxCA = 1 << 20
)

func pkiFetchCommand() *cobra.Command {
	var hub, fingerprint string
	cmd := &cobra.Command{
		Use:   "fetch",
		Short: "Get the CA of a hub whose fingerprint you know",
		Long: `Get the CA of a hub whose fingerprint you know, and print it as PEM. The hub says
the fingerprint when it starts, and so does culvert pki show. What the hub sends is
printed only when the CA with that fingerprint is in it, and when the connection
it came over is verified by it.`,
		Example: "  culvert pki fetch --hub hub.example.com:8443 --fingerprint 1F:C3:… > ca.crt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			digest, err := parseFingerprint("--fingerprint", fingerprint)
			if err != nil {
				return err
			}
			if strings.Contains(hub, "://") { // as every other command takes it
				if hub, err = profile.CheckHub(hub); err != nil {
					return cli.Usagef("--hub: %w", err)
				}
				hub = strings.TrimPrefix(hub, "https://")
			}
			bundle, err := fetchCA(cmd.Context(), hub, digest)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(bundle)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&hub, "hub", "", "host:port of the hub, or its URL (required)")
	f.StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the CA's certificate, hexadecimal (required)")
	required(cmd, "hub", "fingerprint")
	return cmd
}

// parseFingerprint takes the forms that programs print: with colons or without,
// in any case.
func parseFingerprint(flag, text string) (string, error) {
	digits := strings.ToUpper(strings.ReplaceAll(strings.TrimSpace(text), ":", ""))
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != 32 {
		return "", cli.Usagef("%s: want the SHA-256 of a certificate, 64 hexadecimal digits", flag)
	}
	return digits, nil
}

// fetchCA returns the CAs that the hub hands out, PEM, if the one with the fingerprint
// digest is among them and verifies the connection.
func fetchCA(ctx context.Context, hub, digest string) ([]byte, error) {
	offer, err := askCA(ctx, hub)
	if err != nil {
		return nil, err
	}
	ca, err := findCA(offer.bundle, digest)
	if err != nil {
		return nil, err
	}
	// The rest of the bundle counts because it came over a connection that the CA
	// in it verifies.
	if err := offer.verify(ca); err != nil {
		return nil, &exitcode.Error{Code: exitcode.HubUnverified, Complete: true, Err: fmt.Errorf("the hub at %s hands out the CA of that fingerprint, and its certificate is not of it: %w", hub, err)}
	}
	return offer.bundle, nil
}

// offered are the CAs that a hub hands out, which nothing vouches for yet.
type offered struct {
	bundle []byte
	host   string
	state  tls.ConnectionState
}

// verify tells whether the connection that the CAs came over is of one of them.
func (o offered) verify(ca *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return pki.VerifyServer(fixed{roots}, o.host)(o.state)
}

// askCA asks a hub, host:port, for its CAs.
func askCA(ctx context.Context, hub string) (offered, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Nothing can be verified before the CA is there; verify does it then,
			// of this same connection.
			InsecureSkipVerify: true, //nolint:gosec // verified before anything is used
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+hub+"/-/ca.crt", http.NoBody)
	if err != nil {
		return offered{}, cli.Usagef("--hub: want host:port: %w", err)
	}
	res, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		return offered{}, hubError("https://"+hub, err)
	}
	bundle, err := io.ReadAll(io.LimitReader(res.Body, maxCA))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return offered{}, hubError("https://"+hub, err)
	}
	if res.StatusCode != http.StatusOK {
		return offered{}, fmt.Errorf("the hub at %s answers %s: it is no hub, or its certificate is from a public CA and needs no other", hub, res.Status)
	}
	return offered{bundle: bundle, host: req.URL.Hostname(), state: *res.TLS}, nil
}

// fixed are roots that stay the same.
type fixed struct{ pool *x509.CertPool }

// Pool implements [pki.Roots].
func (f fixed) Pool() *x509.CertPool { return f.pool }

// findCA returns the certificate of a fingerprint.
func findCA(bundle []byte, digest string) (*x509.Certificate, error) {
	cas, err := parseCAs(bundle)
	if err != nil {
		return nil, err
	}
	for _, ca := range cas {
		if strings.ReplaceAll(pki.Fingerprint(ca), ":", "") == digest {
			return ca, nil
		}
	}
	return nil, &exitcode.Error{Code: exitcode.HubUnverified, Complete: true,
		Err: errors.New("no CA that this hub hands out has that fingerprint: it is another hub, or something between reads the connection")}
}

// parseCAs returns the CAs of a bundle.
func parseCAs(bundle []byte) (cas []*x509.Certificate, err error) {
	for block, rest := pem.Decode(bytes.TrimSpace(bundle)); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("what the hub hands out as its CA is damaged: %w", err)
		}
		if cert.IsCA {
			cas = append(cas, cert)
		}
	}
	return cas, nil
}
