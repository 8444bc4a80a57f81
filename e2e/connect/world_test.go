package connect

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// world is a hub, and an agent of cluster edge-1 in a private network with its
// targets, which are reached from there alone:
//
//	vm1.edge-1.internal, 192.0.2.2    the network's host: echo on 5900, a web server on
//	                                  5901, nobody on 5902, 5903 only for eve by the hub's
//	                                  policy, 5904 refused by the agent's, 22 in no set
//	meta.edge-1.internal              a name that leads to a cloud's metadata
type world struct {
	private   *testbed.PrivateNetwork
	listeners []io.Closer
	serving   sync.WaitGroup

	hub, strict  *hub
	agent        *testbed.Process
	ada, secret2 string
}

// hub is a process culvert-hub with a listener of each kind.
type hub struct {
	process                       *testbed.Process
	main, secure, plain, consoles *testbed.Port
	state                         string
	roots                         *x509.CertPool
}

const hubYAML = `
connect:
  listen: [%q]
  plainListen: [%q]
  plainAllowFrom: [198.18.0.0/15]
  ports: [consoles, ssl]
  anonymous: %v
  routes:
  - hosts: ["*.edge-1.internal"]
    cidrs: [192.0.2.0/24, 127.0.0.0/8, 169.254.0.0/16, "::1/128"]
    cluster: edge-1
  - hosts: [localhost]
    cluster: edge-1
  - hosts: ["*.edge-2.internal"]
    cluster: edge-2
websocket:
  listen: [%q]
policy: {file: %q}
`

const hubPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: consoles
  effect: allow
  users: [ada]
  tcp:
  - {cidrs: [0.0.0.0/0, "::/0"], ports: [5900-5902, 5904, 443]}
  - {hosts: ["*"], ports: [5900-5902, 5904, 443]}
- name: kiosk
  effect: allow
  users: ["system:anonymous"]
  tcp: [{hosts: [vm1.edge-1.internal], ports: [5901]}]
`

const agentPolicy = `apiVersion: policy.culvert.dev/v1
kind: Policy
rules:
- name: consoles
  effect: allow
  tcp:
  - {cidrs: [0.0.0.0/0, "::/0"], ports: [5900-5903, 443]}
  - {hosts: ["*"], cidrs: [0.0.0.0/0], ports: [5900-5903, 443]}
