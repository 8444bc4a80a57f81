package client_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/client"
)

// profiles is a file of the command line with two profiles.
const profiles = `apiVersion: config.culvert.dev/v1
kind: Profiles
current: work
profiles:
- {name: work, hub: "https://work.example.com", tokenFile: /run/token}
- {name: home, hub: "https://home.example.com:8443", tokenFile: /run/token}
`

func TestWhichHub(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(profiles), 0o600); err != nil {
		t.Fatal(err)
	}
	explicit := client.Config{Hub: "https://code.example.com", Token: "x"}
	environment := map[string]string{"CULVERT_HUB": "https://env.example.com", "CULVERT_TOKEN": "secret"}
	for _, tt := range []struct {
		name string
		cfg  client.Config
		env  map[string]string
		want string // the hub, or what the error says
	}{
		{"the Config is before the environment and the file", explicit, environment, "https://code.example.com"},
		{"a profile that is named is before the environment", client.Config{Profile: "home"}, environment, "https://home.example.com:8443"},
		{"the environment is before the current profile", client.Config{}, environment, "https://env.example.com"},
		{"the current profile", client.Config{}, nil, "https://work.example.com"},
		{"the profile that the environment names", client.Config{}, map[string]string{"CULVERT_PROFILE": "home"}, "https://home.example.com:8443"},
		{"a Config's hub has no credential of the environment", client.Config{Hub: "https://code.example.com"}, environment, "token"},
		{"the environment's hub has no credential of the file", client.Config{}, map[string]string{"CULVERT_HUB": "https://env.example.com"}, "token"},
		{"a hub and a profile", client.Config{Hub: "https://code.example.com", Profile: "home", Token: "x"}, nil, "hub, profile: give one of them"},
		{"a profile that is not there", client.Config{Profile: "other"}, nil, "other"},
		{"two credentials", client.Config{Hub: "https://code.example.com", Token: "x", TokenFile: "y"}, nil, "give one of them"},
		{"a token without its hub", client.Config{Token: "secret"}, environment, "hub: required"},
		{"a CA without its hub", client.Config{HubCAData: []byte("x")}, nil, "hub: required"},
		{"a proxy beside a profile", client.Config{Profile: "home", Proxy: client.Proxy{URL: "none"}}, nil, "hub: required"},
		{"half of a certificate", client.Config{Hub: "https://code.example.com", CertFile: "x"}, nil, "each is of no use without the other"},
		{"two CAs", client.Config{Hub: "https://code.example.com", Token: "x", HubCA: "y", HubCAData: []byte("z")}, nil, "hubCA, hubCAData: give one of them"},
		{"a hub in the clear", client.Config{Hub: "http://code.example.com", Token: "x"}, nil, "hub: "},
		{"a hub with a path", client.Config{Hub: "https://code.example.com/edge-1", Token: "x"}, nil, "hub: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{"CULVERT_HUB", "CULVERT_HUB_CA", "CULVERT_TOKEN", "CULVERT_TOKEN_FILE", "CULVERT_TOKEN_COMMAND", "CULVERT_CLIENT_CERT", "CULVERT_CLIENT_KEY", "CULVERT_PROFILE"} {
				t.Setenv(name, tt.env[name])
			}
			t.Setenv("CULVERT_CONFIG", path)
			c, err := client.New(tt.cfg)
			if err != nil {
				if strings.HasPrefix(tt.want, "https://") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			defer c.Close()
			if c.Hub() != tt.want {
				t.Errorf("got %s, want %s", c.Hub(), tt.want)
			}
		})
	}
	t.Run("a Config that is printed has no credential in it", func(t *testing.T) {
		cfg := client.Config{Hub: "https://code.example.com", Token: "secret", TokenCommand: "secret"}
		if text := fmt.Sprintf("%v %+v %#v %v", cfg, cfg, cfg, cfg.LogValue()); strings.Contains(text, "secret") {
			t.Error(text)
		}
	})
}
