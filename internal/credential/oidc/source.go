package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/filelock"
)

const (
	// refreshTime bounds one request for a token.
	refreshTime = 30 * time.Second
	lockWait    = refreshTime + 10*time.Second
	// leeway is for clocks that differ.
	leeway = 10 * time.Second
)

// Config says at which provider, and as which client of it, somebody logs in.
type Config struct {
	// Issuer is the provider's URL, https://….
	Issuer string `json:"issuer"`
	// ClientID is Culvert's name at the provider, a public client.
	ClientID string `json:"clientID"`
	// ClientSecretFile holds the client's secret, for providers that want one of
	// programs too, as Google does.
	ClientSecretFile string `json:"clientSecretFile,omitempty"`
	// Scopes are asked for beside openid and offline_access. Default: email, profile.
	Scopes []string `json:"scopes,omitempty"`
	// CA is a PEM file of the CAs that the provider's certificate comes from. Default:
	// the system's.
	CA string `json:"ca,omitempty"`
}

// Client returns an HTTP client for the provider. Who calls it closes its idle
// connections.
func (c Config) Client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("oidc.ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("oidc.ca: %s: no certificate in it, want PEM", c.CA)
		}
	}
	return &http.Client{
		Timeout:   refreshTime,
		Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true},
	}, nil
}

// OAuth2 is the client as golang.org/x/oauth2 has it, with the endpoints given.
func (c Config) OAuth2(endpoint oauth2.Endpoint) (*oauth2.Config, error) {
	out := &oauth2.Config{ClientID: c.ClientID, Endpoint: endpoint}
	if c.ClientSecretFile == "" {
		// A public client has no other way, and must not be tried with one.
		out.Endpoint.AuthStyle = oauth2.AuthStyleInParams
		return out, nil
	}
	text, err := os.ReadFile(c.ClientSecretFile)
	if err != nil {
		return nil, fmt.Errorf("oidc.clientSecretFile: %w", err)
	}
	out.ClientSecret = strings.TrimSpace(string(text))
	return out, nil
}

// Source gets ID tokens of a login. It is safe for concurrent use, by processes too.
type Source struct {
	Config Config
	// Path is the login's file.
	Path string
	// Hub is the hub's URL and Again the command that logs in again, for errors.
	Hub, Again string
}

// Key implements [credential.Source]: the login's file is the cache.
func (Source) Key() string { return "" }

// Fetch implements [credential.Source].
func (s Source) Fetch(ctx context.Context) (credential.Token, error) {
	login, err := s.load()
	if err != nil {
		return credential.Token{}, err
	}
	if fresh(login) {
		return login.token(), nil
	}
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := filelock.Lock(wait, s.Path+".lock")
	if err != nil {
		return credential.Token{}, fmt.Errorf("login at %s: %w", s.Hub, err)
	}
	token, err := s.refresh(ctx)
	return token, errors.Join(err, unlock())
}

func fresh(l Login) bool { return time.Now().Before(l.token().Fresh()) }

// load returns the login, if it is one at the provider that is meant.
func (s Source) load() (Login, error) {
	login, err := load(s.Path)
	if err == nil && (login.Issuer != s.Config.Issuer || login.ClientID != s.Config.ClientID) {
		err = errNone
	}
	switch {
	case errors.Is(err, errNone):
		return login, &credential.Error{Err: fmt.Errorf("you are not logged in at %s: run %s", s.Hub, s.Again)}
	case err != nil:
		return login, &credential.Error{Err: fmt.Errorf("%w: run %s", err, s.Again)}
	}
	return login, nil
}

// refresh gets a token, unless somebody else just did. The caller has the lock.
func (s Source) refresh(ctx context.Context) (credential.Token, error) {
	login, err := s.load()
	if err != nil || fresh(login) {
		return login.token(), err
	}
	good := login.Expires.IsZero() || time.Now().Add(leeway).Before(login.Expires)
	if login.RefreshToken == "" {
		if good {
			return login.token(), nil
		}
		return credential.Token{}, s.expired(errors.New("the provider gave no refresh token"))
	}
	next, err := s.ask(ctx, login)
	if err != nil {
		refused, ok := errors.AsType[*oauth2.RetrieveError](err)
		switch {
		case ok && refused.ErrorCode == "invalid_grant": // RFC 6749 section 5.2
			return credential.Token{}, s.expired(errors.New("the provider does not renew it"))
		case good:
			return login.token(), nil // there is time for another attempt
		case ok:
			return credential.Token{}, &credential.Error{Err: fmt.Errorf("renew your login at %s: the provider %s refuses (%.64q): run %s", s.Hub, s.Config.Issuer, refused.ErrorCode, s.Again)}
		}
		return credential.Token{}, &credential.Error{Err: fmt.Errorf("renew your login at %s: %w", s.Hub, plain(err))}
	}
	if err := next.Save(s.Path); err != nil {
		return credential.Token{}, fmt.Errorf("login at %s: %w", s.Hub, err)
	}
	return next.token(), nil
}

// ask uses the refresh token.
func (s Source) ask(ctx context.Context, login Login) (Login, error) {
	client, err := s.Config.Client()
	if err != nil {
		return Login{}, err
	}
	defer client.CloseIdleConnections()
	config, err := s.Config.OAuth2(oauth2.Endpoint{TokenURL: login.TokenURL})
	if err != nil {
		return Login{}, err
	}
	got, err := config.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client), &oauth2.Token{RefreshToken: login.RefreshToken}).Token()
	if err != nil {
		return Login{}, err
	}
	id, ok := got.Extra("id_token").(string)
	if !ok {
		return Login{}, errors.New("the provider's answer has no ID token")
	}
	return NewLogin(login.Issuer, login.ClientID, login.TokenURL, id, got.RefreshToken)
}

func (s Source) expired(reason error) error {
	return &credential.Error{Err: fmt.Errorf("your login at %s has expired: run %s (%w)", s.Hub, s.Again, reason)}
}
