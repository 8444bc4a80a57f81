package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
	remote "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	kubelet "k8s.io/kubelet/pkg/cri/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// The kubelet's own limits of streams.
const (
	streamIdle     = 4 * time.Hour
	streamCreation = 30 * time.Second
)

// handler serves what the API server asks a kubelet for, at the kubelet's paths.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.exec)
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", n.attach)
	mux.HandleFunc("/portForward/{namespace}/{pod}", n.portForward)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.logs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.begin() {
			defer n.running.Done()
			mux.ServeHTTP(w, r)
		}
	})
}

// found returns the container of a request, or answers that there is none.
func (n *Node) found(w http.ResponseWriter, r *http.Request) *container {
	c, err := n.container(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil
	}
	select {
	case <-c.ready:
		return c
	case <-r.Context().Done():
		return nil
	}
}

func (n *Node) exec(w http.ResponseWriter, r *http.Request) {
	options, err := kubelet.NewOptions(r)
	command := r.URL.Query()["command"]
	if err == nil && len(command) == 0 {
		err = errors.New("no command")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if c := n.found(w, r); c != nil {
		kubelet.ServeExec(w, r, c, c.pod.key.Name, c.pod.uid, c.spec.Name, command, options, streamIdle, streamCreation, remote.SupportedStreamingProtocols)
	}
}

func (n *Node) attach(w http.ResponseWriter, r *http.Request) {
	options, err := kubelet.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if c := n.found(w, r); c != nil {
		kubelet.ServeAttach(w, r, c, c.pod.key.Name, c.pod.uid, c.spec.Name, options, streamIdle, streamCreation, remote.SupportedStreamingProtocols)
	}
}

func (n *Node) portForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n.mu.Lock()
	p := n.pods[types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}]
	n.mu.Unlock()
	if p == nil {
		http.Error(w, "the pod is not on node "+n.name, http.StatusNotFound)
		return
	}
	portforward.ServePortForward(w, r, p, p.key.Name, p.uid, options, streamIdle, streamCreation, portforward.SupportedProtocols)
}

// ExecInContainer implements the kubelet's Executor. A command whose caller is gone
// goes on if it has no terminal, up to its next output or the end of its input.
func (c *container) ExecInContainer(ctx context.Context, _ string, _ types.UID, _ string, argv []string, in io.Reader, out, problems io.WriteCloser, tty bool, sizes <-chan remotecommand.TerminalSize, _ time.Duration) error {
	s := streams{in: in, resize: sizes, hangUp: true}
	// A nil of these types is not a nil io.Writer.
	if out != nil {
		s.out = out
	}
	if problems != nil {
		s.err = problems
	}
	if tty && s.out == nil {
		s.out = io.Discard
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.pod.node.life, cancel)()
	go endWith(ctx, c.ended, cancel)
	task, err := c.pod.node.startTask(c.command(ctx, argv), s, tty)
	if err != nil {
		return utilexec.CodeExitError{Err: err, Code: 126} // what a shell reports for it
	}
	task.awaitExit()
	if code := exitCode(task.wait()); code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return nil
}

// endWith ends a command with its container, or with ctx.
func endWith(ctx context.Context, ended <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-ended:
		cancel()
	case <-ctx.Done():
	}
}

// AttachContainer implements the kubelet's Attacher. It ends with the container, or
// with its caller where that can be seen: at output that cannot be written.
func (c *container) AttachContainer(ctx context.Context, _ string, _ types.UID, _ string, in io.Reader, out, problems io.WriteCloser, _ bool, sizes <-chan remotecommand.TerminalSize) error {
	l := &listener{lost: make(chan struct{})}
	if out != nil {
		l.stdout = out
	}
	if problems != nil {
		l.stderr = problems
	}
	c.out.add(l)
	defer c.out.remove(l)
	if c.terminal != nil && sizes != nil {
		go resize(c.terminal, sizes)
	}
	// A caller with outputs stays when its input ends.
	var left chan struct{}
	if in != nil {
		heard := make(chan struct{})
		go c.listen(in, heard)
		if out == nil && problems == nil {
			left = heard
		}
	}
	select {
	case <-c.ended:
		return nil
	case <-left:
		return nil
	case <-l.lost:
		return errors.New("the caller is gone")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listen takes an attached caller's input, up to its end, and closes done.
func (c *container) listen(from io.Reader, done chan<- struct{}) {
	defer close(done)
	switch {
	case c.terminal != nil:
		_, _ = io.Copy(c.terminal, from) // the container may end before its caller
	case c.stdin != nil:
		_, _ = io.Copy(c.stdin, from)
		if c.spec.StdinOnce {
			_ = c.stdin.Close() // a pipe of this process
		}
	default:
		_, _ = io.Copy(io.Discard, from)
	}
}

// PortForward implements the kubelet's PortForwarder. A side that ends its
// direction leaves the other one open.
func (p *pod) PortForward(_ context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	address := net.JoinHostPort(loopback.String(), strconv.Itoa(int(port)))
	ctx, cancel := context.WithTimeout(p.node.life, streamCreation)
	defer cancel()
	conn, err := p.node.cluster.Namespace.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(p.node.life, func() { _ = conn.Close() })()
	go forward(conn, stream)
	_, err = io.Copy(stream, conn)
	if closed := conn.Close(); !errors.Is(closed, net.ErrClosed) {
		err = errors.Join(err, closed)
	}
	return err
}

// forward carries what the caller sends, and its end. It ends with the caller's
// stream, which the kubelet's library closes.
func forward(to net.Conn, from io.Reader) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite() // or it is closed
	}
}
