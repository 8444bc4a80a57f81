package client

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// relay is a way to the hub that takes as long as a test says, and counts its
// connections.
type relay struct {
	ln    net.Listener
	to    string
	delay atomic.Int64 // of each byte, each way, in nanoseconds
	count atomic.Int32

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
	tasks  sync.WaitGroup
}

func newRelay(to string) (*relay, error) {
	ln, err := net.Listen("tcp", testbed.HubAddress.String()+":0")
	if err != nil {
		return nil, err
	}
	r := &relay{ln: ln, to: to}
	r.tasks.Go(r.run)
	return r, nil
}

func (r *relay) addr() string { return r.ln.Addr().String() }

// run ends with close.
func (r *relay) run() {
	for {
		from, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.count.Add(1)
		hub, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.to)
		if err != nil { // the hub is away
			_ = from.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, from, hub)
		closed := r.closed
		r.mu.Unlock()
		if closed {
			_, _ = from.Close(), hub.Close()
			return
		}
		r.tasks.Go(func() { r.carry(hub, from) })
		r.tasks.Go(func() { r.carry(from, hub) })
	}
}

// piece is what arrives at a time.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry ends with either connection, and ends both.
func (r *relay) carry(to, from net.Conn) {
	pieces := make(chan piece, 1<<10)
	r.tasks.Go(func() {
		defer to.Close()
		defer from.Close()
		for p := range pieces {
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close() // ends the reader
				for range pieces {
				}
				return
			}
		}
	})
	defer close(pieces)
	for buf := make([]byte, 64<<10); ; {
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{append([]byte(nil), buf[:n]...), time.Now().Add(time.Duration(r.delay.Load()))}
		}
		if err != nil {
			return // io.EOF, or who reads the other way says so
		}
	}
}

func (r *relay) close() {
	_ = r.ln.Close() // ends run
	r.mu.Lock()
	r.closed = true
	for _, c := range r.conns {
		_ = c.Close() // ends carry
	}
	r.mu.Unlock()
	r.tasks.Wait()
}
