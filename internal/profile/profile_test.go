package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/internal/credential"
	"github.com/culvertdev/culvert/internal/credential/oidc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	path := filepath.Join(dir, "config.yaml")
	t.Setenv(EnvironmentFile, path)
	t.Setenv(EnvironmentProfile, "")
	f, err := Load("")
	if err != nil || f.Path() != path {
		t.Fatalf("%v %v", f, err)
	}
	if _, err := f.Get(""); err == nil || !strings.Contains(err.Error(), "culvert login https://HUB") {
		t.Errorf("%v", err)
	}
	t.Run("writers at the same time lose nothing", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				err := Update(t.Context(), "", func(f *File) error {
					f.Set(Profile{Name: fmt.Sprintf("p%d", i), Hub: "https://hub.example.com", TokenFile: "me.token", HubCA: "/ca.crt"})
					f.Current = "p7"
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if f, err = Load(""); err != nil || len(f.Profiles) != 20 {
			t.Fatalf("%d %v", len(f.Profiles), err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
	})
	t.Run("paths are taken from the file's folder", func(t *testing.T) {
		p, err := f.Get("")
		if err != nil || p.Name != "p7" || p.TokenFile != filepath.Join(dir, "me.token") || p.HubCA != "/ca.crt" || f.Profiles[f.index("p7")].TokenFile != "me.token" {
			t.Errorf("%v %v", p, err)
		}
	})
	t.Run("a name, the environment and the current one, in that order", func(t *testing.T) {
		t.Setenv(EnvironmentProfile, "p3")
		for name, want := range map[string]string{"": "p3", "p4": "p4"} {
			if p, err := f.Get(name); err != nil || p.Name != want {
				t.Errorf("%v %v", p, err)
			}
		}
		if _, err := f.Get("none"); !errors.As(err, new(*MissingError)) || !strings.Contains(err.Error(), `"none"`) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a link to the file stays one", func(t *testing.T) {
		link := filepath.Join(dir, "link.yaml")
		if err := os.Symlink("config.yaml", link); err != nil {
			t.Fatal(err)
		}
		if err := Update(t.Context(), link, func(f *File) error { f.Current = "p8"; return nil }); err != nil {
			t.Fatal(err)
		}
		if target, err := os.Readlink(link); err != nil || target != "config.yaml" {
			t.Errorf("%q %v", target, err)
		}
		if again, err := Load(path); err != nil || again.Current != "p8" {
			t.Errorf("%v %v", again, err)
		}
	})
	t.Run("a profile is deleted, and is then not the current one", func(t *testing.T) {
		if f.Delete("none") || !f.Delete("p7") || f.Current != "" || f.Save() != nil {
			t.Error("p7 is there")
		}
	})
}

func TestStrict(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	head := "apiVersion: config.culvert.dev/v1\nkind: Profiles\n"
	for text, says := range map[string]string{
		"profiles: []\n":                                    "apiVersion, kind",
		head + "profile: []\n":                              "unknown field",
		head + "current: a\ncurrent: b\n":                   "already set",
		head + "profiles: [{name: ../a, hub: https://h}]\n": "profiles[0]: name",
		head + "profiles: [{name: a, hub: https://h}, {name: a, hub: https://h}]\n":                                   "is there twice",
		head + "profiles: [{name: a, hub: http://h}]\n":                                                               "hub: want https://",
		head + "profiles: [{name: a, hub: https://h/x}]\n":                                                            "hub: want https://",
		head + "profiles: [{name: a, hub: https://h, token: x}]\n":                                                    "unknown field",
		head + "profiles: [{name: a, hub: https://h, tokenFile: a, tokenCommand: b}]\n":                               "give one of them",
		head + "profiles: [{name: a, hub: https://h, certFile: a}]\n":                                                 "certFile, keyFile",
		head + "profiles: [{name: a, hub: https://h, hubCA: a, insecureSkipTLSVerify: true}]\n":                       "hubCA, hubCAData",
		head + "profiles: [{name: a, hub: https://h, oidc: {issuer: 'http://x', clientID: a}}]\n":                     "oidc.issuer",
		head + "profiles: [{name: a, hub: https://h, oidc: {issuer: 'https://x'}}]\n":                                 "oidc.clientID",
		head + "profiles: [{name: a, hub: https://h, proxy: {url: 'http://user:SECRET@proxy:3128'}}]\n":               "holds no secret",
		head + "profiles: [{name: a, hub: https://h, proxy: {url: none, ca: a}}]\n":                                   "proxy: ",
		head + "profiles: [{name: a, hub: https://h, oidc: {issuer: 'https://x', clientID: a, clientSecret: 'x'}}]\n": "unknown field",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

func TestSource(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CULVERT_TOKEN", "")
	for _, p := range []Profile{
		{Name: "a", TokenFile: "f"}, {Name: "a", TokenCommand: "c"}, {Name: "a", OIDC: &oidc.Config{Issuer: "https://i", ClientID: "c"}}, {Token: "SECRET"},
	} {
		p.Hub = "https://hub.example.com"
		p.resolve(dir)
		source, err := p.Source()
		if err != nil || source == nil {
			t.Errorf("%v: %v", p, err)
		}
		if text := fmt.Sprintf("%v %+v %#v %v", p, p, p, source); strings.Contains(text, "SECRET") {
			t.Error(text)
		}
	}
	if source, err := (Profile{Name: "a", CertFile: "c", KeyFile: "k"}).Source(); source != nil || err != nil {
		t.Errorf("%v %v", source, err)
	}
	for _, p := range []Profile{{Name: "a", Hub: "https://hub"}, {Hub: "https://hub"}} {
		if _, err := p.Source(); !errors.As(err, new(*credential.Error)) || !strings.Contains(err.Error(), "https://hub") {
			t.Errorf("%v", err)
		}
	}
	oidcProfile := Profile{Name: "a", Hub: "https://hub", OIDC: &oidc.Config{Issuer: "https://i", ClientID: "c"}, dir: dir}
	source, err := oidcProfile.Source()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Fetch(t.Context()); !errors.As(err, new(*credential.Error)) || err.Error() != "you are not logged in at https://hub: run culvert login https://hub --profile a" {
		t.Errorf("%v", err)
	}
}

func TestEnvironment(t *testing.T) {
	set := func(t *testing.T, pairs ...string) {
		for _, name := range []string{EnvironmentHub, EnvironmentHubCA, EnvironmentToken, EnvironmentTokenFile, EnvironmentTokenCommand, EnvironmentClientCert, EnvironmentClientKey} {
			t.Setenv(name, "")
		}
		for i := 0; i < len(pairs); i += 2 {
			t.Setenv(pairs[i], pairs[i+1])
		}
	}
	set(t, EnvironmentToken, "x")
	if _, ok, err := FromEnvironment(); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	set(t, EnvironmentHub, "https://hub:8443/", EnvironmentHubCA, "ca.crt", EnvironmentToken, "x")
	if p, ok, err := FromEnvironment(); !ok || err != nil || p.Hub != "https://hub:8443" || p.HubCA != "ca.crt" || p.Token != "x" {
		t.Errorf("%v %v %v", p, ok, err)
	}
	set(t, EnvironmentHub, "hub", EnvironmentToken, "x")
	if _, _, err := FromEnvironment(); err == nil || !strings.Contains(err.Error(), "CULVERT_HUB: want https://") {
		t.Errorf("%v", err)
	}
	for _, pair := range [][]string{{EnvironmentTokenFile, "a"}, {EnvironmentClientCert, "a"}} {
		set(t, append(pair, EnvironmentHub, "https://hub", EnvironmentToken, "SECRET")...)
		if _, _, err := FromEnvironment(); err == nil || !strings.Contains(err.Error(), "give one of them") || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%v", err)
		}
	}
	set(t, EnvironmentHub, "https://hub", EnvironmentClientCert, "a")
	if _, _, err := FromEnvironment(); err == nil {
		t.Error("a certificate without a key is taken")
	}
}
