package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/culvertdev/culvert/agent"
	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/server"
)

// devUser is whom the token of the development hub stands for.
const devUser = "dev"

type devOptions struct {
	upstream, cluster, listen, state string
	services, addresses              []string
	logging                          cli.Logging
}

func devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a hub and an agent in one process, for development",
		Long: `Run a hub and an agent in one process, with CAs of their own and one token, and
print how to reach the upstream through them. The upstream is a context of your
kubeconfig or any URL; without one it is a page that shows what arrives.

This is for development only and MUST NOT be used in production: the token does
not expire, and everything is in one process.`,
		Example: `  culvert dev
  culvert dev --upstream kind-edge --cluster edge-1
  culvert dev --upstream http://127.0.0.1:9090`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDev(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.upstream, "upstream", "", "context of your kubeconfig, or a URL (default: a page that shows what arrives)")
	f.StringVar(&o.cluster, "cluster", "dev", "name of the cluster at the hub")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address of the hub")
	f.StringVar(&o.state, "state", "", "folder for CAs, token and kubeconfig (default: culvert/dev in $XDG_STATE_HOME or ~/.local/state)")
	f.StringArrayVar(&o.services, "allow-service", nil, "service that may be reached, namespace/name[:port] (repeat)")
	f.StringArrayVar(&o.addresses, "allow-address", nil, "TCP address that may be reached, host:port (repeat)")
	o.logging.Bind(f)
	completeWords(cmd, "log-format", "text", "json")
	completeWords(cmd, "log-level", "debug", "info", "warn", "error")
	return cmd
}

// runDev runs until ctx ends.
func runDev(ctx context.Context, out io.Writer, o devOptions) (err error) {
	log, err := o.logging.Logger(os.Stderr)
	if err != nil {
		return err
	}
	log.Warn("culvert dev is for development only and must not be used in production")
	if o.state == "" {
		if o.state, err = devState(); err != nil {
			return err
		}
	}
	if o.state, err = filepath.Abs(o.state); err != nil {
		return fmt.Errorf("--state: %w", err)
	}
	upstream, stop, err := devUpstream(ctx, o.upstream)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	d, err := newDev(ctx, o, upstream, log)
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- d.hub.Run(run) }()
	go func() { ended <- d.agent.Run(run) }()
	ready := make(chan struct{})
	go func() { d.awaitAgent(run); close(ready) }()
	var first error
	left := 2
	select {
	case <-ready:
		if ctx.Err() == nil {
			first = d.explain(out, o)
		}
		if first == nil {
			first = <-ended // the end of ctx ends both
			left--
		}
	case first = <-ended:
		left--
	}
	cancel()
	<-ready
	for range left {
		first = errors.Join(first, <-ended)
	}
	return first
}

// devState returns the default state folder (XDG base directory specification).
func devState() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "culvert", "dev"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no default for --state: %w", err)
	}
	return filepath.Join(home, ".local", "state", "culvert", "dev"), nil
}

// devUpstream returns what the agent of the development hub reaches, and how to
// end it.
func devUpstream(ctx context.Context, upstream string) (*rest.Config, func() error, error) {
	nothing := func() error { return nil }
	switch {
	case upstream == "":
		address, stop, err := servePage(ctx)
		if err != nil {
			return nil, nil, err
		}
		return &rest.Config{Host: "http://" + address}, stop, nil
	case strings.Contains(upstream, "://"):
		if !strings.HasPrefix(upstream, "http://") && !strings.HasPrefix(upstream, "https://") {
			return nil, nil, fmt.Errorf("--upstream: %q: want http:// or https://, or a context of your kubeconfig", upstream)
		}
		return &rest.Config{Host: upstream}, nothing, nil
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(),
		&clientcmd.ConfigOverrides{CurrentContext: upstream},
	).ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("--upstream: %w", err)
	}
	return cfg, nothing, nil
}

// dev is a hub and an agent that belong together.
type dev struct {
	hub   *server.Server
	agent *agent.Agent
	token string
}

// devPolicy lets the one caller reach whatever the agent allows.
const devPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: what-the-agent-allows
  effect: allow
  services: [{namespace: "*", name: "*"}]
  tcp:
  - {hosts: ["*"], ports: ["*"]}
  - {cidrs: ["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128"], ports: ["*"]}
