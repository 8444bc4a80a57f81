// Package kube starts a real etcd and kube-apiserver for requests through the
// tunnel, from binaries of the end-to-end test bed.
package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/subject"
	"github.com/culvertdev/culvert/internal/pki"
)

// Binaries are the paths of the servers.
type Binaries struct{ Etcd, APIServer string }

// Find returns the binaries of the test bed of the repository at root, and builds
// those that its cache does not hold, which takes some minutes the first time.
// Progress goes to progress.
func Find(ctx context.Context, root string, progress io.Writer) (Binaries, error) {
	script := filepath.Join(root, "e2e", "bin", "build.sh")
	cmd := exec.CommandContext(ctx, script, "--paths", "etcd", "kube-apiserver") //nolint:gosec // a script of this repository
	cmd.Stderr = progress
	out, err := cmd.Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("API server: %s (run from inside the repository): %w", script, err)
	}
	var b Binaries
	for line := range strings.Lines(string(out)) {
		switch name, path, _ := strings.Cut(strings.TrimSpace(line), " "); name {
		case "etcd":
			b.Etcd = path
		case "kube-apiserver":
			b.APIServer = path
		}
	}
	if b.Etcd == "" || b.APIServer == "" {
		return Binaries{}, fmt.Errorf("API server: %s gave no paths", script)
	}
	return b, nil
}

// Server is a running API server. Close it.
type Server struct {
	processes []*process.Process
	client    *http.Client
	base      string
	token     string // of the administrator
}

// readyTime bounds the start.
const readyTime = 90 * time.Second

// Start runs both servers, makes an object of about 1 KiB that the benchmark's
// user may read, and fills in env.Kube.
func Start(ctx context.Context, b Binaries, env *subject.Env) (_ *Server, err error) {
	s := &Server{token: rand.Text()}
	defer func() {
		if err != nil {
			for _, p := range s.processes {
				err = fmt.Errorf("%w\n%s", err, p.Tail())
			}
			err = errors.Join(fmt.Errorf("API server: %w", err), s.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	dir, err := os.MkdirTemp(env.Dir, "kube-")
	if err != nil {
		return nil, err
	}
	port, err := freePort(env.Far.Host)
	if err != nil {
		return nil, err
	}
	s.base = "https://" + net.JoinHostPort(env.Far.Host, port)
	if err := s.launch(ctx, b, env, dir, port); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: env.Roots, MinVersion: tls.VersionTLS13}, Proxy: nil,
	}
	s.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	path, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	env.Kube = &subject.Kube{URL: s.base, CA: env.CA, Path: path, Token: s.token}
	return s, nil
}

func (s *Server) launch(ctx context.Context, b Binaries, env *subject.Env, dir, port string) error {
	socket := "unix://" + filepath.Join(dir, "etcd.sock")
	const peer = "http://127.0.0.1:2380" // demanded by flags, dialled by nobody
	err := s.add(ctx, env, process.Spec{Name: "etcd", Dir: dir, Command: []string{
		b.Etcd, "--name=bench", "--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=" + socket, "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=unix://" + filepath.Join(dir, "peer.sock"),
		"--initial-advertise-peer-urls=" + peer, "--initial-cluster=bench=" + peer,
		"--unsafe-no-fsync", "--log-level=warn",
	}})
	if err != nil {
		return err
	}
	tokens, public, private := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "sa.pub"), filepath.Join(dir, "sa.key")
	if err := errors.Join(
		os.WriteFile(tokens, []byte(s.token+",admin,admin,system:masters\n"), 0o600),
		writeKeys(public, private),
	); err != nil {
		return err
	}
	return s.add(ctx, env, process.Spec{Name: "kube-apiserver", Dir: dir, Command: []string{
		b.APIServer, "--etcd-servers=" + socket, "--bind-address=" + env.Far.Host, "--secure-port=" + port,
		"--advertise-address=198.18.0.1", // only written into Endpoints
		"--cert-dir=" + dir, "--tls-cert-file=" + env.Cert, "--tls-private-key-file=" + env.Key,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + public, "--service-account-signing-key-file=" + private,
		"--authorization-mode=RBAC", "--token-auth-file=" + tokens, "--service-cluster-ip-range=10.96.0.0/16",
		"--disable-admission-plugins=ServiceAccount",
	}})
}

func (s *Server) add(ctx context.Context, env *subject.Env, spec process.Spec) error {
	spec.Within = env.Far.Within
	p, err := process.Start(ctx, spec)
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return err
}

// writeKeys makes the pair that signs tokens of service accounts.
func writeKeys(public, private string) error {
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	secret, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return errors.Join(os.WriteFile(private, secret, 0o600), os.WriteFile(public, text, 0o600))
}

func freePort(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// ready waits until /readyz says so or a server ends.
func (s *Server) ready(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := s.call(ctx, http.MethodGet, "/readyz", nil)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-s.processes[0].Done():
			return fmt.Errorf("etcd ended: %w", err)
		case <-s.processes[1].Done():
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// prepare makes a ConfigMap and lets everybody who is authenticated read it.
func (s *Server) prepare(ctx context.Context) (path string, err error) {
	const rbac = "rbac.authorization.k8s.io"
	type object = map[string]any
	for _, o := range []struct {
		path string
		body object
	}{
		{"/api/v1/namespaces/default/configmaps", object{
			"metadata": object{"name": "bench"}, "data": object{"text": strings.Repeat("0123456789abcdef", 48)},
		}},
		{"/apis/" + rbac + "/v1/clusterroles", object{
			"metadata": object{"name": "bench"},
			"rules":    []object{{"apiGroups": []string{""}, "resources": []string{"configmaps"}, "verbs": []string{"get"}}},
		}},
		{"/apis/" + rbac + "/v1/clusterrolebindings", object{
			"metadata": object{"name": "bench"},
			"roleRef":  object{"apiGroup": rbac, "kind": "ClusterRole", "name": "bench"},
			"subjects": []object{{"apiGroup": rbac, "kind": "Group", "name": "system:authenticated"}},
		}},
	} {
		text, err := json.Marshal(o.body)
		if err != nil {
			return "", err
		}
		if err := s.call(ctx, http.MethodPost, o.path, text); err != nil {
			return "", err
		}
	}
	return "/api/v1/namespaces/default/configmaps/bench", nil
}

// call makes one request as the administrator.
func (s *Server) call(ctx context.Context, method, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, text)
	}
	return nil
}

// Close ends both servers.
func (s *Server) Close() error {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	var errs []error
	for _, p := range slices.Backward(s.processes) {
		errs = append(errs, p.Stop())
	}
	s.processes = nil
	return errors.Join(errs...)
}
