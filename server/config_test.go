package server

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValidateNamesEveryField(t *testing.T) {
	for title, c := range map[string]struct {
		cfg  Config
		want []string
	}{
		"nothing set":   {Config{}, []string{"state: required", "tokenFile, tokenReview: give at least one"}},
		"address":       {Config{State: "s", TokenFile: "t", Listen: []string{":1", "localhost"}}, []string{"listen[1]: want host:port"}},
		"agent address": {Config{State: "s", TokenFile: "t", AgentListen: []string{"8091"}}, []string{"agentListen[0]: want host:port"}},
		"half a pair":   {Config{State: "s", TokenFile: "t", TLSKey: "k"}, []string{"tlsCert: required with tlsKey"}},
		"trust domain":  {Config{State: "s", TokenFile: "t", TrustDomain: "Example.COM"}, []string{`trustDomain: "Example.COM"`}},
		"drain": {
			Config{State: "s", TokenFile: "t", DrainTimeout: metav1.Duration{Duration: -time.Second}},
			[]string{"drainTimeout: -1s is negative"},
		},
		"two review clusters": {
			Config{State: "s", TokenReview: &TokenReview{Kubeconfig: "k", InCluster: true}},
			[]string{"tokenReview"},
		},
		"several": {Config{Listen: []string{"x"}, TLSKey: "k"}, []string{"listen[0]:", "tlsCert: required", "state:", "tokenFile"}},
	} {
		t.Run(title, func(t *testing.T) {
			err := c.cfg.Validate()
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	good := Config{State: "s", TokenFile: "t", Listen: []string{":6443"}}
	if err := good.Validate(); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
}

func TestConfigFileIsStrict(t *testing.T) {
	var cfg Config
	if err := yaml.UnmarshalStrict([]byte("state: /s\ndrainTimeout: 1m30s\ntokenReview: {inCluster: true}\n"), &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.DrainTimeout.Duration != 90*time.Second || !cfg.TokenReview.InCluster {
		t.Errorf("read %+v", cfg)
	}
	for _, bad := range []string{"state: /s\nlisten_: x\n", "state: /s\nstate: /t\n", "tlsNames: localhost\n"} {
		if err := yaml.UnmarshalStrict([]byte(bad), &Config{}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestNewFreesEverythingOnFailure(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{
		State: filepath.Join(dir, "state"), TokenFile: filepath.Join(dir, "missing.csv"),
		Listen: []string{"127.0.0.1:0"}, Logger: slog.New(slog.DiscardHandler),
	}
	for range 2 { // a second start would find the store locked
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "missing.csv") {
			t.Fatalf("got %v", err)
		}
	}
}

func TestDialContextRefusesWhatIsNoAddress(t *testing.T) {
	s := &Server{}
	for _, c := range [][2]string{
		{"udp", "db:5432"}, {"tcp", "db"}, {"tcp", "db:0"}, {"tcp", "db:65536"}, {"tcp", "db:http"}, {"tcp", "db:-1"}, {"unix", "/x"},
	} {
		_, err := s.DialContext(t.Context(), "edge-1", c[0], c[1])
		f := fault.As(err)
		if f == nil || f.Code != wire.CodeInvalidTarget || f.Cluster != "edge-1" || errors.Unwrap(f) == nil {
			t.Errorf("%s %s: %v", c[0], c[1], err)
		}
	}
}
