package carry

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// echoes sends a word to the echo behind address and wants it back.
func echoes(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}

func TestHubRestart(t *testing.T) {
	const lost, back = "lost the connection to the hub", "connected to the hub again"
	forward := start(t, "forward", "edge-1", "0:web.prod:7002")
	address := forward.listener(t, "edge-1 web.prod:7002")
	must(t, echoes(t.Context(), address))
	t.Run("F2: a forward survives the hub, and says once that it is gone and once that it is back", func(t *testing.T) {
		open, err := net.Dial("tcp", address)
		must(t, err)
		defer open.Close()
		_, err = io.WriteString(open, "x")
		must(t, err)
		_, err = io.ReadFull(open, make([]byte, 1))
		must(t, err)
		must(t, the.hub.Kill9())
		forward.await(t, lost)
		must(t, open.SetDeadline(time.Now().Add(20*time.Second)))
		if got, err := io.ReadAll(open); err == nil {
			t.Errorf("what was open ended as if it were over: %q", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		must(t, the.hub.Start(ctx))
		forward.await(t, back)
		// The agent comes back by itself as well.
		must(t, testbed.Poll(ctx, "the echo", func(ctx context.Context) error { return echoes(ctx, address) }))
		must(t, testbed.Poll(ctx, "the agent", the.reaches)) // other tests find it all there
		if l, b := forward.count(lost), forward.count(back); l != 1 || b != 1 {
			text, _ := forward.printed()
			t.Errorf("%d lines of a loss and %d of a return:\n%s", l, b, text)
		}
	})
}
