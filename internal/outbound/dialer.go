package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/culvertdev/culvert/internal/pki"
)

// keepAlive is the interval of TCP's own probes, which keep the connection in
// the tables of what stands between.
const keepAlive = 15 * time.Second

// Dialer opens connections, through the proxy where there is one for the
// address. Its methods are safe for concurrent use; it needs no closing.
type Dialer struct {
	tcp         net.Dialer
	proxy       *proxy                           // nil: always directly
	uses        func(*url.URL) (*url.URL, error) // nil URL: directly
	ca          *pki.Bundle                      // nil: the system's
	credentials *credentials                     // nil: those of proxy
}

// New reads the environment and the files that cfg names. Files are followed
// from then on; the environment is not. A nil log is slog.Default.
func New(cfg Config, log *slog.Logger) (*Dialer, error) {
	if log == nil {
		log = slog.Default()
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	d := &Dialer{tcp: net.Dialer{KeepAlive: keepAlive}}
	var err error
	if d.proxy, d.uses, err = cfg.choose(); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if d.proxy == nil {
		return d, nil
	}
	if cfg.CA != "" {
		if d.ca, err = pki.LoadBundle(cfg.CA, pki.WithLogger(log), pki.WithName("proxy CA")); err != nil {
			return nil, fmt.Errorf("proxy: ca: %w", err)
		}
	}
	if cfg.CredentialsFile != "" {
		if d.credentials, err = loadCredentials(cfg.CredentialsFile, log); err != nil {
			return nil, fmt.Errorf("proxy: credentialsFile: %w", err)
		}
	}
	return d, nil
}

// Proxy returns the URL of the proxy that is used for address (host:port),
// without credentials; "" when the connection is direct.
func (d *Dialer) Proxy(address string) string {
	if !d.proxied(address) {
		return ""
	}
	return d.proxy.name()
}

// Watched returns the files that are followed, for reports and for a forced
// re-read: the proxy's CAs and the credentials, as far as they are in files. A
// bad new file leaves what was read before in force.
func (d *Dialer) Watched() []pki.Watched {
	var all []pki.Watched
	if d.ca != nil {
		all = append(all, d.ca)
	}
	if d.credentials != nil {
		all = append(all, d.credentials)
	}
	return all
}

func (d *Dialer) proxied(address string) bool {
	if d.proxy == nil {
		return false
	}
	// The error is for HTTP_PROXY in CGI programs only.
	via, err := d.uses(&url.URL{Scheme: schemeHTTPS, Host: address})
	return err == nil && via != nil
}

// DialContext opens a TCP connection to address (host:port), with TCP keepalive.
// Behind a proxy the name is resolved by the proxy, the addresses of the
// connection are those of the connection to the proxy, and failures there are an
// [*Error]. The context bounds the whole of it and has no effect afterwards.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !d.proxied(address) {
		return d.tcp.DialContext(ctx, network, address)
	}
	conn, err := d.throughProxy(ctx, network, address)
	if err == nil {
		return conn, nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return nil, err
	}
	return nil, &Error{Proxy: d.proxy.name(), Address: address, Err: err}
}

func (d *Dialer) throughProxy(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.tcp.DialContext(ctx, network, d.proxy.address())
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn, err := d.secured(ctx, raw)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	basic := d.proxy.basic
	if d.credentials != nil {
		basic = d.credentials.get()
	}
	through, err := establish(ctx, conn, d.proxy.name(), address, basic)
	if err != nil {
		// The TCP connection, not TLS: there is nobody to say goodbye to.
		return nil, errors.Join(err, raw.Close())
	}
	return through, nil
}

// secured adds TLS where the proxy's URL says so.
func (d *Dialer) secured(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if d.proxy.scheme != schemeHTTPS {
		return raw, nil
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: d.proxy.host,
		NextProtos: []string{"http/1.1"}, // CONNECT of HTTP/2 is another thing
	}
	if d.ca != nil {
		cfg.RootCAs = d.ca.Pool()
	}
	conn := tls.Client(raw, cfg)
	err := conn.HandshakeContext(ctx)
	if err == nil {
		return conn, nil
	}
	var plain tls.RecordHeaderError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &plain):
		return nil, errors.New("it does not answer in TLS: use http:// in its URL")
	case errors.Is(err, io.EOF):
		return nil, errors.New("it closed the connection in the TLS handshake: use http:// in its URL where it is not spoken to in TLS")
	case errors.As(err, &untrusted):
		return nil, fmt.Errorf("handshake: %w: its CA is given by the setting ca of the proxy", err)
	default:
		return nil, fmt.Errorf("handshake: %w", err)
	}
}
