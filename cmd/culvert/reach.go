package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/outbound"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/profile"
)

// tlsOf verifies a profile's hub, and is its client certificate.
func tlsOf(p profile.Profile) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.ServerName}
	switch {
	case p.InsecureSkipTLSVerify:
		config.InsecureSkipVerify = true // which is what was asked for, and warned of
	case p.HubCA != "":
		bundle, err := pki.LoadBundle(p.HubCA)
		if err != nil {
			return nil, &exitcode.Error{Code: exitcode.HubUnverified, Err: fmt.Errorf("--hub-ca: %w", err)}
		}
		config.RootCAs = bundle.Pool()
	case p.HubCAData != "":
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(p.HubCAData)) {
			return nil, &exitcode.Error{Code: exitcode.HubUnverified, Err: fmt.Errorf("profile %s: hubCAData: no certificate in it", p.Name)}
		}
	}
	if p.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
		if err != nil {
			return nil, &exitcode.Error{Code: exitcode.Unauthenticated, Err: fmt.Errorf("client certificate: %w", err)}
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// transport reaches a profile's hub, through its proxy where it has one.
func transport(p profile.Profile) (*http.Transport, error) {
	config, err := tlsOf(p)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if p.Proxy.URL == "" && p.Proxy.NoProxy == nil && p.Proxy.CA == "" && p.Proxy.CredentialsFile == "" {
		return t, nil
	}
	dialer, err := outbound.New(p.Proxy, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", p.Name, err)
	}
	t.Proxy, t.DialContext = nil, dialer.DialContext
	return t, nil
}

// restTLS is tlsOf for client-go.
func restTLS(p profile.Profile) rest.TLSClientConfig {
	return rest.TLSClientConfig{
		CAFile: p.HubCA, CAData: []byte(p.HubCAData), Insecure: p.InsecureSkipTLSVerify, ServerName: p.ServerName,
		CertFile: p.CertFile, KeyFile: p.KeyFile,
	}
}

// hubError says that a hub could not be asked: it is not there, or it is not the hub.
func hubError(hub string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.Canceled), exitcode.Of(err) != exitcode.Failure:
		return err
	case unverified(err):
		return &exitcode.Error{Code: exitcode.HubUnverified, Err: fmt.Errorf("the hub at %s cannot be verified: %w", hub, err)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the connection was closed")
	}
	return &exitcode.Error{Code: exitcode.HubUnreachable, Err: fmt.Errorf("the hub at %s cannot be reached: %w", hub, err)}
}

// unverified tells whether TLS failed.
func unverified(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError)) ||
		errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, new(tls.AlertError))
}
