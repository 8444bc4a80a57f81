package agent

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/client-go/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValidateNamesEveryField(t *testing.T) {
	good := Config{Hub: "hub.example.com:443", HubCA: "ca", Cert: "c", Key: "k"}
	if err := good.Validate(); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for title, c := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"nothing set":      {func(c *Config) { *c = Config{} }, []string{"hub: required", "hubCA: required", "cert: required", "key: required"}},
		"a scheme":         {func(c *Config) { c.Hub = "https://hub.example.com" }, []string{"hub: want host:port, without a scheme"}},
		"no port":          {func(c *Config) { c.Hub = "hub.example.com" }, []string{"hub: want host:port"}},
		"service rule":     {func(c *Config) { c.AllowServices = []string{"monitoring/prometheus", "web"} }, []string{"allowServices[1]", "web"}},
		"address rule":     {func(c *Config) { c.AllowAddresses = []string{"db"} }, []string{"allowAddresses[0]", "db"}},
		"two credentials":  {func(c *Config) { c.Kubernetes, c.Kubeconfig = &rest.Config{}, "k" }, []string{"kubeconfig, context:"}},
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