`

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{ada: rand.Text(), secret2: rand.Text()}
	the = w
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.private, err = testbed.NewPrivateNetwork(); err != nil {
		return nil, err
	}
	if err := w.startTargets(ctx); err != nil {
		return nil, err
	}
	if w.hub, err = w.startHub(ctx, "open", true); err != nil {
		return nil, err
	}
	if w.strict, err = w.startHub(ctx, "strict", false); err != nil {
		return nil, err
	}
	return w, w.startAgent(ctx)
}

func (w *world) startHub(ctx context.Context, name string, anonymous bool) (_ *hub, err error) {
	h := &hub{state: filepath.Join(testbed.Dir(), "hub-"+name), roots: x509.NewCertPool()}
	for _, p := range []**testbed.Port{&h.main, &h.secure, &h.plain, &h.consoles} {
		if *p, err = testbed.ReservePort(nil, testbed.HubAddress); err != nil {
			return nil, err
		}
	}
	file := func(name string) string { return h.state + "-" + name }
	err = errors.Join(
		os.WriteFile(file("tokens.csv"), fmt.Appendf(nil, "%s,ada,1\n%s,bob,2\n", w.ada, w.secret2), 0o600),
		os.WriteFile(file("policy.yaml"), []byte(hubPolicy), 0o600),
		os.WriteFile(file("hub.yaml"), fmt.Appendf(nil, hubYAML, h.secure.Addr(), h.plain.Addr(), anonymous, h.consoles.Addr(), file("policy.yaml")), 0o600))
	if err != nil {
		return nil, err
	}
	if _, err := run(ctx, "culvert", "pki", "init", "--state", h.state); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(h.ca())
	if err != nil {
		return nil, err
	}
	h.roots.AppendCertsFromPEM(ca)
	h.process, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub-" + name, Path: bin("culvert-hub"), LogDir: testbed.Dir(), Env: processEnv(),
		Args: []string{
			"--config", file("hub.yaml"), "--listen", h.main.Addr(), "--tls-name", testbed.HubAddress.String(), "--token-file", file("tokens.csv"),
			"--state", h.state, "--log-level", "debug", "--drain-timeout", "1s",
		},
		Ready: func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.consoles.Addr()) // the last that is opened
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return h, err
}

func (h *hub) ca() string { return filepath.Join(h.state, "pki", "serving-ca.crt") }

// startAgent starts the agent inside of the private network, and waits until it
// serves.
func (w *world) startAgent(ctx context.Context) error {
	out := filepath.Join(testbed.Dir(), "agent")
	if _, err := run(ctx, "culvert", "pki", "agent", "--state", w.hub.state, "--cluster", "edge-1", "--out", out); err != nil {
		return err
	}
	ca, err := os.ReadFile(w.hub.ca())
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(out+".kubeconfig", testbed.Kubeconfig("https://192.0.2.2:1", ca, "none"), 0o600), // no API server is asked
		os.WriteFile(out+"-policy.yaml", []byte(agentPolicy), 0o600))
	if err != nil {
		return err
	}
	w.agent, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent", Path: bin("culvert-agent"), LogDir: testbed.Dir(), Env: processEnv(), Namespace: w.private.Inside,
		Args: []string{
			"--hub", w.hub.main.Addr(), "--hub-ca", filepath.Join(out, "ca.crt"), "--cert", filepath.Join(out, "tls.crt"), "--key", filepath.Join(out, "tls.key"),
			"--kubeconfig", out + ".kubeconfig", "--policy", out + "-policy.yaml", "--dns-server", testbed.InsideAddress.String() + ":53", "--log-level", "debug",
		},
	})
	if err != nil {
		return err
	}
	return testbed.Poll(ctx, "the tunnel", func(ctx context.Context) error {
		conn, status, err := w.hub.connect(ctx, w.hub.plain.Addr(), "192.0.2.2:5900", bearer(w.ada))
		if err != nil {
			return err
		}
		conn.Close()
		if status != http.StatusOK {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
}

// startTargets serves the private network's host.
func (w *world) startTargets(ctx context.Context) error {
	inside := func(port string) (net.Listener, error) {
		ln, err := w.private.Inside.Listen(ctx, net.JoinHostPort(testbed.InsideAddress.String(), port))
		if err == nil {
			w.listeners = append(w.listeners, ln)
		}
		return ln, err
	}
	for _, port := range []string{"5900", "5903", "5904", "22"} {
		ln, err := inside(port)
		if err != nil {
			return err
		}
		w.serving.Go(func() { w.echo(ln) })
	}
	ln, err := inside("5901")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "web %s %q", r.Host, r.Header["Proxy-Authorization"])
	})}
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

// echo answers each connection with what came, once all of it has.
func (w *world) echo(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		w.serving.Go(func() {
			defer conn.Close()
			if text, err := io.ReadAll(conn); err == nil {
				_, _ = io.WriteString(conn, "echo "+string(text))
			}
		})
	}
}

// answerNames is the network's DNS.
func answerNames(conn net.PacketConn) {
	known := map[string]netip.Addr{
		"vm1.edge-1.internal.": testbed.InsideAddress, "meta.edge-1.internal.": netip.MustParseAddr("169.254.169.254"), "localhost.": testbed.InsideAddress,
	}
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
		address, ok := known[strings.ToLower(q.Name.String())]
		m.Response, m.Additionals = true, nil
		if !ok {
			m.RCode = dnsmessage.RCodeNameError
		} else if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: address.As4()},
			}}
		}
		if packet, err := m.Pack(); err == nil {
			_, _ = conn.WriteTo(packet, from) // who asks asks again
		}
	}
}

// close ends everything and looks for what must be in no log.
func (w *world) close() error {
	var errs []error
	if w.agent != nil {
		errs = append(errs, w.agent.Stop(context.Background()))
	}
	for _, h := range []*hub{w.hub, w.strict} {
		if h == nil {
			continue
		}
		if h.process != nil {
			errs = append(errs, h.process.Stop(context.Background()))
		}
		for _, p := range []*testbed.Port{h.main, h.secure, h.plain, h.consoles} {
			if p != nil {
				p.Close()
			}
		}
	}
	for _, c := range w.listeners {
		_ = c.Close() // a server closes its listener as well
	}
	w.serving.Wait()
	if w.private != nil {
		errs = append(errs, w.private.Close())
	}
	logs, err := filepath.Glob(filepath.Join(testbed.Dir(), "*.log"))
	errs = append(errs, err)
	for _, log := range logs {
		text, err := os.ReadFile(log)
		errs = append(errs, err)
		for _, secret := range []string{w.ada, w.secret2, basicOf(w.ada)} {
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

// bin returns one of the binaries that prepare made.
func bin(name string) string { return filepath.Join(testbed.Dir(), "bin", name) }

// processEnv is added to the environment of Culvert's processes: the race
// detector's runtime else waits a second at the end of each.
func processEnv() []string { return []string{"GORACE=atexit_sleep_ms=0"} }

// run runs a program of the test's folder bin to its end.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin(name), args...)
	cmd.Env = append(os.Environ(), processEnv()...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return string(text), fmt.Errorf("%s %v: %w: %s", name, args, err, text)
	}
	return string(text), nil
}
