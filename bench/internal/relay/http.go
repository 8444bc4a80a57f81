package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

// ProxyRole is the name of the HTTP role, near and far.
const ProxyRole = "proxy"

// ProxyConfig is that of either HTTP proxy.
type ProxyConfig struct {
	// Host is the address to listen on, Target the base URL of what is behind.
	Host, Target string
	// Cert and Key are the files of its key pair, CA the one that verifies the
	// target.
	Cert, Key, CA string
	// Header is set on every request on its way to the target.
	Header map[string][]string
}

// maxIdle is how many connections are kept alive to the target: more than there
// are clients, so that none is dialled anew.
const maxIdle = 1024

// Proxy runs one proxy; it is ready with its base URL.
func Proxy(ctx context.Context, cfg ProxyConfig, ready func(any) error) error {
	client, err := clientTLS(cfg.CA)
	if err != nil {
		return err
	}
	target, err := url.Parse(cfg.Target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(cfg.Host, "0"))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				maps.Copy(r.Out.Header, http.Header(cfg.Header))
			},
			Transport: &http.Transport{
				TLSClientConfig: client, MaxIdleConnsPerHost: maxIdle, DisableCompression: true,
			},
		},
	}
	if err := ready("https://" + l.Addr().String()); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.ServeTLS(l, cfg.Cert, cfg.Key); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// clientTLS trusts the CA of a file.
func clientTLS(ca string) (*tls.Config, error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("CA: %s holds no certificate", ca)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}
