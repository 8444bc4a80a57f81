// Package flow is how somebody logs in at an OpenID Connect provider from a terminal: with
// a browser on the same machine (authorization code with PKCE and a listener on the
// loopback, https://www.rfc-editor.org/rfc/rfc8252), or with a code that is typed in on
// another one (https://www.rfc-editor.org/rfc/rfc8628).
package flow

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/culvertdev/culvert/internal/credential/oidc"
)

// login is one attempt.
type login struct {
	config   oidc.Config
	oauth2   *oauth2.Config
	verifier *goidc.IDTokenVerifier
	options  []oauth2.AuthCodeOption
	client   *http.Client
}

// begin finds the provider; the caller closes the client's idle connections.
func begin(ctx context.Context, config oidc.Config) (*login, error) {
	client, err := config.Client()
	if err != nil {
		return nil, err
	}
	l := &login{config: config, client: client}
	provider, err := goidc.NewProvider(l.context(ctx), config.Issuer)
	if err != nil {
		client.CloseIdleConnections()
		return nil, fmt.Errorf("the provider %s: %w", config.Issuer, plain(err))
	}
	var offers struct {
		Scopes []string `json:"scopes_supported"`
	}
	if err := provider.Claims(&offers); err != nil {
		client.CloseIdleConnections()
		return nil, fmt.Errorf("the provider %s: %w", config.Issuer, err)
	}
	if l.oauth2, err = config.OAuth2(provider.Endpoint()); err != nil {
		client.CloseIdleConnections()
		return nil, err
	}
	l.verifier = provider.Verifier(&goidc.Config{ClientID: config.ClientID})
	l.oauth2.Scopes = []string{goidc.ScopeOpenID}
	scopes := config.Scopes
	if scopes == nil {
		scopes = []string{"email", "profile"}
	}
	for _, scope := range scopes {
		if !slices.Contains(l.oauth2.Scopes, scope) {
			l.oauth2.Scopes = append(l.oauth2.Scopes, scope)
		}
	}
	// Some providers know the scope of the standard, and others a parameter.
	if slices.Contains(offers.Scopes, goidc.ScopeOfflineAccess) {
		if !slices.Contains(l.oauth2.Scopes, goidc.ScopeOfflineAccess) {
			l.oauth2.Scopes = append(l.oauth2.Scopes, goidc.ScopeOfflineAccess)
		}
	} else {
		l.options = append(l.options, oauth2.AccessTypeOffline)
	}
	return l, nil
}

// context makes both libraries use the client.
func (l *login) context(ctx context.Context) context.Context {
	return goidc.ClientContext(ctx, l.client)
}

// end checks what the provider gave. nonce is empty where the flow has none.
func (l *login) end(ctx context.Context, got *oauth2.Token, nonce string) (oidc.Login, error) {
	raw, ok := got.Extra("id_token").(string)
	if !ok {
		return oidc.Login{}, errors.New("the provider gave no ID token")
	}
	token, err := l.verifier.Verify(l.context(ctx), raw)
	if err != nil {
		return oidc.Login{}, fmt.Errorf("the provider's ID token: %w", plain(err))
	}
	if token.Nonce != nonce {
		return oidc.Login{}, errors.New("the provider's ID token is for another login")
	}
	return oidc.NewLogin(l.config.Issuer, l.config.ClientID, l.oauth2.Endpoint.TokenURL, raw, got.RefreshToken)
}

// refused keeps to what a provider may say: its answers can have a code or token in them.
func refused(err error) error {
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return fmt.Errorf("the provider refuses: %.64q %.200q", r.ErrorCode, r.ErrorDescription)
	}
	return plain(err)
}

// plain leaves out the request of an error.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
