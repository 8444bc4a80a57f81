package resilience

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// loadInterval is the time from one request to the next.
const loadInterval = 10 * time.Millisecond

// latencies are how long requests took.
type latencies struct {
	count            int
	median, p99, max time.Duration
}

// String is for logs.
func (l latencies) String() string {
	return fmt.Sprintf("%d requests, median %v, p99 %v, max %v", l.count,
		l.median.Round(10*time.Microsecond), l.p99.Round(10*time.Microsecond), l.max.Round(10*time.Microsecond))
}

// requestTime bounds a request: far less than a stall lasts, and more than a machine stands
// still for.
const requestTime = 20 * time.Second

// measure makes one request after the other for d. A request that fails, or takes
// more than requestTime, ends it with an error.
func measure(ctx context.Context, d time.Duration, request func(context.Context) error) (latencies, error) {
	end := time.NewTimer(d)
	defer end.Stop()
	return measureUntil(ctx, end.C, request)
}

// measureUntil is measure until end is ready or closed.
func measureUntil(ctx context.Context, end <-chan time.Time, request func(context.Context) error) (latencies, error) {
	ticker := time.NewTicker(loadInterval)
	defer ticker.Stop()
	var took []time.Duration
	for {
		started := time.Now()
		one, cancel := context.WithTimeout(ctx, requestTime)
		err := request(one)
		cancel()
		if err != nil {
			return latencies{}, fmt.Errorf("request %d, after %v: %w", len(took), time.Since(started), err)
		}
		took = append(took, time.Since(started))
		select {
		case <-end:
			slices.Sort(took)
			at := func(p float64) time.Duration { return took[int(p*float64(len(took)-1))] }
			return latencies{len(took), at(0.5), at(0.99), at(1)}, nil
		case <-ticker.C:
		}
	}
}

// versionRequest asks the managed cluster's API server.
func versionRequest(c *caller) func(context.Context) error {
	return func(ctx context.Context) error {
		a, err := c.get(ctx, versionPath)
		if err != nil {
			return err
		}
		return a.wantOK()
	}
}

// echoRequest opens a raw session, sends 1 KiB, waits for its echo and closes.
func echoRequest(r *raw, address string) func(context.Context) error {
	sent := bytes.Repeat([]byte("echo"), 256)
	return func(ctx context.Context) error {
		conn, err := r.dial(ctx, address)
		if err != nil {
			return err
		}
		deadline, _ := ctx.Deadline() // measure has set it
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
		if _, err := conn.Write(sent); err != nil {
			return err
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if !bytes.Equal(got, sent) {
			return fmt.Errorf("echo of %q is %q", sent[:8], got[:8])
		}
		return conn.Close()
	}
}

// echo answers each connection with what it sends. It ends with its listener.
func echo(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go echoOne(conn)
	}
}

// echoOne ends with its connection.
func echoOne(conn net.Conn) {
	_, _ = io.Copy(conn, conn) // the caller judges
	_ = conn.Close()
}
