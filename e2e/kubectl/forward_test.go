package kubectl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
)

// echoServer sends back what it gets: it is what listens in a pod.
type echoServer struct {
	port  string
	ln    net.Listener
	conns sync.WaitGroup
}

// startEcho starts one until the end of t.
func startEcho(t *testing.T) *echoServer {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	e := &echoServer{ln: ln}
	_, e.port, err = net.SplitHostPort(ln.Addr().String())
	must(t, err)
	e.conns.Go(e.serve)
	t.Cleanup(func() {
		check(t, ln.Close())
		e.conns.Wait()
	})
	return e
}

// serve ends with the listener.
func (e *echoServer) serve() {
	for {
		conn, err := e.ln.Accept()
		if err != nil {
			return
		}
		e.conns.Go(func() { echo(conn) })
	}
}

// echo ends with what its peer sends.
func echo(conn net.Conn) {
	_, _ = io.Copy(conn, conn) // the peer sees what is missing
	_ = conn.Close()
}

const (
	// forwarded is how many connections are open at once.
	forwarded = 100
	// forwardedSize is what each of them carries, each way.
	forwardedSize = 64 << 10
)

// forward sends data of its own over each of many connections at once.
func forward(ctx context.Context, c *client) error {
	s, err := c.start(ctx, "port-forward", "--address=127.0.0.1", "pod/worker", ":"+c.w.echo.port)
	if err != nil {
		return err
	}
	out := bufio.NewReader(s.out)
	line, err := out.ReadString('\n')
	address, _, ok := strings.Cut(strings.TrimPrefix(line, "Forwarding from "), " -> ")
	if err != nil || !ok {
		return s.failed(fmt.Errorf("kubectl said %q: %w", line, err))
	}
	// kubectl reports each connection, and must not wait for a reader.
	copied := make(chan struct{})
	go copyOut(io.Discard, out, copied)
	conns := make([]net.Conn, 0, forwarded)
	results := make(chan error, forwarded)
	for range forwarded {
		conn, dialErr := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err = dialErr; err != nil {
			break
		}
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		go exchange(ctx, conn, uint64(i), results)
	}
	for range conns {
		err = errors.Join(err, <-results)
	}
	killed := s.kill(true)
	<-copied
	if err != nil {
		err = fmt.Errorf("%w; kubectl said %s", err, withoutFrames(s.stderr.String()))
	}
	return errors.Join(err, killed)
}

// exchange sends one result: whether all that it sent came back, and nothing else.
func exchange(ctx context.Context, conn net.Conn, seed uint64, result chan<- error) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	data := make([]byte, forwardedSize)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), 2}).Read(data) // it has no errors
	sent := make(chan error, 1)
	go send(conn, data, sent)
	got := make([]byte, len(data))
	_, err := io.ReadFull(conn, got)
	if err == nil && !bytes.Equal(got, data) {
		err = errors.New("it got another's data")
	}
	if err = errors.Join(err, <-sent, conn.Close()); err != nil {
		err = fmt.Errorf("connection %d: %w", seed, err)
	}
	result <- err
}

// send sends one result.
func send(conn net.Conn, data []byte, result chan<- error) {
	_, err := conn.Write(data)
	result <- err
}
