package cli

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// command is one that talks to a hub. A new one needs a line in commands, and nothing
// else: TestEveryCommandIsHere fails without it.
type command struct {
	// name is the command's, and args what follows it. CLUSTER stands for a cluster's name.
	name string
	args []string
	// admin is for one that the hub's admins may run.
	admin bool
	// tunnel is for one that needs an agent of its cluster.
	tunnel bool
	// later is for one that says with each request what the policy forbids.
	later bool
}

func (c command) cluster() bool { return slices.Contains(c.args, "CLUSTER") }

// line is the command line for a cluster.
func (c command) line(cluster string) []string {
	args := strings.Fields(c.name)
	for _, a := range c.args {
		if a == "CLUSTER" {
			a = cluster
		}
		args = append(args, a)
	}
	return args
}

// commands are those that talk to the hub that the environment or a profile says.
var commands = []command{
	{name: "whoami"},
	{name: "clusters list"},
	{name: "clusters list", args: []string{"--admin"}, admin: true},
	{name: "clusters get", args: []string{"CLUSTER"}},
	{name: "clusters get", args: []string{"CLUSTER", "--admin"}, admin: true},
	{name: "clusters watch"},
	{name: "clusters accept", args: []string{"CLUSTER"}, admin: true},
	{name: "clusters set", args: []string{"nowhere", "--direct-url", "https://127.0.0.1:1"}, admin: true},
	{name: "clusters revoke", args: []string{"nowhere"}, admin: true},
	{name: "clusters restore", args: []string{"nowhere"}, admin: true},
	{name: "token create", args: []string{"--cluster", "new"}, admin: true},
	{name: "token list", admin: true},
	{name: "token revoke", args: []string{"0000000000000000"}, admin: true},
	{name: "pki show", admin: true},
	{name: "pki rotate", args: []string{"--role", "serving"}, admin: true},
	{name: "kubeconfig", args: []string{"CLUSTER", "--access", "tunnel"}, tunnel: true},
	{name: "kubeconfig", args: []string{"CLUSTER", "--token-request", "default/default"}, tunnel: true},
	{name: "credential", args: []string{"--cluster", "CLUSTER", "--token-request", "default/default"}, tunnel: true},
	{name: "forward", args: []string{"CLUSTER", "0:web.prod:1"}, tunnel: true},
	{name: "connect", args: []string{"CLUSTER", "web.prod:1"}, tunnel: true},
	{name: "socks", args: []string{"--cluster", "CLUSTER", "--listen", "127.0.0.1:0"}, tunnel: true, later: true},
	{name: "ping", args: []string{"CLUSTER"}, tunnel: true},
	{name: "bench", args: []string{"CLUSTER"}, tunnel: true},
}

// elsewhere are commands that talk to a hub and say so in another way, see TestLoginWrong
// and TestFetchWrong, and e2e/carry for the steps of verify; and those that talk to none.
var elsewhere = []string{
	"login", "pki fetch", "verify", "manifests hub", "manifests agent", "endpoints",
	"logout", "profiles list", "profiles use", "profiles show", "profiles delete", "dev", "policy check", "policy test", "policy import-ocm",
	"pki init", "pki agent", "version", "help", "exit-codes",
}

// TestEveryCommandIsHere walks --help.
func TestEveryCommandIsHere(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	var walk func(path []string)
	found := 0
	walk = func(path []string) {
		children := subcommands(ok(ctx, t, nil, append(slices.Clone(path), "--help")...).stdout)
		if len(children) == 0 {
			found++
			name := strings.Join(path, " ")
			if !slices.Contains(elsewhere, name) && !slices.ContainsFunc(commands, func(c command) bool { return c.name == name }) {
				t.Errorf("culvert %s is in none of the lists: say there what it does when something is wrong", name)
			}
		}
		for _, child := range children {
			if len(path) > 0 || child != "completion" {
				walk(append(slices.Clone(path), child))
			}
		}
	}
	walk(nil)
	if found < 25 {
		t.Errorf("%d commands: the walk finds too few", found)
	}
}

func subcommands(help string) (names []string) {
	_, list, found := strings.Cut(help, "Available Commands:\n")
	if !found {
		return nil
	}
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			return names
		}
		names = append(names, fields[0])
	}
	return names
}

// wrong runs a command that must fail with a code, and with one line that says all of
// says and nothing secret.
func wrong(ctx context.Context, t *testing.T, env, args []string, code int, says ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	got, err := culvert(ctx, env, args...)
	if err != nil || got.code != code || got.stdout != "" {
		t.Errorf("%q: %v, exit code %d, want %d: %s%s", args, err, got.code, code, got.stdout, got.stderr)
		return
	}
	if !strings.HasPrefix(got.stderr, "culvert: ") || strings.Count(got.stderr, "\n") != 1 || !strings.HasSuffix(got.stderr, "\n") {
		t.Errorf("%q: want one line: %s", args, got.stderr)
	}
	for _, part := range says {
		if !strings.Contains(got.stderr, part) {
			t.Errorf("%q: it does not say %q: %s", args, part, got.stderr)
		}
	}
	for name, token := range the.tokens {
		if strings.Contains(got.stderr, token) {
			t.Errorf("%q: the token of %s is in it: %s", args, name, got.stderr)
		}
	}
}