`

// devTokenFile is the token alone, for culvert login.
func devTokenFile(state string) string { return filepath.Join(state, "token") }

func newDev(ctx context.Context, o devOptions, upstream *rest.Config, log *slog.Logger) (*dev, error) {
	d := &dev{}
	if err := os.MkdirAll(o.state, 0o700); err != nil {
		return nil, fmt.Errorf("--state: %w", err)
	}
	tokens := filepath.Join(o.state, "tokens.csv")
	var err error
	if d.token, err = devToken(tokens); err != nil {
		return nil, err
	}
	if err := saveToken(devTokenFile(o.state), d.token); err != nil {
		return nil, fmt.Errorf("token of the development hub: %w", err)
	}
	certs := filepath.Join(o.state, "agent")
	if err := issueAgent(o.state, server.DefaultTrustDomain, o.cluster, certs, pki.DefaultLifetime); err != nil {
		return nil, err
	}
	// Here the agent's rules, which are the flags, decide alone.
	rules := filepath.Join(o.state, "policy.yaml")
	if err := os.WriteFile(rules, []byte(devPolicy), 0o600); err != nil {
		return nil, fmt.Errorf("--state: %w", err)
	}
	d.hub, err = server.New(ctx, server.Config{
		Listen: []string{o.listen}, State: o.state, TokenFile: tokens, Policy: &server.Policy{File: rules}, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	d.agent, err = agent.New(agent.Config{
		Hub: d.hub.Addr().String(), HubCA: filepath.Join(certs, "ca.crt"), HubName: "localhost",
		Cert: filepath.Join(certs, "tls.crt"), Key: filepath.Join(certs, "tls.key"),
		AllowServices: o.services, AllowAddresses: o.addresses, Kubernetes: upstream, Logger: log,
	})
	if err != nil {
		return nil, errors.Join(err, d.hub.Close())
	}
	return d, nil
}

// devToken returns the token of the state folder, made at the first start.
func devToken(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		raw = fmt.Appendf(nil, "%s,%s,%s,\n", rand.Text(), devUser, devUser)
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("token of the development hub: %w", err)
	}
	token, _, ok := strings.Cut(string(raw), ",")
	if !ok {
		return "", fmt.Errorf("token of the development hub: %s is damaged, remove it for a new one", file)
	}
	return token, nil
}

// awaitAgent returns when the agent is connected or ctx ends.
func (d *dev) awaitAgent(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(d.hub.Agents()) == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// quote makes one word for a shell of a path that has more than plain characters.
func quote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// explain prints how to use what runs, and writes a kubeconfig for it.
func (d *dev) explain(out io.Writer, o devOptions) error {
	ca := filepath.Join(server.PKIDir(o.state), pki.RoleServing+"-ca.crt")
	kubeconfig := filepath.Join(o.state, "kubeconfig")
	_, port, err := net.SplitHostPort(d.hub.Addr().String())
	if err != nil {
		return fmt.Errorf("address of the hub: %w", err)
	}
	url := "https://" + net.JoinHostPort("localhost", port) + "/" + o.cluster
	cfg := api.NewConfig()
	cfg.Clusters[o.cluster] = &api.Cluster{Server: url, CertificateAuthority: ca}
	cfg.AuthInfos[devUser] = &api.AuthInfo{Token: d.token}
	cfg.Contexts[o.cluster] = &api.Context{Cluster: o.cluster, AuthInfo: devUser}
	cfg.CurrentContext = o.cluster
	if err := clientcmd.WriteToFile(*cfg, kubeconfig); err != nil {
		return fmt.Errorf("kubeconfig of the development hub: %w", err)
	}
	authority, err := pki.LoadBundle(ca)
	if err != nil {
		return fmt.Errorf("CA of the development hub: %w", err)
	}
	fingerprint := pki.Fingerprint(authority.Certificates()[0])
	path, ask := "/api/v1/namespaces/default/pods", "get pods"
	switch { // what is no Kubernetes API answers plain paths only
	case o.upstream == "":
		path = "/hello?from=culvert"
		ask = "get --raw '" + path + "'"
	case strings.Contains(o.upstream, "://"):
		path = "/"
		ask = "get --raw /"
	}
	_, err = fmt.Fprintf(out, `
Culvert is running, for development only.

  url    %s
  ca     %s
         SHA-256 %s
  token  %s

  curl --cacert %s -H "Authorization: Bearer %s" '%s%s'
  kubectl --kubeconfig %s %s
  culvert login https://localhost:%s --hub-ca %s --token-file %s

At the upstream you are the user "cluster:hub:%s". Give it rights there, for example:

  kubectl create clusterrolebinding culvert-dev --clusterrole=view --user=cluster:hub:%s

Ctrl-C ends it.
`, url, ca, fingerprint, d.token, quote(ca), d.token, url, path, quote(kubeconfig), ask, port, quote(ca), quote(devTokenFile(o.state)), devUser, devUser)
	return err
}
