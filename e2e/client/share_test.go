package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestOneConnection(t *testing.T) {
	const dials = 1000
	way, err := newRelay(the.port.Addr())
	must(t, err)
	t.Cleanup(way.close)
	cfg := the.config(slog.New(slog.DiscardHandler))
	cfg.Hub = "https://" + way.addr()
	c := newClient(t, cfg)
	ctx := within(t, 2*time.Minute)
	t.Run(fmt.Sprintf("K4,K15: %d dials at once, the first of the client, share one connection to the hub", dials), func(t *testing.T) {
		conns := make([]net.Conn, dials)
		var dialling sync.WaitGroup
		began := time.Now()
		for i := range conns {
			dialling.Go(func() {
				conn, err := c.DialContext(ctx, "edge-1", "tcp", echo)
				if err == nil {
					err = converse(conn, fmt.Sprintf("I am %6d", i))
				}
				if err != nil {
					t.Error(err)
				}
				conns[i] = conn
			})
		}
		dialling.Wait()
		t.Logf("%d dials with an answer each in %v", dials, time.Since(began).Round(time.Millisecond))
		// All are open, and go on.
		for i, conn := range conns {
			if conn == nil {
				continue
			}
			if err := errors.Join(converse(conn, fmt.Sprintf("still %6d", i)), conn.Close()); err != nil {
				t.Error(err)
			}
		}
		if n := way.count.Load(); n != 1 {
			t.Errorf("%d connections to the hub", n)
		}
	})
}

// converse says something to the echo and wants it back.
func converse(conn net.Conn, text string) error {
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}

func TestClose(t *testing.T) {
	const cycles = 200
	ctx := within(t, 2*time.Minute)
	cycle := func() error {
		c, err := client.New(the.config(slog.New(slog.DiscardHandler)))
		if err != nil {
			return err
		}
		conn, err := c.DialEarly(ctx, "edge-1", "tcp", echo)
		if err == nil {
			err = converse(conn, "hello")
		}
		if err == nil {
			_, err = c.Clusters(ctx)
		}
		err = errors.Join(err, c.Close()) // which ends the connection as well
		if conn != nil {
			err = errors.Join(err, conn.Close()) // and its deadline
		}
		return err
	}
	t.Run(fmt.Sprintf("N4: nothing is left of a client that was closed: no goroutine, no file and no memory, over %d of them", cycles), func(t *testing.T) {
		before := goleak.IgnoreCurrent()
		for range cycles / 10 { // what is made once is there
			must(t, cycle())
		}
		var files int
		var memory uint64
		must(t, testbed.Poll(ctx, "the targets of other tests to be gone", func(context.Context) error {
			if files, memory = used(t); files >= cycles/2 {
				return fmt.Errorf("%d files are open", files)
			}
			return nil
		}))
		for range cycles {
			must(t, cycle())
		}
		// The targets of the last ones end when the agent tells them, soon.
		must(t, testbed.Poll(ctx, "the goroutines to end", func(context.Context) error { return goleak.Find(before) }))
		// What has a finalizer takes some collections. A client that stayed would be tens
		// of KiB, 200 of them some MiB.
		must(t, testbed.Poll(ctx, "files and memory to be given back", func(context.Context) error {
			filesAfter, memoryAfter := used(t)
			if filesAfter > files || memoryAfter > memory+1<<20 {
				return fmt.Errorf("%d files, before %d; %d KiB of heap, before %d", filesAfter, files, memoryAfter>>10, memory>>10)
			}
			t.Logf("files %d, then %d; heap %d KiB, then %d KiB", files, filesAfter, memory>>10, memoryAfter>>10)
			return nil
		}))
	})
}

// used is how many files the process has open, and the live heap in bytes.
func used(t *testing.T) (files int, heap uint64) {
	t.Helper()
	for range 3 { // pools give back in the second of two, and finalizers run after one
		runtime.GC()
	}
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return len(open), m.HeapAlloc
}
