package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// exposure is what systemd-analyze security may say of a unit at most, in tenths:
// it calls up to 2 of 10 fine.
const exposure = 17

var unitFiles = []string{"culvert-hub.service", "culvert-agent.service", "culvert-agent@.service"}

func TestUnits(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	// A root with the units, programs and systemd's own units, which they name.
	root := t.TempDir()
	for _, dir := range []string{"etc/systemd/system", "usr/local/bin", "bin", "lib/systemd"} {
		folder(t, filepath.Join(root, dir), 0o755, 0, 0)
	}
	must(t, os.CopyFS(filepath.Join(root, "lib/systemd/system"), os.DirFS("/lib/systemd/system")))
	for _, name := range []string{"usr/local/bin/culvert-hub", "usr/local/bin/culvert-agent", "bin/kill"} {
		must(t, os.WriteFile(filepath.Join(root, name), []byte("#!/bin/sh\n"), 0o755))
	}
	for _, name := range unitFiles {
		must(t, os.WriteFile(filepath.Join(root, "etc/systemd/system", name), []byte(read(t, deployed(t, name))), 0o644))
	}
	for _, name := range []string{"culvert-hub.service", "culvert-agent.service", "culvert-agent@edge-1.service"} {
		t.Run(name+": systemd-analyze verify has nothing to say", func(t *testing.T) {
			if out, err := exec.CommandContext(ctx, "systemd-analyze", "verify", "--man=no", "--root="+root, name).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%v: %s", err, out)
			}
		})
		t.Run(fmt.Sprintf("%s: systemd-analyze security gives at most %.1f of 10", name, exposure/10.0), func(t *testing.T) {
			out, err := exec.CommandContext(ctx, "systemd-analyze", "security", "--no-pager", "--offline=true",
				fmt.Sprintf("--threshold=%d", exposure), "--root="+root, name).CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			t.Log(lines[len(lines)-1])
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	t.Run("a unit that is wrong is noticed", func(t *testing.T) {
		wrong := strings.ReplaceAll(read(t, deployed(t, "culvert-hub.service")), "ProtectSystem=strict", "ProtectSystem=stricter")
		must(t, os.WriteFile(filepath.Join(root, "etc/systemd/system/wrong.service"), []byte(wrong), 0o644))
		if out, err := exec.CommandContext(ctx, "systemd-analyze", "verify", "--man=no", "--root="+root, "wrong.service").CombinedOutput(); err == nil && len(out) == 0 {
			t.Error("verify says nothing")
		}
	})
}

// notices is where a service manager listens.
type notices struct{ conn *net.UnixConn }

// manage makes a process tell this test how it fares, as Type=notify says.
func manage(t *testing.T, j *jail, name string) notices {
	t.Helper()
	// The abstract namespace, which belongs to the network: the jail has no such file.
	address := "@culvert-e2e-" + name
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	j.Env = append(j.Env, "NOTIFY_SOCKET="+address)
	return notices{conn}
}

// expect waits for the next state.
func (n notices) expect(ctx context.Context, t *testing.T, want, why string) {
	t.Helper()
	deadline, _ := ctx.Deadline()
	must(t, n.conn.SetReadDeadline(deadline))
	text := make([]byte, 4096)
	size, err := n.conn.Read(text)
	if err != nil {
		t.Fatalf("%s: %v", why, err)
	}
	if got := string(text[:size]); got != want {
		t.Fatalf("%s: %s, want %s", why, got, want)
	}
}

func TestUnitsRun(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	hub := newMachine(t, "culvert-hub", replace(t, "hub.yaml", "tlsNames: [hub.example.com]", "tlsNames: ["+testbed.HubAddress.String()+"]"))
	secret(t, filepath.Join(hub.etc, "tokens.csv"), tokensFile)
	agent := newMachine(t, "culvert-agent", func(_, text string) string { return text })
	secret(t, filepath.Join(agent.etc, "agent.kubeconfig"), read(t, the.kubeconfig))
	hubNotices, agentNotices := manage(t, &hub.jail, "hub"), manage(t, &agent.jail, "agent")
	address := net.JoinHostPort(testbed.HubAddress.String(), "443")
	ca := filepath.Join(hub.state, "pki", "serving-ca.crt")
	var hubProcess, agentProcess *testbed.Process
	t.Cleanup(func() {
		for _, p := range []*testbed.Process{hubProcess, agentProcess} {
			if p != nil {
				must(t, p.Kill9())
			}
		}
	})
	// Each step needs those before it.
	step := func(name string, f func(t *testing.T)) {
		if !t.Failed() {
			t.Run(name, f)
		}
	}

	step("V17: the hub's unit binds port 443 with that one capability and without being root", func(t *testing.T) {
		var err error
		hubProcess, err = testbed.StartProcess(ctx, hub.jail.process(t, "unit-hub", testbed.Dir()))
		must(t, err)
		hubNotices.expect(ctx, t, "READY=1", "once the hub listens")
		user, capabilities := ids(t, hubProcess)
		if user != "65532" && manyUsers || capabilities != "0000000000000400" {
			t.Errorf("it runs as user %s with capabilities %s", user, capabilities)
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		must(t, err) // at once: READY=1 has said so
		must(t, conn.Close())
		if log := read(t, hubProcess.Log()); strings.Contains(log, `"WARN"`) {
			t.Errorf("an installation by the page is warned of: %s", log)
		}
	})
	// refused runs the hub's command line beside it, in a jail in which it cannot work.
	refused := func(t *testing.T, name, want string, j jail) {
		t.Helper()
		j.Writable = map[string]string{
			"/var/lib/culvert": folder(t, filepath.Join(t.TempDir(), "state"), 0o700, nonroot, nonroot),
			"/var/log/culvert": folder(t, filepath.Join(t.TempDir(), "log"), 0o700, nonroot, nonroot),
		}
		j.Env = nil // nobody listens for it
		p, err := testbed.StartProcess(ctx, j.process(t, name, testbed.Dir()))
		must(t, err)
		select {
		case <-p.Done():
		case <-ctx.Done():
			must(t, errors.Join(ctx.Err(), p.Kill9()))
		}
		if log := read(t, p.Log()); !strings.Contains(log, want) {
			t.Errorf("it says %s, want %q", log, want)
		}
	}
	step("V17: without the capability the same command line cannot", func(t *testing.T) {
		without := hub.jail
		without.Capabilities = nil
		refused(t, "unit-hub-without-capability", "bind: permission denied", without)
	})
	step("the unit's system calls are all that it needs, and a smaller set is felt", func(t *testing.T) {
		without := hub.jail
		without.Syscalls = slices.DeleteFunc(slices.Clone(hub.jail.Syscalls), func(name string) bool { return name == "bind" })
		refused(t, "unit-hub-without-bind", "bind: operation not permitted", without)
	})
	step("the agent's unit joins with the token of its environment file, and a request goes through", func(t *testing.T) {
		cli := jail{Root: unpack(t, "culvert"), Args: []string{"/culvert", "token", "create", "--state", "/var/lib/culvert", "--cluster", clusterName, "-o", "json"}}
		cli.Writable = map[string]string{"/var/lib/culvert": hub.state}
		secret(t, filepath.Join(agent.etc, "join-token"), joinToken(t, cli.run(ctx, t)))
		var err error
		agentProcess, err = testbed.StartProcess(ctx, agent.jail.process(t, "unit-agent", testbed.Dir()))
		must(t, err)
		agentNotices.expect(ctx, t, "READY=1", "once the agent has joined")
		if user, capabilities := ids(t, agentProcess); user != "65532" && manyUsers || strings.Trim(capabilities, "0") != "" {
			t.Errorf("it runs as user %s with capabilities %s", user, capabilities)
		}
		must(t, testbed.Poll(ctx, "a request through the tunnel", func(ctx context.Context) error { return throughTunnel(ctx, address, ca) }))
	})
	step("D22: a reload takes up who may call, without a restart", func(t *testing.T) {
		pid := hubProcess.PID()
		secret(t, filepath.Join(hub.etc, "tokens.csv"), "other-token,bob,2\n")
		must(t, syscall.Kill(pid, syscall.SIGHUP))
		hubNotices.expect(ctx, t, "RELOADING=1", "at SIGHUP")
		hubNotices.expect(ctx, t, "READY=1", "after the reload")
		if err := throughTunnel(ctx, address, ca); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("a token that is gone: %v", err)
		}
		secret(t, filepath.Join(hub.etc, "tokens.csv"), tokensFile)
		must(t, syscall.Kill(pid, syscall.SIGHUP))
		hubNotices.expect(ctx, t, "RELOADING=1", "at SIGHUP")
		hubNotices.expect(ctx, t, "READY=1", "after the reload")
		must(t, throughTunnel(ctx, address, ca))
		if hubProcess.PID() != pid {
			t.Error("another process answers")
		}
		must(t, syscall.Kill(agentProcess.PID(), syscall.SIGHUP))
		agentNotices.expect(ctx, t, "RELOADING=1", "at SIGHUP")
		agentNotices.expect(ctx, t, "READY=1", "after the reload")
	})
	step("a restart of the agent, with the used token still there, just runs", func(t *testing.T) {
		must(t, agentProcess.Stop(ctx))
		agentNotices.expect(ctx, t, "STOPPING=1", "at SIGTERM")
		must(t, agentProcess.Start(ctx))
		agentNotices.expect(ctx, t, "READY=1", "once it runs again")
		must(t, testbed.Poll(ctx, "a request through the tunnel", func(ctx context.Context) error { return throughTunnel(ctx, address, ca) }))
	})
	step("audit lines are in the unit's folder of logs", func(t *testing.T) {
		must(t, testbed.Poll(ctx, "a line of ada", func(context.Context) error {
			if text := read(t, filepath.Join(hub.jail.Writable["/var/log/culvert"], "audit.log")); !strings.Contains(text, `"ada"`) {
				return fmt.Errorf("audit.log: %s", text)
			}
			return nil
		}))
	})
	step("the end is told, and in order", func(t *testing.T) {
		must(t, agentProcess.Stop(ctx))
		must(t, hubProcess.Stop(ctx))
		hubNotices.expect(ctx, t, "STOPPING=1", "at SIGTERM")
	})
}
