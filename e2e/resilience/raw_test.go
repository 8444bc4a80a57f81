package resilience

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// raw is a hub embedded in the test with one agent process: it opens raw
// sessions.
type raw struct {
	hub   *hub
	agent *testbed.Process
	// targets is what sessions lead to, inside of the private network.
	targets net.Listener
}

func (l *lab) startRaw(t *testing.T, name string) *raw {
	t.Helper()
	r := &raw{hub: l.startEmbedded(t, name)}
	r.agent = r.hub.startAgent(t, "agent")
	r.targets = l.listen(t, testbed.InsideAddress)
	r.hub.awaitAgents(t, 1)
	return r
}

// dial opens a raw session by way of the agent.
func (r *raw) dial(ctx context.Context, address string) (net.Conn, error) {
	return r.hub.server.DialContext(ctx, clusterName, "tcp", address)
}

// halfCloser is what a raw session can do beside net.Conn.
type halfCloser interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
}

// pipe opens a session and returns both of its ends: the caller's, and the
// target's TCP connection with the agent.
func (r *raw) pipe(ctx context.Context) (halfCloser, *net.TCPConn, error) {
	conn, err := r.dial(ctx, r.targets.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	caller, ok := conn.(halfCloser)
	if !ok {
		return nil, nil, fmt.Errorf("a raw session is a %T, which cannot be closed by halves", conn)
	}
	// The session is open once the agent has connected, so this does not wait.
	accepted, err := r.targets.Accept()
	if err != nil {
		return nil, nil, err
	}
	target, ok := accepted.(*net.TCPConn)
	if !ok {
		return nil, nil, fmt.Errorf("the target accepted a %T", accepted)
	}
	return caller, target, nil
}

// ends returns both ends of a new session, which the test's end closes. Nothing
// that they do may take longer than a minute.
func (r *raw) ends(t *testing.T) (halfCloser, *net.TCPConn) {
	t.Helper()
	caller, target, err := r.pipe(within(t, 20*time.Second))
	must(t, err)
	t.Cleanup(func() {
		_ = caller.Close() // the test may have closed it
		_ = target.Close() // likewise
	})
	must(t, caller.SetDeadline(time.Now().Add(time.Minute)))
	must(t, target.SetDeadline(time.Now().Add(time.Minute)))
	return caller, target
}
