package agent

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
)

// childState in the environment makes the test binary save to that folder until
// it is killed.
const childState = "CULVERT_TEST_SAVE_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childState); dir != "" {
		os.Exit(saveForever(dir))
	}
	goleak.VerifyTestMain(m)
}

func TestValidateNamesEveryField(t *testing.T) {
	good := Config{Hub: "hub.example.com:443", HubCA: "ca", Cert: "c", Key: "k"}
	for _, c := range []Config{good, {}, {State: "s"}, {State: "s", Hub: "hub.example.com:443", HubCA: SystemCA}, {Hub: "h:1", CertDir: "d"}} {
		if err := c.Validate(); err != nil {
			t.Errorf("a good configuration: %v", err)
		}
	}
	for title, c := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"a key alone":      {func(c *Config) { *c = Config{Key: "k"} }, []string{"hub: required", "hubCA: required", "cert: required"}},
		"a folder alone":   {func(c *Config) { *c = Config{CertDir: "d"} }, []string{"hub: required"}},
		"folder and file":  {func(c *Config) { c.CertDir = "d" }, []string{"cert, key, certDir: give two files or a folder"}},
		"two identities":   {func(c *Config) { c.State = "s" }, []string{"state, cert, key, certDir:", "somebody else renews"}},
		"proxy":            {func(c *Config) { c.Proxy.URL = "ftp://x" }, []string{"proxy: url:", "ftp"}},
		"metrics":          {func(c *Config) { c.MetricsListen = "9090" }, []string{"metricsListen: want host:port"}},
		"a scheme":         {func(c *Config) { c.Hub = "https://hub.example.com" }, []string{"hub: want host:port, without a scheme"}},
		"no port":          {func(c *Config) { c.Hub = "hub.example.com" }, []string{"hub: want host:port"}},
		"service rule":     {func(c *Config) { c.AllowServices = []string{"monitoring/prometheus", "web"} }, []string{"allowServices[1]", "web"}},
		"address rule":     {func(c *Config) { c.AllowAddresses = []string{"db"} }, []string{"allowAddresses[0]", "db"}},
		"two credentials":  {func(c *Config) { c.Kubernetes, c.Kubeconfig = &rest.Config{}, "k" }, []string{"kubeconfig, context:"}},
		"special address":  {func(c *Config) { c.SpecialAddresses = []string{"127.0.0.0/8", "::1", "lo"} }, []string{"specialAddresses[2]", "lo"}},
		"impersonation":    {func(c *Config) { c.Impersonation.Prefixes = []string{"system:"} }, []string{"impersonation: prefixes[0]"}},
		"debug":            {func(c *Config) { c.DebugListen = "6060" }, []string{"debugListen: want host:port"}},
		"traces":           {func(c *Config) { c.Telemetry.OTLPEndpoint = "collector" }, []string{"telemetry.otlpEndpoint"}},
		"negative timeout": {func(c *Config) { c.DrainTimeout.Duration = -1 }, []string{"drainTimeout:"}},
	} {
		t.Run(title, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			err := cfg.Validate()
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
}
