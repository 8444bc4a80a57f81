package carry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// world is a hub, and an agent of cluster edge-1 in a private network with its
// targets, which are reached from there alone. All are 192.0.2.2, which is called
// vm.prod, db.prod and web.prod there:
//
//	sshd, PostgreSQL        on ports of their own
//	8000                    a web server
//	7000                    answers when it has got everything
//	7001                    sends, ends its half, and answers with what comes then
//	7002                    an echo, and 7003 discards
//	7004                    takes 64 KiB, answers and closes, whatever comes
//	7009                    nobody
//	7010                    refused by the agent's policy, 22 by the hub's
//	127.0.0.1:...           the cluster's API server
//
// edge-2 is a cluster that nobody knows.
type world struct {
	servers             testbed.Servers
	openSSH, postgreSQL testbed.Debian

	private   *testbed.PrivateNetwork
	bed       *testbed.Bed
	cluster   *testbed.Cluster
	listeners []io.Closer
	serving   sync.WaitGroup

	sshd     *testbed.SSHD
	postgres *testbed.Postgres
	port     *testbed.Port
	hub      *testbed.Process
	agent    *testbed.Process
	ada, bob string // tokens; bob may reach nothing
	// late has what the target on 7001 got after it had ended its half.
	late chan string
}

const hubPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: ada
  effect: allow
  users: [ada]
  kubernetes: [{verbs: ["*"]}]
  tcp:
  - {hosts: ["*.prod"], ports: [1024-65535]}
  - {cidrs: [192.0.2.0/24], ports: [1024-65535]}
`

const agentPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: api
  effect: allow
  kubernetes: [{verbs: ["*"]}]
- name: prod
  effect: allow
  tcp:
  - {hosts: ["*.prod"], cidrs: [192.0.2.0/24], ports: [1-7009, 7011-65535]}
  - {cidrs: [192.0.2.0/24], ports: [1-7009, 7011-65535]}
`

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{ada: rand.Text(), bob: rand.Text(), late: make(chan string, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	// Before the environment has another cache.
	var serversErr, sshErr, sqlErr error
	w.servers, serversErr = testbed.ServerBinaries(ctx, os.Stderr)
	w.openSSH, sshErr = testbed.OpenSSH(ctx, os.Stderr)
	w.postgreSQL, sqlErr = testbed.PostgreSQL(ctx, os.Stderr)
	if err := errors.Join(
		serversErr, sshErr, sqlErr,
		// What people have: a home, and the programs in the PATH.
		os.Setenv("PATH", filepath.Join(testbed.Dir(), "bin")+":"+os.Getenv("PATH")),
		os.Setenv("HOME", testbed.Dir()), os.Setenv("XDG_CACHE_HOME", filepath.Join(testbed.Dir(), "cache")),
		os.Setenv("XDG_CONFIG_HOME", filepath.Join(testbed.Dir(), "config")), os.Setenv("GORACE", "atexit_sleep_ms=0"),
		os.WriteFile(file("tokens.csv"), fmt.Appendf(nil, "%s,ada,1\n%s,bob,2\n", w.ada, w.bob), 0o600),
		os.WriteFile(file("ada.token"), []byte(w.ada+"\n"), 0o600), os.WriteFile(file("bob.token"), []byte(w.bob+"\n"), 0o600),
		os.WriteFile(file("wrong.token"), []byte(rand.Text()+"\n"), 0o600),
		os.WriteFile(file("hub-policy.yaml"), []byte(hubPolicy), 0o600), os.WriteFile(file("agent-policy.yaml"), []byte(agentPolicy), 0o600),
		os.Mkdir(file("k"), 0o700),
	); err != nil {
		return nil, err
	}
	if w.private, err = testbed.NewPrivateNetwork(); err != nil {
		return nil, err
	}
	for _, start := range []func(context.Context) error{w.startCluster, w.startServers, w.startTargets, w.startHub, w.startAgent} {
		if err := start(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *world) startCluster(ctx context.Context) (err error) {
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: file("k"), Servers: w.servers}); err != nil {
		return err
	}
	w.cluster, err = w.bed.StartCluster(ctx, testbed.ClusterConfig{Name: "edge-1", Namespace: w.private.Inside})
	return err
}

// startServers starts the servers that come from Debian.
func (w *world) startServers(ctx context.Context) (err error) {
	w.sshd, err = testbed.StartSSHD(ctx, testbed.SSHDConfig{
		Name: "sshd", OpenSSH: w.openSSH, Dir: testbed.Dir(), Namespace: w.private.Inside, Listen: testbed.InsideAddress,
	})
	if err != nil {
		return err
	}
	w.postgres, err = testbed.StartPostgres(ctx, testbed.PostgresConfig{
		Name: "postgres", PostgreSQL: w.postgreSQL, Dir: testbed.Dir(), Namespace: w.private.Inside, Listen: testbed.InsideAddress,
	})
	return err
}

func (w *world) startHub(ctx context.Context) (err error) {
	if w.port, err = testbed.ReservePort(nil, testbed.HubAddress); err != nil {
		return err
	}
	hubAddress = w.port.Addr
	w.hub, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: bin("culvert-hub"), LogDir: testbed.Dir(),
		Args: []string{
			"--listen", w.port.Addr(), "--tls-name", testbed.HubAddress.String(), "--token-file", file("tokens.csv"), "--policy", file("hub-policy.yaml"),
			"--state", file("hub"), "--log-level", "debug", "--drain-timeout", "1s",
		},
		Ready: func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.port.Addr())
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return err
}

// hubAddress is the hub's, once it has one.
var hubAddress func() string

func hubCA() string { return filepath.Join(file("hub"), "pki", "serving-ca.crt") }

