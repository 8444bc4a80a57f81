package limit

import (
	"errors"
	"fmt"
	"math"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Defaults and bounds of [Config] and [Bounds].
const (
	DefaultKeys = 8192
	LeastKeys   = 16
	MostKeys    = 1 << 20
)

// Config has the bounds of all scopes. The JSON names are those of the
// configuration file. The zero Config bounds nothing.
type Config struct {
	// Remote is for one network before anybody is authenticated: an IPv4 address,
	// or a /64 of IPv6. User is for one user of the hub. Cluster is for one
	// cluster, all of its callers together. Each may be nil: no bounds.
	Remote  *Bounds `json:"remote,omitempty"`
	User    *Bounds `json:"user,omitempty"`
	Cluster *Bounds `json:"cluster,omitempty"`
	// Keys is how many networks, users and clusters each are told apart at a time.
	// Default 8192.
	Keys int `json:"keys,omitempty"`
	// Body is the largest body of a request, in bytes. Default: no bound; an API
	// server has its own.
	Body resource.Quantity `json:"body,omitzero"`
}

// Bounds are those of one key. A field that is 0 bounds nothing.
type Bounds struct {
	// RequestsPerSecond is the rate of requests and of opens of sessions; Burst
	// is how many may come at once. Default of Burst: the requests of one second,
	// at least 1.
	RequestsPerSecond float64 `json:"requestsPerSecond,omitempty"`
	Burst             int     `json:"burst,omitempty"`
	// Concurrent is how many requests may be under way.
	Concurrent int `json:"concurrent,omitempty"`
	// Sessions is how many sessions and upgraded requests may be open. They do
	// not count as Concurrent.
	Sessions int `json:"sessions,omitempty"`
}

// Validate names everything that is wrong, with the path of the field below that
// of the Config itself.
func (c *Config) Validate() error {
	var found []error
	for scope, b := range c.scopes() {
		if b != nil {
			found = append(found, b.validate(Scope(scope).String())...)
		}
	}
	if c.Keys != 0 && (c.Keys < LeastKeys || c.Keys > MostKeys) {
		found = append(found, fmt.Errorf("keys: %d: want %d to %d, or nothing for %d", c.Keys, LeastKeys, MostKeys, DefaultKeys))
	}
	if c.Body.Sign() < 0 {
		found = append(found, fmt.Errorf("body: %s: want a size, or nothing for no bound", c.Body.String()))
	}
	return errors.Join(found...)
}

func (c *Config) scopes() [scopes]*Bounds {
	return [scopes]*Bounds{Remote: c.Remote, User: c.User, Cluster: c.Cluster}
}

func (b *Bounds) validate(path string) []error {
	var found []error
	if r := b.RequestsPerSecond; r < 0 || math.IsNaN(r) || math.IsInf(r, 0) {
		found = append(found, fmt.Errorf("%s.requestsPerSecond: %v: want a number above 0, or nothing for no bound", path, r))
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"burst", b.Burst}, {"concurrent", b.Concurrent}, {"sessions", b.Sessions}} {
		if f.value < 0 {
			found = append(found, fmt.Errorf("%s.%s: %d: want a number above 0, or nothing for no bound", path, f.name, f.value))
		}
	}
	if b.Burst > 0 && b.RequestsPerSecond == 0 {
		found = append(found, fmt.Errorf("%s.burst: has no meaning without %s.requestsPerSecond", path, path))
	}
	return found
}

// burst returns the effective Burst.
func (b *Bounds) burst() int {
	if b.Burst > 0 {
		return b.Burst
	}
	return int(max(1, min(math.Ceil(b.RequestsPerSecond), math.MaxInt32)))
}
