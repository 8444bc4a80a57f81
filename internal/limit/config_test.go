package limit

import (
	"math"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

func TestValidate(t *testing.T) {
	t.Run("every wrong field is named, all at once", func(t *testing.T) {
		_, err := New(Config{
			Remote:  &Bounds{RequestsPerSecond: -1, Concurrent: -1},
			User:    &Bounds{RequestsPerSecond: math.NaN(), Sessions: -1, Burst: -1},
			Cluster: &Bounds{Burst: 5},
			Keys:    1,
			Body:    resource.MustParse("-1"),
		})
		if err == nil {
			t.Fatal("no error")
		}
		for _, want := range []string{
			"remote.requestsPerSecond: -1: want", "remote.concurrent: -1: want", "user.requestsPerSecond: NaN: want",
			"user.sessions: -1: want", "user.burst: -1: want", "cluster.burst: has no meaning without cluster.requestsPerSecond",
			"keys: 1: want 16 to", "body: -1: want",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in\n%v", want, err)
			}
		}
	})
	t.Run("a configuration file has the fields", func(t *testing.T) {
		var cfg Config
		text := `
remote: {requestsPerSecond: 50, burst: 200}
user: {requestsPerSecond: 20.5, concurrent: 100, sessions: 50}
cluster: {requestsPerSecond: 1000}
keys: 1000
body: 16Mi
`
		if err := yaml.UnmarshalStrict([]byte(text), &cfg); err != nil {
			t.Fatal(err)
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
		if cfg.User.RequestsPerSecond != 20.5 || cfg.Remote.Burst != 200 || cfg.Body.Value() != 16<<20 {
			t.Errorf("%+v", cfg)
		}
	})
}

func TestNetwork(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:443":               "192.0.2.1",
		"[::ffff:192.0.2.1]:443":      "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1":    "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":            "fe80::/64",
		"pipe":                        "",
		"@":                           "",
		"":                            "",
		"192.0.2.1":                   "",
		"[2001:db8:1:2:ffff::1]:9999": "2001:db8:1:2::/64",
	} {
		if got := Network(remote); got != want {
			t.Errorf("%q: %q, want %q", remote, got, want)
		}
	}
}
