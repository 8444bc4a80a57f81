package client

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/e2e/testbed"
)

// roundTrip is that of the whole way from the client to the agent.
const roundTrip = 100 * time.Millisecond

// attempts is how often a time is taken; the best counts, so that other work of the
// machine is not measured.
const attempts = 10

func TestRoundTrip(t *testing.T) {
	way, err := newRelay(the.port.Addr())
	must(t, err)
	t.Cleanup(way.close)
	cfg := the.config(slog.New(slog.DiscardHandler))
	cfg.Hub = "https://" + way.addr()
	c := newClient(t, cfg)
	ctx := within(t, 2*time.Minute)
	must(t, c.Connect(ctx))
	web := c.RoundTripper()
	// The agent, which another test may have left without its hub, and its own connection
	// to its API server are there before.
	must(t, testbed.Poll(ctx, "far", func(ctx context.Context) error { return version(ctx, web) }))
	open, err := c.DialContext(ctx, "far", "tcp", echo)
	must(t, err)
	defer open.Close()
	measures := []struct {
		name string
		what func(context.Context) error
	}{
		{"a server that speaks first, by DialContext", func(ctx context.Context) error {
			return firstByte(func() (net.Conn, error) { return c.DialContext(ctx, "far", "tcp", greeter) }, "", "welcome")
		}},
		{"a client that speaks first, by DialEarly", func(ctx context.Context) error {
			return firstByte(func() (net.Conn, error) { return c.DialEarly(ctx, "far", "tcp", echo) }, "hello", "hello")
		}},
		{"an HTTP request by RoundTripper, with no session to the hub left from before", func(ctx context.Context) error {
			web.(interface{ CloseIdleConnections() }).CloseIdleConnections()
			return version(ctx, web)
		}},
	}
	for _, delays := range []struct{ hub, agent time.Duration }{{25 * time.Millisecond, 25 * time.Millisecond}, {50 * time.Millisecond, 0}} {
		way.delay.Store(int64(delays.hub))
		the.farWay.delay.Store(int64(delays.agent))
		t.Cleanup(func() { the.farWay.delay.Store(0) })
		for _, m := range measures {
			t.Run(fmt.Sprintf("N3,O2: from a cold dial to the first byte is one round trip of %v (%v to the hub, %v on to the agent, each way): %s", roundTrip, delays.hub, delays.agent, m.name), func(t *testing.T) {
				best, bare := time.Hour, time.Hour
				for range attempts {
					began := time.Now()
					must(t, m.what(ctx))
					best = min(best, time.Since(began))
					began = time.Now()
					must(t, converse(open, "hello"))
					if bare = min(bare, time.Since(began)); best < roundTrip*13/10 {
						break
					}
				}
				t.Logf("%v, which is %.2f round trips; one over an open connection took %v", best.Round(100*time.Microsecond), float64(best)/float64(roundTrip), bare.Round(100*time.Microsecond))
				// A machine that is busy all the time is slow with either.
				if best < roundTrip || best >= max(roundTrip, bare)*13/10 {
					t.Errorf("took %v", best)
				}
			})
		}
	}
}

// firstByte dials, says something and waits for the answer's first byte.
func firstByte(dial func() (net.Conn, error), say, want string) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if say != "" {
		if _, err := io.WriteString(conn, say); err != nil {
			return err
		}
	}
	got := make([]byte, 1)
	if _, err := io.ReadFull(conn, got); err != nil || got[0] != want[0] {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}

// version asks the API server of far for its version.
func version(ctx context.Context, web http.RoundTripper) error {
	r, err := http.NewRequestWithContext(client.WithCluster(ctx, "far"), http.MethodGet, "https://far/version", http.NoBody)
	if err != nil {
		return err
	}
	res, err := web.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, text)
	}
	return err
}
