package testbed

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	coordination "k8s.io/client-go/kubernetes/typed/coordination/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Node is a node of a cluster. It keeps itself Ready, runs the pods that are bound
// to it and serves exec, attach, port-forward and logs of them to the API server,
// by the kubelet's own streaming server. Its methods are safe for concurrent use.
//
// Containers are processes of this machine, in the network of the cluster and as
// the caller's user. Each has a private folder, which is its working folder unless
// the pod says another; the rest of the file system is the machine's. So an image
// is not looked at, a container without a command sleeps, and ports of a pod are
// those of the loopback of that network. A container that has ended is not started
// again, whatever the restartPolicy; init containers, probes and volumes do not
// exist.
type Node struct {
	cluster *Cluster
	name    string
	dir     string
	port    int32
	nodes   core.CoreV1Interface
	leases  coordination.LeaseInterface
	http    *http.Client // of nodes and leases
	server  *http.Server
	conns   *trackedListener

	// life ends with Close, and with it all that runs.
	life    context.Context
	stop    context.CancelFunc
	running sync.WaitGroup // its loops, pods and requests

	mu     sync.Mutex
	pods   map[types.NamespacedName]*pod
	closed bool
}

// discardKlog silences the kubelet's library, which reports every session that a
// test cuts.
var discardKlog = sync.OnceFunc(func() { klog.SetLogger(logr.Discard()) })

// StartNode registers a node and returns when it is Ready. It listens on the
// loopback of the cluster's network and answers to its API server alone. Close ends
// it, and all processes of its pods.
func (c *Cluster) StartNode(ctx context.Context, name string) (*Node, error) {
	n := &Node{cluster: c, name: name, dir: filepath.Join(c.Dir, "node-"+name), pods: map[types.NamespacedName]*pod{}}
	n.life, n.stop = context.WithCancel(context.Background())
	if err := n.start(ctx); err != nil {
		return nil, fmt.Errorf("node %s: %w", name, errors.Join(err, n.Close()))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	discardKlog()
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return err
	}
	if err := n.connect(); err != nil {
		return err
	}
	if err := n.listen(ctx); err != nil {
		return err
	}
	if err := n.register(ctx); err != nil {
		return err
	}
	n.running.Go(n.keepReady)
	n.running.Go(n.followPods)
	return nil
}

// connect makes the clients of the API server, with the administrator's rights.
func (n *Node) connect() (err error) {
	admin := n.cluster.AdminContext()
	config := &rest.Config{
		Host: admin.Server, BearerToken: admin.Token, TLSClientConfig: rest.TLSClientConfig{CAData: admin.CA},
		Dial: n.cluster.Namespace.Dial, QPS: -1, UserAgent: "testbed-node",
	}
	if n.http, err = rest.HTTPClientFor(config); err != nil {
		return err
	}
	if n.nodes, err = core.NewForConfigAndClient(config, n.http); err != nil {
		return err
	}
	leases, err := coordination.NewForConfigAndClient(config, n.http)
	if err != nil {
		return err
	}
	n.leases = leases.Leases(leaseNamespace)
	return nil
}

// listen starts the server of the API server's requests.
func (n *Node) listen(ctx context.Context) error {
	cert, err := tls.LoadX509KeyPair(filepath.Join(n.cluster.Dir, "serving.crt"), filepath.Join(n.cluster.Dir, "serving.key"))
	if err != nil {
		return err
	}
	// Whoever reaches the port could run commands: only the holder of the API
	// server's own client certificate may.
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(n.cluster.ca) {
		return errors.New("the cluster's CA holds no certificate")
	}
	ln, err := n.cluster.Namespace.Listen(ctx, net.JoinHostPort(loopback.String(), "0"))
	if err != nil {
		return err
	}
	n.port = int32(ln.Addr().(*net.TCPAddr).Port)
	n.conns = &trackedListener{Listener: ln, conns: map[net.Conn]struct{}{}}
	n.server = &http.Server{
		Handler: n.handler(),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		},
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return n.life },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	n.running.Go(n.serve)
	return nil
}

// serve ends with the listener, at Close.
func (n *Node) serve() { _ = n.server.ServeTLS(n.conns, "", "") }

// Close ends the node as a crash would: its processes are killed, and the API
// server still has its objects.
func (n *Node) Close() error {
	n.stop()
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	var err error
	if n.server != nil {
		// The server does not know the connections any more that were upgraded.
		err = errors.Join(n.server.Close(), n.conns.closeAll())
	}
	n.running.Wait()
	if n.http != nil {
		n.http.CloseIdleConnections()
	}
	return errors.Join(err, os.RemoveAll(n.dir))
}

// begin counts a request, for which Close waits, unless it is too late for one.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.running.Add(1)
	}
	return !n.closed
}

// trackedListener knows the connections that it accepted, also once a handler has
// taken them over.
type trackedListener struct {
	net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when closed
}

// Accept implements net.Listener.
func (l *trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: conn, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// closeAll closes the connections that are open.
func (l *trackedListener) closeAll() error {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	var errs []error
	for c := range conns {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

type trackedConn struct {
	net.Conn

	of *trackedListener
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
