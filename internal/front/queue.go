package front

import (
	"net"
	"sync"
)

// queue is a net.Listener whose connections are put into it.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	port  <-chan struct{} // closed when the port closes
	once  sync.Once
	over  chan struct{} // closed when the listener closes
}

func newQueue(addr net.Addr, port <-chan struct{}) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), port: port, over: make(chan struct{})}
}

func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.over:
	case <-q.port:
	}
	return false
}

// Accept implements [net.Listener].
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.over:
	case <-q.port:
	}
	return nil, net.ErrClosed
}

// Close implements [net.Listener].
func (q *queue) Close() error {
	q.once.Do(func() { close(q.over) })
	return nil
}

// Addr implements [net.Listener].
func (q *queue) Addr() net.Addr { return q.addr }
