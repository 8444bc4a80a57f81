package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"

	"github.com/culvertdev/culvert/internal/telemetry"
)

// issuerFile is the OIDC issuers of an AuthenticationConfiguration that is
// followed. An issuer that a new file leaves as it was goes on with the keys it has;
// one that is gone is refused at once. It is safe for concurrent use.
type issuerFile struct {
	follower

	life    context.Context
	dial    dialFunc
	current atomic.Pointer[map[string]*issuer] // by the URL; a map that is in force never changes
}

// dialFunc is that of http.Transport; nil is the system's.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func newIssuerFile(life context.Context, path string, dial dialFunc, log *slog.Logger) (*issuerFile, error) {
	f := &issuerFile{life: life, dial: dial, follower: follower{
		field: "authenticationConfig", what: "authentication configuration",
		path: path, limit: maxAuthenticationConfig, log: log,
	}}
	f.apply = f.replace
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// AuthenticateToken implements authenticator.Token. A token that names an issuer of
// the file is that issuer's to judge, and its refusal is an error, so that nobody
// else is asked about the token or gets it. Any other token is (nil, false, nil).
func (f *issuerFile) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	f.follow()
	if i := (*f.current.Load())[issuerOf(token)]; i != nil {
		return i.authenticate(ctx, token)
	}
	return nil, false, nil
}

// replace is the follower's apply.
func (f *issuerFile) replace(data []byte, _ fs.FileInfo) ([]any, error) {
	compiler := authenticationcel.NewDefaultCompiler()
	config, err := loadAuthentication(data, compiler)
	if err != nil {
		return nil, err
	}
	var before map[string]*issuer
	if current := f.current.Load(); current != nil {
		before = *current
	}
	issuers := make(map[string]*issuer, len(config.JWT))
	for _, jwt := range config.JWT {
		if old := before[jwt.Issuer.URL]; old != nil && reflect.DeepEqual(old.config, jwt) {
			issuers[jwt.Issuer.URL] = old
			continue
		}
		i, err := newIssuer(f.life, jwt, compiler, f.dial, f.log)
		if err != nil {
			closeBut(issuers, before)
			return nil, err
		}
		issuers[jwt.Issuer.URL] = i
	}
	f.current.Store(&issuers)
	closeBut(before, issuers)
	return []any{"issuers", slices.Sorted(maps.Keys(issuers))}, nil
}

// closeBut closes the issuers that are not in kept.
func closeBut(issuers, kept map[string]*issuer) {
	for url, i := range issuers {
		if kept[url] != i {
			i.close()
		}
	}
}

// issuerHealth says for each issuer why it cannot judge, if so.
func (f *issuerFile) issuerHealth() []telemetry.Health {
	issuers := *f.current.Load()
	all := make([]telemetry.Health, 0, len(issuers))
	for _, url := range slices.Sorted(maps.Keys(issuers)) {
		h := telemetry.Health{Name: "oidc issuer " + url}
		if problem := issuers[url].problem(); problem != nil {
			h.Warnings = []string{problem.Error()}
		}
		all = append(all, h)
	}
	return all
}

func (f *issuerFile) close() { closeBut(*f.current.Load(), nil) }

// issuerOf returns the issuer that a token names, "" where it names none. Nothing is
// verified: it decides who is asked. It reads as the OIDC authenticator of
// k8s.io/apiserver does, which also takes Google's two names for one.
func issuerOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	if claims.Issuer == "accounts.google.com" {
		return "https://accounts.google.com"
	}
	return claims.Issuer
}