// startAgent starts the agent inside of the private network, and waits until it serves.
func (w *world) startAgent(ctx context.Context) error {
	out := file("agent")
	if text, err := exec.CommandContext(ctx, bin("culvert"), "pki", "agent", "--state", file("hub"), "--cluster", "edge-1", "--out", out).CombinedOutput(); err != nil {
		return fmt.Errorf("pki agent: %w: %s", err, text)
	}
	kubeconfig, err := w.cluster.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	w.agent, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent", Path: bin("culvert-agent"), LogDir: testbed.Dir(), Namespace: w.private.Inside,
		Args: []string{
			"--hub", w.port.Addr(), "--hub-ca", filepath.Join(out, "ca.crt"), "--cert", filepath.Join(out, "tls.crt"), "--key", filepath.Join(out, "tls.key"),
			"--kubeconfig", kubeconfig, "--policy", file("agent-policy.yaml"), "--dns-server", testbed.InsideAddress.String() + ":53", "--log-level", "debug",
		},
	})
	if err != nil {
		return err
	}
	return testbed.Poll(ctx, "the tunnel", w.reaches)
}

// reaches tells whether a target and the API server are reached through the tunnel.
func (w *world) reaches(ctx context.Context) error {
	cmd := command(ctx, "connect", "edge-1", "web.prod:7000")
	cmd.Stdin = strings.NewReader("x")
	out, err := cmd.Output()
	if err == nil && string(out) != "got x" {
		err = fmt.Errorf("%q", out)
	}
	if err == nil {
		_, err = output(command(ctx, "ping", "edge-1", "-c", "1"))
	}
	return err
}

// startTargets serves what needs no program.
func (w *world) startTargets(ctx context.Context) error {
	for port, serve := range map[string]func(*net.TCPConn){"7000": answerLate, "7001": w.endFirst, "7002": echo, "7003": discard, "7004": refuseMore, "7010": echo, "22": echo} {
		ln, err := w.private.Inside.Listen(ctx, net.JoinHostPort(testbed.InsideAddress.String(), port))
		if err != nil {
			return err
		}
		w.listeners = append(w.listeners, ln)
		w.serving.Go(func() { w.serve(ln, serve) })
	}
	ln, err := w.private.Inside.Listen(ctx, net.JoinHostPort(testbed.InsideAddress.String(), "8000"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "web %s", r.Host) })}
	w.listeners = append(w.listeners, server)
	w.serving.Go(func() { _ = server.Serve(ln) }) // ends when it is closed
	var names net.PacketConn
	err = w.private.Inside.Do(func() (err error) {
		names, err = net.ListenPacket("udp", testbed.InsideAddress.String()+":53")
		return err
	})
	if err != nil {
		return err
	}
	w.listeners = append(w.listeners, names)
	w.serving.Go(func() { answerNames(names) })
	return nil
}

// serve accepts until ln is closed.
func (w *world) serve(ln net.Listener, serve func(*net.TCPConn)) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		w.serving.Go(func() {
			defer conn.Close()
			serve(conn.(*net.TCPConn))
		})
	}
}

// answerLate answers once all has come.
func answerLate(c *net.TCPConn) {
	if text, err := io.ReadAll(c); err == nil {
		_, _ = io.WriteString(c, "got "+string(text))
	}
}

// endFirst ends its half, and tells the test what it gets then.
func (w *world) endFirst(c *net.TCPConn) {
	_, _ = io.WriteString(c, "bye")
	if err := c.CloseWrite(); err != nil {
		return
	}
	text, err := io.ReadAll(c)
	w.late <- fmt.Sprintf("%s %v", text, err)
}

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// noMore is the answer of refuseMore.
var noMore = strings.Repeat("no more! ", 1000)

// refuseMore closes while there is more to read, which resets the connection.
func refuseMore(c *net.TCPConn) {
	if _, err := io.ReadFull(c, make([]byte, 64<<10)); err == nil {
		_, _ = io.WriteString(c, noMore)
	}
}

func discard(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }

// answerNames is the network's DNS.
func answerNames(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		switch strings.ToLower(q.Name.String()) {
		case "vm.prod.", "db.prod.", "web.prod.":
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: testbed.InsideAddress.As4()},
				}}
			}
		default:
			m.RCode = dnsmessage.RCodeNameError
		}
		if packet, err := m.Pack(); err == nil {
			_, _ = conn.WriteTo(packet, from) // who asks asks again
		}
	}
}

// close ends everything and looks for what must be in no log.
func (w *world) close() error {
	var errs []error
	for _, p := range []*testbed.Process{w.agent, w.hub} {
		if p != nil {
			errs = append(errs, p.Stop(context.Background()))
		}
	}
	if w.port != nil {
		w.port.Close()
	}
	if w.sshd != nil {
		errs = append(errs, w.sshd.Close())
	}
	if w.postgres != nil {
		errs = append(errs, w.postgres.Close())
	}
	for _, c := range w.listeners {
		_ = c.Close() // a server closes its listener as well
	}
	w.serving.Wait()
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	if w.private != nil {
		errs = append(errs, w.private.Close())
	}
	logs, err := filepath.Glob(file("*.log"))
	errs = append(errs, err)
	for _, log := range logs {
		text, err := os.ReadFile(log)
		errs = append(errs, err)
		for _, secret := range []string{w.ada, w.bob} {
			if strings.Contains(string(text), secret) {
				errs = append(errs, fmt.Errorf("%s has a credential in it", log))
			}
		}
		if strings.Contains(string(text), "DATA RACE") {
			errs = append(errs, fmt.Errorf("%s has a data race in it", log))
		}
	}
	return errors.Join(errs...)
}

// file is one of the run's folder.
func file(name string) string { return filepath.Join(testbed.Dir(), name) }

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }
