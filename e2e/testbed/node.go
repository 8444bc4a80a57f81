package testbed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	remote "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/klog/v2"
	kubelet "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
)

// Node is a node of a cluster whose "containers" are processes of this machine:
// exec into a pod of it, by kubelet's own streaming server, runs the command as
// it is. It serves nothing else. Its methods are safe for concurrent use.
type Node struct {
	cluster *Cluster
	name    string
	server  *http.Server
	ended   chan error
	stop    context.CancelFunc
}

// StartNode registers a node and serves exec for it. The cluster must be in the
// caller's network, and the caller isolated: the node has HubAddress. Close ends it, and the
// commands that still run.
func (c *Cluster) StartNode(ctx context.Context, name string) (*Node, error) {
	n := &Node{cluster: c, name: name, ended: make(chan error, 1)}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(HubAddress.String(), "0"))
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", name, err)
	}
	if err := n.start(ctx, ln); err != nil {
		return nil, fmt.Errorf("node %s: %w", name, errors.Join(err, ln.Close()))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, ln net.Listener) error {
	// The API server does not verify a kubelet unless it is told a CA.
	dir := n.cluster.Dir
	cert, err := tls.LoadX509KeyPair(dir+"/serving.crt", dir+"/serving.key")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return err
	}
	err = n.cluster.Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s}
status:
  addresses: [{type: InternalIP, address: %s}]
  daemonEndpoints: {kubeletEndpoint: {Port: %s}}
`, n.name, HubAddress, port))
	if err != nil {
		return err
	}
	// The kubelet's library reports every session that a test cuts.
	klog.SetLogger(logr.Discard())
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.exec)
	life, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.server = &http.Server{
		Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return life },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
	}
	go n.serve(ln)
	return nil
}

// serve ends with Close.
func (n *Node) serve(ln net.Listener) {
	err := n.server.ServeTLS(ln, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	n.ended <- err
}

// Close ends the node.
func (n *Node) Close() error {
	n.stop()
	return errors.Join(n.server.Close(), <-n.ended)
}

// AddPod makes a pod with one container, main, on the node.
func (n *Node) AddPod(ctx context.Context, namespace, name string) error {
	return n.cluster.Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec: {nodeName: %s, containers: [{name: main, image: none}]}
`, name, namespace, n.name))
}

// exec is the kubelet's handler of the same path.
func (n *Node) exec(w http.ResponseWriter, r *http.Request) {
	options, err := kubelet.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	const idle, creation = 4 * time.Hour, 30 * time.Second // the kubelet's own
	kubelet.ServeExec(w, r, processes{}, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"], options,
		idle, creation, remote.SupportedStreamingProtocols)
}

// processes runs commands of containers as processes.
type processes struct{}

// ExecInContainer implements the kubelet's Executor.
func (processes) ExecInContainer(ctx context.Context, _ string, _ types.UID, _ string, command []string, in io.Reader, out, problems io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Without Stdin of its own kind Wait does not wait for a caller that stays.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if out != nil {
		cmd.Stdout = out
	}
	if problems != nil {
		cmd.Stderr = problems
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go feed(stdin, in)
	return cmd.Wait()
}

// feed ends with the caller's stream, which ends at the latest with the exec.
func feed(to io.WriteCloser, from io.Reader) {
	if from != nil {
		_, _ = io.Copy(to, from) // a process may end before its caller
	}
	_ = to.Close() // it is gone by then, mostly
}
