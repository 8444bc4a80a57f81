package balance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"
)

// Defaults of [Config]: those of a readiness probe of Kubernetes
// (https://kubernetes.io/docs/concepts/workloads/pods/probes/), but for the
// timeout, since an API server under load answers late and works.
const (
	DefaultInterval = 10 * time.Second
	DefaultTimeout  = 5 * time.Second
	DefaultRise     = 1
	DefaultFall     = 3
)

// MaxEndpoints bounds the endpoints of a [Set], those that names stand for
// included.
const MaxEndpoints = 64

// Method is a way to choose among endpoints that work.
type Method string

// The methods.
const (
	// LeastOutstanding takes the endpoint with the least work under way; among
	// equals they take turns. It is the default.
	LeastOutstanding Method = "leastoutstanding"
	// RoundRobin takes one after the other, whatever they have to do.
	RoundRobin Method = "roundrobin"
	// Random2 takes the one with less to do of two that are drawn at random.
	Random2 Method = "random2"
)

// Config sets up a [Set]. It is copied by [New].
type Config struct {
	// Endpoints are host:port, without repetition: at least one.
	Endpoints []string
	// Method is how one is chosen; default [LeastOutstanding].
	Method Method
	// Probe asks one endpoint whether it works; nil means it does. Its context ends
	// after Timeout. It is called for several endpoints at a time, and for each once
	// at a time. Without a Probe all endpoints count as working.
	Probe func(ctx context.Context, address string) error
	// Interval is the time between two probes of one endpoint; Timeout is how long
	// one may take. Defaults 10 s and 5 s.
	Interval, Timeout time.Duration
	// Rise and Fall are how many probes in a row bring an endpoint back and take it
	// out. Defaults 1 and 3.
	Rise, Fall int
	// Resolve returns the addresses of a name, without ports. Nil: names stay as
	// they are, for whoever dials.
	Resolve func(ctx context.Context, host string) ([]string, error)
	// Changed is called when Ready, or why not, is another than before: one call at
	// a time, in the order of the changes. It must not block, nor call the Set. It
	// may be nil.
	Changed func(State)
	// Logger gets a line when an endpoint fails and when it is back. It is required.
	Logger *slog.Logger
}

// Validate names everything that is wrong, with the field.
func (c *Config) Validate() error {
	var problems []error
	if len(c.Endpoints) == 0 {
		problems = append(problems, errors.New("endpoints: at least one is needed"))
	}
	if err := CheckEndpoints(c.Endpoints); err != nil {
		problems = append(problems, fmt.Errorf("endpoints: %w", err))
	}
	if err := CheckMethod(c.Method); err != nil {
		problems = append(problems, fmt.Errorf("method: %w", err))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"interval", c.Interval}, {"timeout", c.Timeout}} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("%s: %v is negative", d.name, d.value))
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"rise", c.Rise}, {"fall", c.Fall}} {
		if n.value < 0 {
			problems = append(problems, fmt.Errorf("%s: %d is negative", n.name, n.value))
		}
	}
	if c.Logger == nil {
		problems = append(problems, errors.New("logger: required"))
	}
	return errors.Join(problems...)
}

// CheckEndpoints reports what is no host:port, or there twice.
func CheckEndpoints(endpoints []string) error {
	var problems []error
	if len(endpoints) > MaxEndpoints {
		problems = append(problems, fmt.Errorf("%d where %d are allowed", len(endpoints), MaxEndpoints))
	}
	seen := make(map[string]bool)
	for i, endpoint := range endpoints {
		host, port, err := net.SplitHostPort(endpoint)
		number, numberErr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || host == "" || numberErr != nil || number == 0:
			problems = append(problems, fmt.Errorf("[%d]: %.64q: want host:port, without a scheme", i, endpoint))
		case seen[endpoint]:
			problems = append(problems, fmt.Errorf("[%d]: %s is there twice", i, endpoint))
		}
		seen[endpoint] = true
	}
	return errors.Join(problems...)
}

// CheckMethod reports a method that does not exist; none stands for the default.
func CheckMethod(m Method) error {
	switch m {
	case "", LeastOutstanding, RoundRobin, Random2:
		return nil
	default:
		return fmt.Errorf("%.64q: want %s, %s or %s", string(m), LeastOutstanding, RoundRobin, Random2)
	}
}

func (c Config) withDefaults() Config {
	setDefault(&c.Method, LeastOutstanding)
	setDefault(&c.Interval, DefaultInterval)
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.Rise, DefaultRise)
	setDefault(&c.Fall, DefaultFall)
	return c
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
