// Package oidc keeps logins at OpenID Connect providers and gets ID tokens from them: a
// [Source] has one file, mode 0600, with the token and the refresh token. Who finds a
// token there that is good for a while takes it. Who does not takes the file's lock,
// looks again and refreshes it: a provider may take back a refresh token that is used
// twice (https://www.rfc-editor.org/rfc/rfc9700 section 4.14.2), so only one of many
// processes uses it, and writes down the next one before the lock is released.
//
// How somebody logs in, with a browser, is the business of culvert login.
package oidc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/culvertdev/culvert/internal/credential"
)

const (
	storedFormat = 1
	maxStored    = 256 << 10
)

// Login is what a login has left. It is secret and shown to nobody.
type Login struct {
	Format int `json:"format"`
	// Issuer and ClientID are those that it is of: a file of another login is none.
	Issuer   string `json:"issuer"`
	ClientID string `json:"clientID"`
	// TokenURL is the provider's token endpoint.
	TokenURL string `json:"tokenURL"`

	IDToken string `json:"idToken"`
	// RefreshToken gets the next ID token; empty where the provider gave none.
	RefreshToken string    `json:"refreshToken,omitempty"`
	Got          time.Time `json:"got"`
	Expires      time.Time `json:"expires,omitzero"`
}

// String keeps the tokens out of texts.
func (Login) String() string { return "[redacted]" }

// GoString implements [fmt.GoStringer].
func (Login) GoString() string { return "[redacted]" }

// NewLogin is a login of now. The token is checked for nothing but its form.
func NewLogin(issuer, clientID, tokenURL, idToken, refreshToken string) (Login, error) {
	token, err := credential.ParseToken([]byte(idToken), time.Now())
	if err != nil {
		return Login{}, fmt.Errorf("the provider's ID token: %w", err)
	}
	return Login{
		Format: storedFormat, Issuer: issuer, ClientID: clientID, TokenURL: tokenURL,
		IDToken: token.Value, RefreshToken: refreshToken, Got: token.Got.UTC().Round(0), Expires: token.Expires,
	}, nil
}

// Save writes the login to its file, whose folder it makes.
func (l Login) Save(path string) error {
	text, err := json.Marshal(l) //nolint:gosec // it is what the file is for
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), credential.ModeDir); err != nil {
		return err
	}
	return credential.WriteFile(path, text)
}

func (l Login) token() credential.Token {
	return credential.Token{Value: l.IDToken, Got: l.Got, Expires: l.Expires}
}

// errNone is no login.
var errNone = errors.New("nobody is logged in")

// load returns the login of a file. One that others may read or write is refused.
func load(path string) (Login, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Login{}, errNone
	case err != nil:
		return Login{}, err
	case !credential.Private(info) || info.Size() > maxStored:
		return Login{}, fmt.Errorf("%s: want a file of mode 0600 that is yours: it holds a login", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Login{}, err
	}
	var l Login
	if json.Unmarshal(text, &l) != nil || l.Format != storedFormat || l.IDToken == "" {
		return Login{}, fmt.Errorf("%s: the login in it is damaged", path)
	}
	return l, nil
}
