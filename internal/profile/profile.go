package profile

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/credential/oidc"
	"github.com/culvertdev/culvert/internal/outbound"
)

// Profile is a hub, and who calls it. Paths in the file may be relative to its folder.
type Profile struct {
	Name string `json:"name"`
	// Hub is the hub's URL, https://host[:port] and nothing more.
	Hub string `json:"hub"`
	// HubCA is a PEM file of the CAs that verify the hub, and HubCAData their PEM.
	// Default: the system's.
	HubCA     string `json:"hubCA,omitempty"`
	HubCAData string `json:"hubCAData,omitempty"`
	// ServerName is the name in the hub's certificate where it is not the host of Hub.
	ServerName string `json:"serverName,omitempty"`
	// InsecureSkipTLSVerify verifies nobody.
	InsecureSkipTLSVerify bool `json:"insecureSkipTLSVerify,omitempty"`
	// Proxy leads to the hub. Default: what HTTPS_PROXY and NO_PROXY say.
	Proxy outbound.Config `json:"proxy,omitzero"`

	// One of these is the credential: a file with a bearer token, a line for the shell
	// that prints one, a login at an OpenID Connect provider, or the PEM files of a
	// client certificate.
	TokenFile    string       `json:"tokenFile,omitempty"`
	TokenCommand string       `json:"tokenCommand,omitempty"`
	OIDC         *oidc.Config `json:"oidc,omitempty"`
	CertFile     string       `json:"certFile,omitempty"`
	KeyFile      string       `json:"keyFile,omitempty"`

	// Token is a bearer token of the environment. It is never written.
	Token string `json:"-"`

	dir string // of the file
}

// String keeps the token out of texts.
func (p Profile) String() string { return fmt.Sprintf("{name:%s hub:%s}", p.Name, p.Hub) }

// GoString implements [fmt.GoStringer].
func (p Profile) GoString() string { return p.String() }

// Kinds of credentials.
const (
	CredentialNone        = ""
	CredentialToken       = "token"
	CredentialFile        = "token-file"
	CredentialCommand     = "token-command"
	CredentialOIDC        = "oidc"
	CredentialCertificate = "client-certificate"
)

// Credential says which kind of credential the profile has.
func (p Profile) Credential() string {
	switch {
	case p.Token != "":
		return CredentialToken
	case p.TokenFile != "":
		return CredentialFile
	case p.TokenCommand != "":
		return CredentialCommand
	case p.OIDC != nil:
		return CredentialOIDC
	case p.CertFile != "":
		return CredentialCertificate
	}
	return CredentialNone
}

// name is what is safe in a file's name too.
var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName refuses a name that no profile may have.
func CheckName(text string) error {
	if !name.MatchString(text) || strings.HasSuffix(text, ".lock") {
		return fmt.Errorf("name: %.80q: want letters, digits, '.', '-' and '_', at most 63, beginning with a letter or digit", text)
	}
	return nil
}

// CheckHub returns a hub's URL in its one form.
func CheckHub(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("want https://host[:port] and nothing more")
	}
	return "https://" + u.Host, nil
}

// Validate names everything that is wrong, with the field. It reads no file.
func (p Profile) Validate() error {
	problems := []error{CheckName(p.Name)}
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if base, err := CheckHub(p.Hub); err != nil {
		wrong("hub: %w", err)
	} else if base != p.Hub {
		wrong("hub: want %s", base)
	}
	trust := 0
	for _, set := range []bool{p.HubCA != "", p.HubCAData != "", p.InsecureSkipTLSVerify} {
		if set {
			trust++
		}
	}
	if trust > 1 {
		wrong("hubCA, hubCAData, insecureSkipTLSVerify: give one of them")
	}
	if err := p.Proxy.Validate(); err != nil {
		wrong("proxy: %w", err)
	}
	if u, err := url.Parse(p.Proxy.URL); p.Proxy.URL != "" && err == nil && u.User != nil {
		wrong("proxy.url: this file holds no secret: put user:password into proxy.credentialsFile")
	}
	return errors.Join(append(problems, p.CheckCredential())...)
}

// CheckCredential refuses more than one credential, and half of one.
func (p Profile) CheckCredential() error {
	kinds := 0
	for _, set := range []bool{p.Token != "", p.TokenFile != "", p.TokenCommand != "", p.OIDC != nil, p.CertFile != "" || p.KeyFile != ""} {
		if set {
			kinds++
		}
	}
	if kinds > 1 {
		return errors.New("token, tokenFile, tokenCommand, oidc, certFile: give one of them")
	}
	if (p.CertFile == "") != (p.KeyFile == "") {
		return errors.New("certFile, keyFile: each is of no use without the other")
	}
	if p.OIDC == nil {
		return nil
	}
	if u, err := url.Parse(p.OIDC.Issuer); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errors.New("oidc.issuer: want the provider's URL, https://…")
	}
	if p.OIDC.ClientID == "" {
		return errors.New("oidc.clientID: required")
	}
	return nil
}

// resolve makes paths absolute.
func (p *Profile) resolve(dir string) {
	p.dir = dir
	paths := []*string{&p.HubCA, &p.TokenFile, &p.CertFile, &p.KeyFile, &p.Proxy.CA, &p.Proxy.CredentialsFile}
	if p.OIDC != nil {
		own := *p.OIDC
		p.OIDC = &own
		paths = append(paths, &own.CA, &own.ClientSecretFile)
	}
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// LoginPath is the file with the login at an OpenID Connect provider, and TokenPath that
// of a token that culvert login has read: secrets of a profile of the file in dir.
func LoginPath(dir, name string) string { return filepath.Join(dir, "credentials", name+".login") }

// TokenPath is described with [LoginPath].
func TokenPath(dir, name string) string { return filepath.Join(dir, "credentials", name+".token") }

// Source is where the profile's bearer token comes from. It is nil, without an error, for
// one with a client certificate. Without any credential it is a [*credential.Error].
func (p Profile) Source() (credential.Source, error) {
	switch p.Credential() {
	case CredentialToken:
		return credential.Static{Value: p.Token}, nil
	case CredentialFile:
		return credential.File{Path: p.TokenFile}, nil
	case CredentialCommand:
		return credential.Command{Line: p.TokenCommand}, nil
	case CredentialOIDC:
		return oidc.Source{Config: *p.OIDC, Path: LoginPath(p.dir, p.Name), Hub: p.Hub, Again: p.again()}, nil
	case CredentialCertificate:
		return nil, nil
	}
	if p.Name == "" {
		return nil, &credential.Error{Err: fmt.Errorf("no credential for %s: give --token-file, or set %s, %s or %s", p.Hub, EnvironmentToken, EnvironmentTokenFile, EnvironmentTokenCommand)}
	}
	return nil, &credential.Error{Err: fmt.Errorf("you are not logged in at %s: run %s", p.Hub, p.again())}
}

// again is the command that logs in again.
func (p Profile) again() string {
	return "culvert login " + p.Hub + " --profile " + p.Name
}
