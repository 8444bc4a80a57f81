package server

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/front/connect"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
)

// Connect says where HTTP CONNECT leads to. It is served on Config.Listen, and on
// listeners of its own.
type Connect struct {
	// Listen are addresses that serve CONNECT alone, over TLS; ":3128" is what SPICE
	// clients expect. Default none.
	Listen []string `json:"listen,omitempty"`
	// PlainListen are addresses that serve CONNECT alone, in clear text, for clients
	// that know no HTTPS proxy: credentials and bytes can be read on the way. Default
	// none.
	PlainListen []string `json:"plainListen,omitempty"`
	// PlainAllowFrom are the networks, as CIDRs, whose clients PlainListen serves.
	// Required with PlainListen.
	PlainAllowFrom []string `json:"plainAllowFrom,omitempty"`
	// Routes say which cluster has a host. Default: no host is in any.
	Routes []ConnectRoute `json:"routes,omitempty"`
	// Ports are those that routes lead to, and WebSockets: numbers, ranges, and the
	// sets that policies have. Default "consoles" and "ssl".
	Ports []string `json:"ports,omitempty"`
	// Anonymous takes clients without a credential in, as system:anonymous, whom rules
	// of the policy have to name. Default no.
	Anonymous bool `json:"anonymous,omitempty"`
	// IdleTimeout cuts a connection over which nothing goes. Default 24 h.
	IdleTimeout metav1.Duration `json:"idleTimeout,omitzero"`
}

// ConnectRoute sends hosts to a cluster.
type ConnectRoute = connect.Rule

// WebSocket is about raw TCP over WebSocket, which is served on Config.Listen, and
// on listeners of its own. Connect.Ports bounds it.
type WebSocket struct {
	// Listen are addresses that serve WebSockets alone, over TLS; ":6100" is common
	// for consoles. Default none.
	Listen []string `json:"listen,omitempty"`
	// IdleTimeout cuts a connection over which nothing goes. Default 24 h.
	IdleTimeout metav1.Duration `json:"idleTimeout,omitzero"`
}

// DefaultConnectPorts are those of Connect.Ports.
func DefaultConnectPorts() []string { return []string{"consoles", "ssl"} }

// connectSettings are the parts of a configuration, read.
type connectSettings struct {
	routes    *connect.Routes
	ports     policy.Ports
	plainFrom []netip.Prefix
}

// connectSettings reads what Connect and WebSocket say.
func (c *Config) connectSettings() (connectSettings, []error) {
	cfg, ws := cmp.Or(c.Connect, &Connect{}), cmp.Or(c.WebSocket, &WebSocket{})
	var s connectSettings
	var problems []error
	fail := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, list := range []struct {
		field  string
		values []string
	}{{"connect.listen", cfg.Listen}, {"connect.plainListen", cfg.PlainListen}, {"websocket.listen", ws.Listen}} {
		for i, value := range list.values {
			if _, _, err := net.SplitHostPort(value); err != nil {
				fail("%s[%d]: want host:port or :port: %w", list.field, i, err)
			}
		}
	}
	if len(cfg.PlainListen) > 0 && len(cfg.PlainAllowFrom) == 0 {
		problems = append(problems, errors.New("connect.plainAllowFrom: required with connect.plainListen: the networks, as CIDRs, whose clients may send credentials in clear text"))
	}
	for i, text := range cfg.PlainAllowFrom {
		network, err := route.ParseNetwork(text)
		if err != nil {
			fail("connect.plainAllowFrom[%d]: %w", i, err)
		}
		s.plainFrom = append(s.plainFrom, network)
	}
	var err error
	if s.routes, err = connect.NewRoutes(cfg.Routes); err != nil {
		problems = append(problems, indexed("connect.routes", err)...)
	}
	ports := cfg.Ports
	if len(ports) == 0 {
		ports = DefaultConnectPorts()
	}
	if s.ports, err = policy.ParsePorts(ports); err != nil {
		problems = append(problems, indexed("connect.ports", err)...)
	}
	if cfg.IdleTimeout.Duration < 0 {
		fail("connect.idleTimeout: %v is negative", cfg.IdleTimeout.Duration)
	}
	if ws.IdleTimeout.Duration < 0 {
		fail("websocket.idleTimeout: %v is negative", ws.IdleTimeout.Duration)
	}
	return s, problems
}

// indexed puts the path of a list before each problem of its elements, which begin
// with an index.
func indexed(path string, err error) []error {
	problems := prefixed(path, err)
	for i, problem := range problems {
		problems[i] = errors.New(strings.Replace(problem.Error(), path+".[", path+"[", 1))
	}
	return problems
}
