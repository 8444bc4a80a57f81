package subject

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	userinfo "k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/wire"
	"github.com/culvertdev/culvert/server"
)

// Bare is Culvert without what a hub does about access: nobody is authenticated,
// mapped, decided about or recorded. Beside [Culvert], whose hub has a policy of
// some rules and an audit file, it shows what that costs in requests per second.
type Bare struct{}

var _ Tunnel = Bare{}

// Name implements [Tunnel].
func (Bare) Name() string { return "culvert-bare" }

// Start implements [Tunnel].
func (b Bare) Start(ctx context.Context, env *Env) (*Subject, error) {
	s, err := Culvert{}.Start(ctx, env)
	if err != nil {
		return nil, err
	}
	s.Name, s.Web, s.Kube = b.Name(), bareWeb(env, s), nil
	return s, nil
}

// bareWeb is the way of a Culvert that runs by its bare port.
func bareWeb(env *Env, s *Subject) *load.Web {
	return &load.Web{URL: strings.Replace(s.Web.URL, s.hub.Hub, s.hub.Bare, 1), Roots: env.Roots, Header: http.Header{}}
}

// rulesBeside is how many rules the policy has that are about others.
const rulesBeside = 100

// policyText is a policy like those that people have: rules for many, one of which
// lets the user of the benchmark reach its service.
func policyText() string {
	var b strings.Builder
	b.WriteString("apiVersion: policy.culvert.dev/v1\nkind: Policy\nrules:\n")
	for i := range rulesBeside {
		fmt.Fprintf(&b, "- {name: team-%d, effect: allow, groups: [team-%d], services: [{namespace: team-%d, name: \"*\"}]}\n", i, i, i)
	}
	fmt.Fprintf(&b, "- {name: bench, effect: allow, users: [%s], clusters: {names: [%s]}, services: [{namespace: %s, name: %s}]}\n",
		user, cluster, serviceNamespace, serviceName)
	return b.String()
}

// bare is the port that asks nobody.
type bare struct {
	listener net.Listener
	front    *https.Handler
	server   *http.Server
}

func newBare(hub *server.Server, cfg hubConfig) (*bare, error) {
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("bare port: %w", err)
	}
	who := identity.Caller{User: &userinfo.DefaultInfo{Name: user}}
	mapped := identity.Impersonation{User: identity.DefaultPrefix + user}
	front, err := https.New(https.Config{
		Dial: func(ctx context.Context, cluster string, t wire.Target) (net.Conn, error) {
			return hub.DialService(ctx, cluster, server.Service{Namespace: t.Namespace, Name: t.Name, Port: t.Port, Scheme: t.Scheme})
		},
		Identify: func(*http.Request, string) (identity.Caller, error) { return who, nil },
		Map:      func(userinfo.Info) (identity.Impersonation, error) { return mapped, nil },
		Policy:   everything{}, Logger: logger(), // both write their lines
	})
	if err != nil {
		return nil, err
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(cfg.Host, "0"), &tls.Config{
		Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		front.Close()
		return nil, fmt.Errorf("bare port: %w", err)
	}
	return &bare{listener: listener, front: front, server: front.Server()}, nil
}

// serve ends with close.
func (b *bare) serve() {
	if err := b.server.Serve(b.listener); !errors.Is(err, http.ErrServerClosed) {
		slog.Default().Error("bare port", "reason", err)
	}
}

func (b *bare) close() error {
	err := b.server.Close()
	b.front.Close()
	return err
}

// everything is allowed.
type everything struct{}

// Authorize implements [policy.Authorizer].
func (everything) Authorize(context.Context, policy.Request) (policy.Decision, error) {
	return policy.Decision{Allowed: true}, nil
}