// each runs a test for the commands that it is about.
func each(t *testing.T, row string, about func(command) bool, do func(ctx context.Context, t *testing.T, c command)) {
	t.Helper()
	t.Run(row, func(t *testing.T) {
		for _, c := range commands {
			if about(c) {
				t.Run("culvert "+strings.Join(c.line("CLUSTER"), " "), func(t *testing.T) { do(within(t, time.Minute), t, c) })
			}
		}
	})
}

func all(command) bool { return true }

func TestWrong(t *testing.T) {
	the.logIn(within(t, 60*time.Second), t, the.forgetful, "expired")
	the.forget(within(t, 60*time.Second), t, "expired")
	with := func(name string, change ...string) []string { return append(the.as(name), change...) }
	each(t, "no hub: exit code 3, and one line that says what to do", all, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("ada", "CULVERT_HUB=https://"+the.unused.Addr()), c.line(connected), 3, the.unused.Addr(), "refused", "check that the hub runs, and its address")
	})
	each(t, "wrong CA: exit code 4, and one line that says what to do", all, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("ada", "CULVERT_HUB_CA="+filepath.Join(the.state, "pki", "users-ca.crt")), c.line(connected), 4, the.port.Addr(), "certificate", "give the hub's CA with --hub-ca")
	})
	each(t, "expired login: exit code 5, and one line that says what to do", all, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, []string{"CULVERT_PROFILE=expired"}, c.line(connected), 5, "your login at "+the.url()+" has expired: run culvert login "+the.url()+" --profile expired")
	})
	each(t, "a token that nobody knows: exit code 5", all, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("ada", "CULVERT_TOKEN_FILE=", "CULVERT_TOKEN=nobody"), c.line(connected), 5, "culvert login")
	})
	each(t, "nobody is logged in: exit code 5", all, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, []string{"XDG_CONFIG_HOME=" + filepath.Join(testbed.Dir(), "empty")}, c.line(connected), 5, "run culvert login https://HUB first")
	})
	each(t, "somebody who is no admin: exit code 6", func(c command) bool { return c.admin }, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("alice"), c.line(connected), 6, "is not an administrator", "culvert whoami")
	})
	each(t, "somebody whom the policy forbids it: exit code 6", func(c command) bool { return c.tunnel && !c.later }, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("mallory"), c.line(connected), 6, "culvert whoami")
	})
	each(t, "unknown cluster: exit code 7, and one line that says what to do", command.cluster, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("ada"), c.line("nowhere"), 7, "nowhere", "culvert clusters list")
	})
	each(t, "agent away: exit code 8, and one line that says what to do", func(c command) bool { return c.tunnel }, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, with("ada"), c.line(away), 8, away, "no agent of the cluster is connected", "try again later")
	})
	each(t, "a wrong command line: exit code 2", all, func(ctx context.Context, t *testing.T, c command) {
		wrong(ctx, t, nil, append(c.line(connected), "--nonsense"), 2, "--nonsense", "see culvert "+c.name+" --help")
	})
}

// TestWrongElsewhere is about the two commands that are there before anything is trusted.
func TestWrongElsewhere(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	file := the.tokenFile("alice")
	hub, none := the.url(), "https://"+the.unused.Addr()
	pin := strings.Repeat("ab", 32)
	fresh := []string{"XDG_CONFIG_HOME=" + filepath.Join(testbed.Dir(), "fresh")}
	t.Run("login", func(t *testing.T) {
		wrong(ctx, t, fresh, []string{"login", none, "--token-file", file}, 3, "cannot be reached", "check that the hub runs")
		wrong(ctx, t, fresh, []string{"login", hub, "--token-file", file}, 4, "SHA-256 fingerprint", "--hub-ca-fingerprint")
		wrong(ctx, t, fresh, []string{"login", hub, "--token-file", file, "--hub-ca-fingerprint", pin}, 4, "another hub")
		wrong(ctx, t, fresh, []string{"login", hub, "--token-file", file, "--hub-ca", filepath.Join(the.state, "pki", "users-ca.crt")}, 4, "cannot be verified", "--hub-ca")
		wrong(ctx, t, fresh, []string{"login", hub, "--token-command", "echo nobody", "--hub-ca", the.hubCA()}, 5, "culvert login")
		wrong(ctx, t, fresh, []string{"login", hub, "--token-file", "missing", "--hub-ca", the.hubCA()}, 5, "missing", "no such file")
		wrong(ctx, t, fresh, []string{"login", hub, "--hub-ca", the.hubCA(), "--oidc-issuer", none, "--oidc-client-id", "culvert"}, 5, "log in at "+none, "refused")
	})
	t.Run("pki fetch", func(t *testing.T) {
		wrong(ctx, t, fresh, []string{"pki", "fetch", "--hub", the.unused.Addr(), "--fingerprint", pin}, 3, "cannot be reached", "check that the hub runs")
		wrong(ctx, t, fresh, []string{"pki", "fetch", "--hub", the.port.Addr(), "--fingerprint", pin}, 4, "another hub")
	})
	t.Run("nothing of what failed is kept", func(t *testing.T) {
		if got := ok(ctx, t, fresh, "profiles", "list"); strings.Contains(got.stdout, "https://") {
			t.Errorf("%+v", got)
		}
	})
}
