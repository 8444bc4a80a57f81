package rolling

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	clusterName = "managed"
	userToken   = "ada-token"
	// drainTimeout bounds what a watch may add to a restart: clients of Go wait 10 s
	// for a handshake (net/http DefaultTransport).
	drainTimeout = 3 * time.Second
)

// objects are what the loops read, and who may.
const objects = `apiVersion: v1
kind: ConfigMap
metadata: {name: first, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ada}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}
`

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// world is one managed cluster, for hubs that come and go.
type world struct {
	culvert         testbed.Culvert
	managed         *testbed.Cluster
	agentKubeconfig string
	dir             string
}

func startWorld(t *testing.T) *world {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	bin := binDir(testbed.Dir())
	w := &world{culvert: testbed.Culvert{Hub: filepath.Join(bin, "culvert-hub"), Agent: filepath.Join(bin, "culvert-agent"), CLI: filepath.Join(bin, "culvert")}}
	w.dir, err = os.MkdirTemp("", "rolling-") //nolint:usetesting // t.TempDir would put the test's name into the path of a Unix socket
	must(t, err)
	bed, err := testbed.New(ctx, testbed.Config{Dir: w.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	w.managed, err = bed.StartCluster(ctx, testbed.ClusterConfig{Name: clusterName})
	must(t, err)
	must(t, w.managed.Apply(ctx, objects))
	w.agentKubeconfig, err = w.managed.AgentKubeconfig(ctx)
	must(t, err)
	return w
}

// hub is a hub that is restarted.
type hub struct {
	w       *world
	dir     string
	port    *testbed.Port
	kubectl testbed.Kubectl
	// socket is held for the hub as a service manager does; nil: it opens its own.
	socket *os.File

	cmd  *exec.Cmd
	done chan error
}

// newHub starts a hub and its agent, and waits until requests pass.
func (w *world) newHub(t *testing.T, name string, held bool) *hub {
	t.Helper()
	ctx := within(t, 3*time.Minute)
	h := &hub{w: w, dir: filepath.Join(w.dir, name)}
	must(t, os.Mkdir(h.dir, 0o700))
	certs := filepath.Join(h.dir, "agent")
	for _, args := range [][]string{
		{"pki", "init", "--state", h.state()},
		{"pki", "agent", "--state", h.state(), "--cluster", clusterName, "--out", certs},
	} {
		if out, err := exec.CommandContext(ctx, w.culvert.CLI, args...).CombinedOutput(); err != nil {
			t.Fatalf("culvert %v: %v: %s", args, err, out)
		}
	}
	must(t, os.WriteFile(h.tokens(), []byte(userToken+",ada,1,\"dev\"\n"), 0o600))
	var err error
	h.port, err = testbed.ReservePort(nil, testbed.HubAddress)
	must(t, err)
	t.Cleanup(h.port.Close)
	if held {
		h.hold(t)
	}
	h.start(t)
	t.Cleanup(func() { h.kill(t) })
	agent, err := testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "agent", Path: w.culvert.Agent, LogDir: h.dir,
		Args: []string{"--hub", h.port.Addr(), "--cert-dir", certs, "--kubeconfig", w.agentKubeconfig},
	})
	must(t, err)
	t.Cleanup(func() { check(t, agent.Kill9()) })
	ca, err := os.ReadFile(filepath.Join(certs, "ca.crt"))
	must(t, err)
	kubeconfig := filepath.Join(h.dir, "ada.kubeconfig")
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig("https://"+h.port.Addr()+"/"+clusterName, ca, userToken), 0o600))
	h.kubectl = w.managed.KubectlAs(kubeconfig)
	must(t, testbed.Poll(ctx, "a request through the tunnel", func(ctx context.Context) error {
		_, err := h.kubectl.Run(ctx, "get", "configmap", "first")
		return err
	}))
	return h
}

func (h *hub) state() string  { return filepath.Join(h.dir, "state") }
func (h *hub) tokens() string { return filepath.Join(h.dir, "tokens.csv") }

// hold opens the socket, which stays open until the test ends.
func (h *hub) hold(t *testing.T) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", h.port.Addr())
	must(t, err)
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		t.Fatalf("%T", ln)
	}
	h.socket, err = tcp.File()
	must(t, errors.Join(err, ln.Close()))
	t.Cleanup(func() { check(t, h.socket.Close()) })
}

// start runs the hub as a service manager does: sd_listen_fds(3) has the protocol.
func (h *hub) start(t *testing.T) {
	t.Helper()
	args := []string{
		"--listen", h.port.Addr(), "--tls-name", testbed.HubAddress.String(), "--state", h.state(),
		"--token-file", h.tokens(), "--drain-timeout", drainTimeout.String(),
	}
	h.cmd = exec.Command(h.w.culvert.Hub, args...)
	if h.socket != nil {
		// The number has to be that of the process itself.
		h.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, h.w.culvert.Hub}, args...)...)
		h.cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
		h.cmd.ExtraFiles = []*os.File{h.socket}
	}
	log, err := os.OpenFile(h.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	h.cmd.Stderr = log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, errors.Join(h.cmd.Start(), log.Close()))
	h.done = make(chan error, 1)
	go reap(h.cmd, h.done)
}

// reap sends one result, when the process has ended.
func reap(cmd *exec.Cmd, done chan<- error) { done <- cmd.Wait() }

func (h *hub) log() string { return filepath.Join(h.dir, "hub.log") }

func (h *hub) kill(t *testing.T) {
	if h.done == nil {
		return
	}
	check(t, h.cmd.Process.Kill())
	<-h.done // was killed
	h.done = nil
}

// restart ends the hub in order and starts it again, at once. It returns how long it
// drained, and how long after that it served again.
func (h *hub) restart(t *testing.T) (drained, started time.Duration) {
	t.Helper()
	starts := h.count(t, "hub is serving")
	began := time.Now()
	must(t, h.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-h.done:
		must(t, err)
	case <-time.After(drainTimeout + time.Minute):
		t.Fatal("the hub does not end")
	}
	ended := time.Now()
	h.start(t)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	late := time.After(time.Minute)
	for h.count(t, "hub is serving") == starts {
		select {
		case <-ticker.C:
		case err := <-h.done:
			h.done = nil
			t.Fatalf("the hub does not start: %v: %s", err, h.text(t))
		case <-late:
			t.Fatalf("the hub does not serve: %s", h.text(t))
		}
	}
	return ended.Sub(began), time.Since(ended)
}

func (h *hub) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(h.log())
	must(t, err)
	return string(text)
}

func (h *hub) count(t *testing.T, part string) int {
	t.Helper()
	return strings.Count(h.text(t), fmt.Sprintf("msg=%q", part))
}
