package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/culvertdev/culvert/client"
)

const (
	// echoSize is a message of a round trip, and pieceSize one of throughput.
	echoSize  = 64
	pieceSize = 64 << 10
	// drainTime is how long the far end of a discard may take to read what was sent.
	drainTime = 30 * time.Second
	// maxSamples bounds the memory of a bench: later ones count, and are in no median.
	maxSamples = 1 << 20
)

// benchTarget is a server behind the agent.
type benchTarget struct {
	client           *client.Client
	cluster, address string
}

func (t *benchTarget) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := untimed(ctx)
	defer cancel()
	return t.client.DialContext(ctx, t.cluster, "tcp", t.address)
}

// untimed ends with ctx, and has not its deadline: others who are told of that may say that
// it is over a moment before it is, which would count as an error.
func untimed(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime)
	stop := context.AfterFunc(ctx, cancel)
	return own, func() {
		stop()
		cancel()
	}
}

// samples is what workers have found.
type samples struct {
	mu     sync.Mutex
	times  []time.Duration
	count  int
	bytes  int64
	failed int
	err    error // the first
}

func (s *samples) add(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if len(s.times) < maxSamples {
		s.times = append(s.times, took)
	}
}

func (s *samples) addBytes(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += n
}

func (s *samples) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
	if s.err == nil {
		s.err = err
	}
}

// workers runs o.parallel of them until ctx ends, and sums up. A worker returns the
// error that ended it; one that comes of the end of ctx is none.
func (o *benchOptions) workers(ctx context.Context, what string, work func(ctx context.Context, s *samples) error) (measure, error) {
	s := new(samples)
	started := time.Now()
	var running sync.WaitGroup
	for range o.parallel {
		running.Go(func() {
			if err := work(ctx, s); err != nil && ctx.Err() == nil {
				s.fail(err)
			}
		})
	}
	running.Wait()
	return s.sumUp(what, time.Since(started))
}

// sumUp is the measure; its error is for workers of whom none did anything.
func (s *samples) sumUp(what string, took time.Duration) (measure, error) {
	m := measure{What: what, Count: s.count, Errors: s.failed, PerSecond: float64(s.count) / took.Seconds(), BytesPerSecond: float64(s.bytes) / took.Seconds()}
	if s.err != nil {
		if s.count == 0 && s.bytes == 0 {
			return m, fmt.Errorf("%s: %w", what, s.err)
		}
		m.Error = s.err.Error()
	}
	if n := len(s.times); n > 0 {
		slices.Sort(s.times)
		m.Median, m.P99, m.Max = s.times[n/2], s.times[n*99/100], s.times[n-1]
	}
	return m, nil
}

// requests asks the API server for its version.
func (o *benchOptions) requests(ctx context.Context, c *client.Client, cluster string) (measure, error) {
	web := &http.Client{Transport: c.RoundTripper()}
	return o.workers(ctx, "requests", func(ctx context.Context, s *samples) error {
		for ctx.Err() == nil {
			began := time.Now()
			if err := askVersion(client.WithCluster(ctx, cluster), web); err != nil {
				return err
			}
			s.add(time.Since(began))
		}
		return nil
	})
}

func askVersion(ctx context.Context, web *http.Client) error {
	ctx, cancel := untimed(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kubernetes/version", http.NoBody)
	if err != nil {
		return err
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /version: %s", res.Status)
	}
	return nil
}

// opens opens connections and closes them.
func (o *benchOptions) opens(ctx context.Context, t *benchTarget) (measure, error) {
	return o.workers(ctx, "connections", func(ctx context.Context, s *samples) error {
		for ctx.Err() == nil {
			began := time.Now()
			conn, err := t.dial(ctx)
			if err != nil {
				return err
			}
			s.add(time.Since(began))
			if err := conn.Close(); err != nil {
				return err
			}
		}
		return nil
	})
}

// connected gives a worker a connection that ends with ctx.
func (t *benchTarget) connected(ctx context.Context, do func(conn net.Conn) error) error {
	conn, err := t.dial(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // what uses it fails and says so
	defer stop()
	err = do(conn)
	if closed := conn.Close(); err == nil && !errors.Is(closed, net.ErrClosed) {
		err = closed
	}
	return err
}

// roundTrips sends a few bytes and waits for them.
func (o *benchOptions) roundTrips(ctx context.Context, t *benchTarget) (measure, error) {
	return o.workers(ctx, "round trips", func(ctx context.Context, s *samples) error {
		return t.connected(ctx, func(conn net.Conn) error {
			message := make([]byte, echoSize)
			for ctx.Err() == nil {
				began := time.Now()
				if _, err := conn.Write(message); err != nil {
					return err
				}
				if _, err := io.ReadFull(conn, message); err != nil {
					return fmt.Errorf("the echo: %w", err)
				}
				s.add(time.Since(began))
			}
			return nil
		})
	})
}

// echoed sends all the time, and counts what comes back.
func (o *benchOptions) echoed(ctx context.Context, t *benchTarget) (measure, error) {
	return o.workers(ctx, "echoed bytes", func(ctx context.Context, s *samples) error {
		return t.connected(ctx, func(conn net.Conn) error {
			var sending sync.WaitGroup
			defer sending.Wait()
			defer func() { _ = conn.Close() }()              // which ends the sender; its own error was the reader's too
			sending.Go(func() { _ = sendPieces(ctx, conn) }) // what ends it ends the reader, which says so
			piece := make([]byte, pieceSize)
			for {
				n, err := conn.Read(piece)
				s.addBytes(int64(n))
				if err != nil {
					return fmt.Errorf("the echo: %w", err)
				}
			}
		})
	})
}

// upload sends all the time, and counts what the far end has read to the end.
func (o *benchOptions) upload(ctx context.Context, t *benchTarget) (measure, error) {
	started := time.Now()
	s := new(samples)
	var running sync.WaitGroup
	for range o.parallel {
		running.Go(func() {
			if err := t.uploadOne(ctx, s); err != nil {
				s.fail(err)
			}
		})
	}
	running.Wait()
	return s.sumUp("uploaded bytes", time.Since(started))
}

func (t *benchTarget) uploadOne(ctx context.Context, s *samples) error {
	conn, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the error below is the one that matters
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a connection of type %T cannot be half-closed", conn)
	}
	if end, ok := ctx.Deadline(); ok { // a far end that does not read ends the bench as well
		if err := conn.SetWriteDeadline(end.Add(drainTime)); err != nil {
			return err
		}
	}
	var sent int64
	piece := make([]byte, pieceSize)
	for ctx.Err() == nil {
		n, err := conn.Write(piece)
		sent += int64(n)
		if err != nil {
			return err
		}
	}
	// The end comes back once the far end has read everything.
	err = errors.Join(half.CloseWrite(), conn.SetReadDeadline(time.Now().Add(drainTime)))
	if err == nil {
		_, err = io.Copy(io.Discard, conn)
	}
	if err != nil {
		return fmt.Errorf("the end of the upload: %w", err)
	}
	s.addBytes(sent)
	return nil
}

func sendPieces(ctx context.Context, conn net.Conn) error {
	piece := make([]byte, pieceSize)
	for ctx.Err() == nil {
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
