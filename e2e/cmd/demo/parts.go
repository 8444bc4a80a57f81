package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// demo is all that runs: two clusters, a hub, an agent, and the files that a
// user needs. It is used by one goroutine.
type demo struct {
	dir     string
	servers testbed.Servers
	culvert testbed.Culvert

	bed          *testbed.Bed
	hub, managed *testbed.Cluster
	hubPort      *testbed.Port
	hubProcess   *testbed.Process
	agentProcess *testbed.Process
	caFile       string // verifies the hub
	kubeconfig   string // contexts hub and managed, as administrator
	token        string // of the hub user test-sa, once the walkthrough made it
}

// build gets the binaries, with progress on standard error.
func build(ctx context.Context, dir string) (*demo, error) {
	d := &demo{dir: dir, caFile: filepath.Join(dir, "ca.crt"), kubeconfig: filepath.Join(dir, "kubeconfig")}
	if err := testbed.Need(ctx, os.Stderr, "bash", "curl"); err != nil {
		return nil, err
	}
	var err error
	if d.servers, err = testbed.ServerBinaries(ctx, os.Stderr); err != nil {
		return nil, err
	}
	bin := filepath.Join(dir, "bin")
	if d.culvert, err = testbed.CulvertBinaries(ctx, bin, os.Stderr); err != nil {
		return nil, err
	}
	// Commands are shown, and can be pasted, with the plain name of kubectl.
	if err := os.Symlink(d.servers.Kubectl, filepath.Join(bin, "kubectl")); err != nil {
		return nil, err
	}
	return d, nil
}

// start brings everything up and waits until it is ready, but for the tunnel,
// which can be asked only with a hub user's token.
func (d *demo) start(ctx context.Context, s screen) error {
	s.heading("Starting two Kubernetes API servers, hub and managed")
	started := time.Now()
	var err error
	if d.bed, err = testbed.New(ctx, testbed.Config{Dir: d.dir, Servers: d.servers}); err != nil {
		return err
	}
	clusters, err := d.bed.StartClusters(ctx, testbed.ClusterConfig{Name: "hub"}, testbed.ClusterConfig{Name: "managed"})
	if err != nil {
		return err
	}
	d.hub, d.managed = clusters[0], clusters[1]
	text := testbed.Kubeconfigs(d.hub.AdminContext(), d.managed.AdminContext())
	if err := os.WriteFile(d.kubeconfig, text, 0o600); err != nil {
		return err
	}
	s.answer(fmt.Sprintf("both are ready after %.1f s", time.Since(started).Seconds()))
	s.heading("Starting culvert-hub, and culvert-agent for the cluster managed")
	if err := d.startHub(ctx, s); err != nil {
		return err
	}
	return d.startAgent(ctx, s)
}

// startHub makes the hub's CAs and starts it, with a service account of the hub
// cluster that may only review tokens.
func (d *demo) startHub(ctx context.Context, s screen) error {
	reviewer, err := d.hub.ReviewerKubeconfig(ctx)
	if err != nil {
		return err
	}
	state := filepath.Join(d.dir, "hub-state")
	if err := d.cli(ctx, s, "pki", "init", "--state", state); err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(state, "pki", "serving-ca.crt"))
	if err != nil {
		return fmt.Errorf("the hub's serving CA: %w", err)
	}
	if err := os.WriteFile(d.caFile, ca, 0o600); err != nil {
		return err
	}
	if d.hubPort, err = testbed.ReservePort(nil, netip.MustParseAddr("127.0.0.1")); err != nil {
		return err
	}
	args := []string{"--listen", d.hubPort.Addr(), "--state", state, "--token-review-kubeconfig", reviewer}
	s.command("culvert-hub " + strings.Join(args, " ") + " &")
	d.hubProcess, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-hub", Path: d.culvert.Hub, Args: args, LogDir: d.dir,
		Ready: func(ctx context.Context) error { return d.get(ctx, "/-/readyz") },
	})
	return err
}

// startAgent issues a certificate for the cluster managed and starts its agent,
// with a service account that may only impersonate.
func (d *demo) startAgent(ctx context.Context, s screen) error {
	kubeconfig, err := d.managed.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	certs := filepath.Join(d.dir, "agent")
	if err := d.cli(ctx, s, "pki", "agent", "--state", filepath.Join(d.dir, "hub-state"), "--cluster", "managed", "--out", certs); err != nil {
		return err
	}
	args := []string{
		"--hub", d.hubPort.Addr(), "--hub-ca", filepath.Join(certs, "ca.crt"),
		"--cert", filepath.Join(certs, "tls.crt"), "--key", filepath.Join(certs, "tls.key"),
		"--kubeconfig", kubeconfig,
	}
	s.command("culvert-agent " + strings.Join(args, " ") + " &")
	d.agentProcess, err = testbed.StartProcess(ctx, testbed.ProcessConfig{
		Name: "culvert-agent", Path: d.culvert.Agent, Args: args, LogDir: d.dir,
	})
	return err
}

// cli runs the culvert command.
func (d *demo) cli(ctx context.Context, s screen, args ...string) error {
	s.command("culvert " + strings.Join(args, " "))
	out, err := exec.CommandContext(ctx, d.culvert.CLI, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("culvert %s: %w: %s", strings.Join(args, " "), err, out)
	}
	s.answer(string(out))
	return nil
}

// url is the hub's address, as users see it.
func (d *demo) url() string { return "https://" + d.hubPort.Addr() }

// get asks the hub as the hub user, once there is a token, and reports any answer
// but 200 as an error.
func (d *demo) get(ctx context.Context, path string) error {
	ca, err := os.ReadFile(d.caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate", d.caFile)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url()+path, nil)
	if err != nil {
		return err
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s %s", path, resp.Status, resp.Header.Get("X-Culvert-Error"))
	}
	return nil
}

// died tells the name of the first process that ends on its own. Its goroutines
// end when their processes do, at the latest in close.
func (d *demo) died() <-chan string {
	first := make(chan string, len(d.processes()))
	for name, p := range d.processes() {
		go tellEnd(name, p, first)
	}
	return first
}

func tellEnd(name string, p *testbed.Process, to chan<- string) {
	<-p.Done()
	to <- name
}

func (d *demo) processes() map[string]*testbed.Process {
	return map[string]*testbed.Process{
		"culvert-hub": d.hubProcess, "culvert-agent": d.agentProcess,
		"the API server of hub": d.hub.APIServer, "the API server of managed": d.managed.APIServer,
		"etcd": d.bed.Etcd(),
	}
}

// logTail returns the end of a process's log.
func (d *demo) logTail(name string) string {
	text, err := os.ReadFile(d.processes()[name].Log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4<<10):])
}

// close stops everything, in the reverse order of starting.
func (d *demo) close() error {
	var errs []error
	for _, p := range []*testbed.Process{d.agentProcess, d.hubProcess} {
		if p != nil {
			errs = append(errs, p.Stop(context.Background()))
		}
	}
	if d.hubPort != nil {
		d.hubPort.Close()
	}
	if d.bed != nil {
		errs = append(errs, d.bed.Close())
	}
	return errors.Join(errs...)
}
