package testbed

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// KubeContext is a cluster and a user in a kubeconfig.
type KubeContext struct {
	// Name is that of the context, its cluster and its user.
	Name string
	// Server is the URL, CA the PEM text of what verifies it.
	Server string
	CA     []byte
	// Token is the user's bearer token; empty means no credential.
	Token string
	// ProxyURL is an HTTP proxy, and ServerName what the server's certificate is held
	// against; both may be empty. client-go uses CA and ServerName for an https proxy,
	// too.
	ProxyURL, ServerName string
}

// LogValue implements slog.LogValuer: the token is not shown.
func (k KubeContext) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", k.Name), slog.String("server", k.Server), slog.String("token", "[redacted]"))
}

// Kubeconfig returns the text of a kubeconfig with one context, named "default".
func Kubeconfig(server string, ca []byte, token string) []byte {
	return Kubeconfigs(KubeContext{Name: "default", Server: server, CA: ca, Token: token})
}

// Kubeconfigs returns the text of a kubeconfig with these contexts, the first of
// them current.
func Kubeconfigs(contexts ...KubeContext) []byte {
	var clusters, users, pairs strings.Builder
	for _, c := range contexts {
		further := ""
		if c.ProxyURL != "" {
			further += fmt.Sprintf(", proxy-url: %q", c.ProxyURL)
		}
		if c.ServerName != "" {
			further += fmt.Sprintf(", tls-server-name: %q", c.ServerName)
		}
		fmt.Fprintf(&clusters, "- name: %s\n  cluster: {server: %q, certificate-authority-data: %s%s}\n",
			c.Name, c.Server, base64.StdEncoding.EncodeToString(c.CA), further)
		user := ""
		if c.Token != "" {
			user = fmt.Sprintf("token: %q", c.Token)
		}
		fmt.Fprintf(&users, "- name: %s\n  user: {%s}\n", c.Name, user)
		fmt.Fprintf(&pairs, "- name: %s\n  context: {cluster: %[1]s, user: %[1]s}\n", c.Name)
	}
	return fmt.Appendf(nil, "apiVersion: v1\nkind: Config\ncurrent-context: %s\nclusters:\n%susers:\n%scontexts:\n%s",
		contexts[0].Name, clusters.String(), users.String(), pairs.String())
}

// Kubectl is kubectl with one kubeconfig, run in one network. Its methods are
// safe for concurrent use.
type Kubectl struct {
	// Path is the binary, Kubeconfig the file it uses.
	Path, Kubeconfig string
	// Namespace is the network it runs in; nil is the caller's own.
	Namespace *Namespace
	// Hosts is a file that kubectl sees as /etc/hosts, for names that nobody else
	// knows; empty is the machine's own. It needs unshare and mount.
	Hosts string
}

// Command returns a command that is not started yet, for tests that stream; start
// it with k.Namespace.Start. It is killed when ctx ends or the caller dies.
func (k Kubectl) Command(ctx context.Context, args ...string) *exec.Cmd {
	path := k.Path
	if k.Hosts != "" {
		// Each stage becomes the next one, so that signals reach kubectl.
		path, args = "unshare", append([]string{"--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, k.Hosts, k.Path}, args...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	// The discovery cache lies beside the kubeconfig, never in the user's home.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.Kubeconfig,
		"KUBECACHEDIR="+filepath.Join(filepath.Dir(k.Kubeconfig), "kubectl-cache"), "KUBERC=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Run runs kubectl and returns its standard output. The error carries what it
// wrote to standard error.
func (k Kubectl) Run(ctx context.Context, args ...string) (string, error) {
	return k.Input(ctx, "", args...)
}

// Input is Run with text on standard input, as for "apply -f -".
func (k Kubectl) Input(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := k.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := k.Namespace.Run(cmd); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// KubectlAs returns kubectl for a kubeconfig of the caller, run in the caller's
// network: for access by way of a hub.
func (c *Cluster) KubectlAs(kubeconfig string) Kubectl {
	return Kubectl{Path: c.kubectl, Kubeconfig: kubeconfig}
}

// AdminContext returns the administrator's access for a kubeconfig of the caller.
func (c *Cluster) AdminContext() KubeContext {
	return KubeContext{Name: c.Name, Server: c.URL, CA: c.ca, Token: c.adminToken}
}

// Admin returns kubectl as the cluster's administrator, in the cluster's network.
func (c *Cluster) Admin() Kubectl {
	return Kubectl{Path: c.kubectl, Kubeconfig: c.AdminKubeconfig, Namespace: c.Namespace}
}

// Kubectl runs kubectl as the administrator and returns its standard output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.Admin().Run(ctx, args...)
}

// Apply creates or changes the objects of a YAML text.
func (c *Cluster) Apply(ctx context.Context, yaml string) error {
	if _, err := c.Admin().Input(ctx, yaml, "apply", "-f", "-"); err != nil {
		return fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return nil
}

// CreateToken returns a fresh token of a service account. Flags are those of
// "kubectl create token", for example --audience=hub.
func (c *Cluster) CreateToken(ctx context.Context, namespace, serviceAccount string, flags ...string) (string, error) {
	args := append([]string{"create", "token", "--namespace", namespace, serviceAccount}, flags...)
	token, err := c.Kubectl(ctx, args...)
	if err != nil {
		return "", fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return strings.TrimSpace(token), nil
}
