package resilience

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// absentHost is an address of the private network that no machine has: a
	// connection attempt waits for its neighbour for some seconds.
	absentHost = "192.0.2.77"
	// unknownHost is a name that the cluster's DNS does not have.
	unknownHost = "nothing.default.svc.cluster.local"
)

func testDial(t *testing.T, l *lab, r *raw) {
	closed, err := testbed.ReservePort(l.private.Inside, testbed.InsideAddress) // nobody listens, and nobody else gets it
	must(t, err)
	t.Cleanup(closed.Close)
	for _, test := range []struct {
		what, address string
		hop           wire.Hop
		code          wire.Code
		errno         error // what a local dial would say, where there is one
	}{
		{"a target that refuses", closed.Addr(), wire.HopTarget, wire.CodeConnectionRefused, syscall.ECONNREFUSED},
		{"a name that does not exist", unknownHost + ":80", wire.HopAgent, wire.CodeNotFound, nil},
		{"a target that the agent's owner does not allow", "127.0.0.1:22", wire.HopAgent, wire.CodePermissionDenied, nil},
		{"a host that is not there", absentHost + ":80", wire.HopTarget, wire.CodeUnreachable, nil},
		{"an address that is none", "192.0.2.2:http", wire.HopHub, wire.CodeInvalidTarget, nil},
	} {
		t.Run("K1: "+test.what+" is told to the dialler by hop and code", func(t *testing.T) {
			conn, err := r.dial(within(t, time.Minute), test.address)
			if err == nil {
				t.Fatalf("dialled %v", conn.RemoteAddr())
			}
			t.Logf("%v", err)
			f := fault.As(err)
			if f == nil || f.Hop != test.hop || f.Code != test.code || f.Cluster != clusterName {
				t.Errorf("%#v; want %v of %v for the cluster %s", f, test.code, test.hop, clusterName)
			}
			if test.errno != nil && !errors.Is(err, test.errno) {
				t.Errorf("errors.Is does not find %v", test.errno)
			}
		})
	}

	t.Run("K1: a cluster that never joined is told to the dialler", func(t *testing.T) {
		_, err := r.hub.server.DialContext(t.Context(), "never-seen", "tcp", "192.0.2.2:80")
		if f := fault.As(err); f == nil || f.Hop != wire.HopHub || f.Code != wire.CodeNotFound {
			t.Errorf("%v", err)
		}
	})

	t.Run("K1: a dial that is cancelled ends at once, and so does the agent's attempt", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const port = 4242
		must(t, l.private.Inside.Do(func() error { return dropPort("silent", port) })) // nobody answers there
		dialled := make(chan error, 1)
		go dialOnce(ctx, r, netip.AddrPortFrom(testbed.InsideAddress, port).String(), dialled)
		attempts := func() (int, error) { return connecting(r.agent, port) }
		must(t, testbed.Poll(within(t, time.Minute), "the agent's attempt", func(context.Context) error {
			n, err := attempts()
			if err == nil && n == 0 {
				err = errors.New("the agent does not try")
			}
			return err
		}))
		cancelled := time.Now()
		cancel()
		err := <-dialled
		took := time.Since(cancelled)
		t.Logf("%v, %v after it was cancelled", err, took)
		l.inTime(t, "the end of the cancelled dial", took, 500*time.Millisecond)
		if f := fault.As(err); !errors.Is(err, context.Canceled) || f == nil || f.Code != wire.CodeCanceled {
			t.Errorf("%v; want context.Canceled with code canceled", err)
		}
		// The kernel alone would try for about two minutes.
		must(t, testbed.Poll(within(t, time.Minute), "the end of the agent's attempt", func(context.Context) error {
			n, err := attempts()
			if err == nil && n > 0 {
				err = errors.New("the agent still tries")
			}
			return err
		}))
		l.inTime(t, "the end of the agent's attempt", time.Since(cancelled), time.Second)
		// A cancelled dial is nobody else's trouble.
		r.ends(t)
	})
}

// dialOnce sends one result.
func dialOnce(ctx context.Context, r *raw, address string, result chan<- error) {
	conn, err := r.dial(ctx, address)
	if err == nil {
		err = errors.Join(fmt.Errorf("dialled %s", address), conn.Close())
	}
	result <- err
}

// connecting counts the connections to a port that are being made in the
// network of a process.
func connecting(p *testbed.Process, port uint16) (int, error) {
	sockets, err := socketTable(fmt.Sprintf("/proc/%d", p.PID()), "tcp", stateSynSent)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, s := range sockets {
		if strings.HasSuffix(s.remote, fmt.Sprintf(":%04X", port)) {
			n++
		}
	}
	return n, nil
}
