package culverttest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/culverttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that gives back what it gets, until the test ends.
func echo(t *testing.T) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

// converse asks for an echo over a connection of its own.
func converse(ctx context.Context, c *client.Client, cluster, address string) (err error) {
	conn, err := c.DialContext(ctx, cluster, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, len("hello")))
	return err
}

func TestOutages(t *testing.T) {
	hub := culverttest.Start(t, culverttest.Config{Clusters: []string{"edge-1", "edge-2"}})
	c, address := hub.Client(t), echo(t)
	works := func(t *testing.T, cluster string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := converse(ctx, c, cluster, address); err != nil {
			t.Errorf("%s: %v", cluster, err)
		}
	}
	away := func(t *testing.T, cluster string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		e, ok := errors.AsType[*client.Error](converse(ctx, c, cluster, address))
		if !ok || e.Hop != client.HopHub || e.Code != client.Unavailable {
			t.Errorf("%s: got %v, want that it is away", cluster, e)
		}
	}
	works(t, "edge-1")
	works(t, "edge-2")

	t.Run("an agent that is away and comes back", func(t *testing.T) {
		hub.StopAgent(t, "edge-2")
		hub.StopAgent(t, "edge-2") // is no different
		away(t, "edge-2")
		works(t, "edge-1")
		hub.StartAgent(t, "edge-2")
		works(t, "edge-2")
	})
	t.Run("a hub that is away and comes back, with its agents", func(t *testing.T) {
		held, err := c.DialContext(t.Context(), "edge-1", "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		hub.StopHub(t)
		if _, err := io.Copy(io.Discard, held); err == nil {
			t.Error("a connection through a hub that is away has an orderly end")
		}
		var waiting sync.WaitGroup
		waiting.Go(func() { works(t, "edge-1") }) // a dial waits for a while
		hub.StartHub(t)
		waiting.Wait()
		works(t, "edge-2")
	})
	t.Run("both", func(t *testing.T) {
		hub.StopAgent(t, "edge-1")
		hub.StopHub(t)
		hub.StartHub(t) // waits for the agent that runs alone
		away(t, "edge-1")
		works(t, "edge-2")
		hub.StartAgent(t, "edge-1")
		works(t, "edge-1")
	})
}
