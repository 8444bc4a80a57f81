package testbed

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// nodePods are what TestNode runs. Pod talker writes a line, then what it hears.
const nodePods = `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: talker, namespace: default}
  spec:
    nodeName: worker
    terminationGracePeriodSeconds: 5
    containers:
    - {name: main, image: none, stdin: true, command: [sh, -c], args: ['echo begin; while read -r line; do echo "heard $line" >&2; done']}
- apiVersion: v1
  kind: Pod
  metadata: {name: screen, namespace: default}
  spec:
    nodeName: worker
    terminationGracePeriodSeconds: 1
    containers: [{name: main, image: none, stdin: true, tty: true, command: [sh], env: [{name: PS1, value: 'ready> '}]}]
- apiVersion: v1
  kind: Pod
  metadata: {name: short, namespace: default}
  spec:
    nodeName: worker
    restartPolicy: Never
    containers: [{name: main, image: none, command: [sh, -c, 'seq 1 5; printf end; exit 3']}]
`

func TestNode(t *testing.T) {
	private, err := NewPrivateNetwork()
	check(t, err)
	t.Cleanup(func() { check(t, private.Close()) })
	for name, network := range map[string]*Namespace{"the caller's network": nil, "a private network": private.Inside} {
		t.Run("in "+name, func(t *testing.T) { testNode(t, network) })
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testNode(t *testing.T, network *Namespace) {
	ctx := within(t, 6*time.Minute)
	bed := startBed(ctx, t)
	cluster, err := bed.StartCluster(ctx, ClusterConfig{Name: "managed", Namespace: network})
	check(t, err)
	node, err := cluster.StartNode(ctx, "worker")
	check(t, err)
	t.Cleanup(func() { check(t, node.Close()) })
	check(t, cluster.Apply(ctx, nodePods))
	check(t, node.AwaitPod(ctx, "default", "talker"))
	check(t, node.AwaitPod(ctx, "default", "screen"))
	want := func(t *testing.T, want string, args ...string) {
		t.Helper()
		if got, err := cluster.Kubectl(ctx, args...); err != nil || got != want {
			t.Errorf("kubectl %s: %q, %v; want %q", strings.Join(args, " "), got, err, want)
		}
	}

	t.Run("the node is Ready and has a lease", func(t *testing.T) {
		_, err := cluster.Kubectl(ctx, "wait", "--for=condition=Ready", "node/worker", "--timeout=60s")
		check(t, err)
		want(t, "worker", "-n", "kube-node-lease", "get", "lease", "worker", "-o", "jsonpath={.spec.holderIdentity}")
	})
	t.Run("it obeys its API server alone", func(t *testing.T) {
		transport := &http.Transport{DialContext: network.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the server's verdict is looked at
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport}).Get(fmt.Sprintf("https://127.0.0.1:%d/containerLogs/default/talker/main", node.port))
		if err == nil {
			t.Errorf("a caller without a certificate got %s", res.Status)
			check(t, res.Body.Close())
		}
	})
	t.Run("exec has streams apart, an exit code and input", func(t *testing.T) {
		want(t, "out\n", "exec", "talker", "--", "sh", "-c", "echo out; echo err >&2")
		_, err := cluster.Kubectl(ctx, "exec", "talker", "--", "sh", "-c", "echo why >&2; exit 7")
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 || !strings.Contains(err.Error(), "why") {
			t.Errorf("exit code 7 became %v", err)
		}
		if got, err := cluster.Admin().Input(ctx, "carried\n", "exec", "-i", "talker", "--", "cat"); err != nil || got != "carried\n" {
			t.Errorf("cat: %q, %v", got, err)
		}
	})
	t.Run("exec -it has a terminal whose size follows", func(t *testing.T) { testTerminal(t, cluster, "exec", "-it", "talker", "--", "sh") })
	t.Run("attach -it has the terminal of the container", func(t *testing.T) { testTerminal(t, cluster, "attach", "-it", "screen") })
	t.Run("attach speaks with the container's command, and its log has all of it", func(t *testing.T) {
		cmd := cluster.Admin().Command(ctx, "attach", "-i", "talker")
		in, err := cmd.StdinPipe()
		check(t, err)
		out, err := cmd.StderrPipe() // of the container
		check(t, err)
		check(t, network.Start(cmd))
		_, err = io.WriteString(in, "attached\n")
		check(t, err)
		lines := bufio.NewReader(out)
		for line := ""; line != "heard attached\n"; { // after what kubectl itself says
			line, err = lines.ReadString('\n')
			check(t, err)
		}
		check(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		want(t, "begin\nheard attached\n", "logs", "talker", "-c", "main")
		want(t, "heard attached\n", "logs", "talker", "--tail=1")
		want(t, "begin\nheard attached\n", "logs", "talker", "--since=1h")
		want(t, "", "logs", "talker", "--since-time=2999-01-01T00:00:00Z")
		want(t, "begin\nhe", "logs", "talker", "--limit-bytes=8")
		want(t, "", "logs", "talker", "--tail=0")
	})
	t.Run("a command's end is the pod's, and a line without an end is in its log", func(t *testing.T) {
		check(t, Poll(ctx, "the end of pod short", func(ctx context.Context) error {
			phase, err := cluster.Kubectl(ctx, "get", "pod", "short", "-o", "jsonpath={.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}")
			if err == nil && phase != "Failed 3" {
				err = errors.New(phase)
			}
			return err
		}))
		want(t, "4\n5\nend", "logs", "short", "--tail=3")
	})
	t.Run("port-forward reaches a port of the loopback, and half-closes", func(t *testing.T) {
		ln, err := network.Listen(ctx, netip.AddrPortFrom(loopback, 0).String())
		check(t, err)
		greeted := make(chan error, 1)
		go answerOnce(ln, greeted)
		_, port, err := net.SplitHostPort(ln.Addr().String())
		check(t, err)
		cmd := cluster.Admin().Command(ctx, "port-forward", "pod/talker", ":"+port)
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, network.Start(cmd))
		line, err := bufio.NewReader(out).ReadString('\n')
		check(t, err)
		address, _, _ := strings.Cut(strings.TrimPrefix(line, "Forwarding from "), " ")
		conn, err := network.Dial(ctx, "tcp", address)
		check(t, err)
		_, err = io.WriteString(conn, "through")
		check(t, errors.Join(err, conn.(*net.TCPConn).CloseWrite()))
		if got, err := io.ReadAll(conn); err != nil || string(got) != "got through" {
			t.Errorf("%q, %v", got, err)
		}
		check(t, errors.Join(<-greeted, conn.Close(), ln.Close(), cmd.Process.Kill()))
		_ = cmd.Wait() // it was killed
	})
	t.Run("a deleted pod ends, and its followers with it", func(t *testing.T) {
		cmd := cluster.Admin().Command(ctx, "logs", "-f", "--tail=1", "talker")
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, network.Start(cmd))
		lines := bufio.NewReader(out)
		_, err = lines.ReadString('\n')
		check(t, err)
		want(t, "pod \"talker\" deleted from default namespace\n", "delete", "pod", "talker")
		rest, err := io.ReadAll(lines)
		if err := errors.Join(err, cmd.Wait()); err != nil || len(rest) != 0 {
			t.Errorf("%q, %v", rest, err)
		}
		want(t, "", "get", "pod", "talker", "--ignore-not-found")
	})
}

// testTerminal changes the size of a window and asks the shell in it.
func testTerminal(t *testing.T, cluster *Cluster, args ...string) {
	ctx := within(t, 2*time.Minute)
	terminal, err := cluster.Admin().Terminal(ctx, 31, 97, nil, args...)
	check(t, err)
	for _, size := range [][2]uint16{{31, 97}, {44, 133}} {
		check(t, terminal.Resize(size[0], size[1]))
		check(t, terminal.AwaitSize(ctx, size[0], size[1]))
	}
	check(t, terminal.Type("exit\r"))
	if stderr, err := terminal.Wait(ctx); err != nil {
		t.Error(err, stderr)
	}
}

// answerOnce reads from one connection to its end, answers and ends.
func answerOnce(ln net.Listener, result chan<- error) {
	conn, err := ln.Accept()
	if err != nil {
		result <- err
		return
	}
	got, err := io.ReadAll(conn)
	_, sent := io.WriteString(conn, "got "+string(got))
	result <- errors.Join(err, sent, conn.Close())
}
