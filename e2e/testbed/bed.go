package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// maxSocketPath is the longest path of a Unix socket (unix(7)), without its
// closing zero.
const maxSocketPath = 107

// Config of a Bed.
type Config struct {
	// Dir is an existing folder for data, keys and logs. Its path must be short
	// enough for a Unix socket inside of it. The caller removes it.
	Dir string
	// Servers are the binaries, from ServerBinaries.
	Servers Servers
}

// Bed is one etcd and the clusters that keep their objects in it. Its methods
// are safe for concurrent use.
type Bed struct {
	cfg    Config
	etcd   *Process
	socket string

	mu      sync.Mutex
	closers []func() error // in the order of starting
}

// New starts an empty bed: etcd, ready to serve. Close it.
func New(ctx context.Context, cfg Config) (*Bed, error) {
	b := &Bed{cfg: cfg, socket: filepath.Join(cfg.Dir, "etcd.sock")}
	if len(b.socket) > maxSocketPath {
		return nil, fmt.Errorf("test bed: folder %s: its path is too long for a Unix socket inside (%d bytes at most)", cfg.Dir, maxSocketPath)
	}
	// etcd serves clients and peers on Unix sockets: there is no port to race for,
	// and API servers in any network namespace reach it. The advertised addresses
	// are demanded by its flags but, in a cluster of one, dialled by nobody.
	const peer = "http://127.0.0.1:2380"
	etcd, err := StartProcess(ctx, ProcessConfig{
		Name: "etcd",
		Path: cfg.Servers.Etcd,
		Args: []string{
			"--name=testbed",
			"--data-dir=" + filepath.Join(cfg.Dir, "etcd"),
			"--listen-client-urls=unix://" + b.socket,
			"--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=unix://" + filepath.Join(cfg.Dir, "peer.sock"),
			"--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=testbed=" + peer,
			"--unsafe-no-fsync", // a test's data need not survive the machine
			"--log-level=warn",
		},
		LogDir: cfg.Dir,
		Ready:  b.etcdReady,
	})
	if err != nil {
		return nil, fmt.Errorf("test bed: %w", err)
	}
	b.etcd = etcd
	b.onClose(etcd.Kill9)
	return b, nil
}

// Etcd returns the etcd process.
func (b *Bed) Etcd() *Process { return b.etcd }

// Close ends all processes of the bed, last started first.
func (b *Bed) Close() error {
	b.mu.Lock()
	closers := b.closers
	b.closers = nil
	b.mu.Unlock()
	var errs []error
	for _, end := range slices.Backward(closers) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

func (b *Bed) onClose(f func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, f)
}

// etcdReady asks etcd's health endpoint, which answers 200 once there is a leader.
func (b *Bed) etcdReady(ctx context.Context) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.socket)
	}}
	defer transport.CloseIdleConnections()
	return expectOK(ctx, &http.Client{Transport: transport}, "http://etcd/health", "")
}

// expectOK makes one GET request and reports any answer but 200 as an error.
func expectOK(ctx context.Context, client *http.Client, url, token string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

// mkdir makes a folder of the bed.
func (b *Bed) mkdir(name string) (string, error) {
	dir := filepath.Join(b.cfg.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, nil
}
