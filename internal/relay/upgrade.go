package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/http/httpguts"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// spliceBuffer is what one direction of an upgraded stream is copied with, in
// bytes: one TLS record. Idle streams hold two of these.
const spliceBuffer = 16 << 10

// upgrade sends the answer 101 and then bytes until both directions have ended.
// An error means that nothing was sent to the client yet.
func (p *Proxy) upgrade(ps *passage, res *http.Response) error {
	asked, got := upgradeToken(res.Request.Header), upgradeToken(res.Header)
	if asked == "" || !strings.EqualFold(asked, got) {
		return p.badUpgrade(fmt.Errorf("it switched to protocol %q, %q was asked for", got, asked))
	}
	backend, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return p.badUpgrade(errors.New("the transport gave no writable body"))
	}
	client, buffered, err := http.NewResponseController(ps.x).Hijack()
	if err != nil {
		closeQuietly(backend)
		return &fault.Error{Hop: wire.HopClient, Op: "upgrade", Code: wire.CodeConnectionReset, Err: err}
	}
	ps.x.answered(http.StatusSwitchingProtocols)
	s := &splice{p: p, x: ps.x, client: client, early: buffered.Reader, backend: backend, backendConn: ps.conn}
	if ps.leg.Switched != nil {
		ps.leg.Switched(s.abort)
	}
	if err := s.writeHead(buffered.Writer, res.Header); err != nil {
		ps.x.Fail(clientGone("write answer", err))
		s.abort()
		return nil
	}
	s.run(res.Request.Context())
	return nil
}

func (p *Proxy) badUpgrade(err error) error {
	return &fault.Error{Hop: p.cfg.Far, Op: "upgrade", Code: wire.CodeProtocolError, Err: err}
}

func upgradeToken(h http.Header) string {
	if !httpguts.HeaderValuesContainsToken(h["Connection"], "Upgrade") {
		return ""
	}
	return h.Get("Upgrade")
}

// splice is one upgraded stream: two connections and the copy in each direction.
type splice struct {
	p           *Proxy
	x           *Exchange
	client      net.Conn
	early       *bufio.Reader
	backend     io.ReadWriteCloser
	backendConn net.Conn
	once        sync.Once
}

func (s *splice) writeHead(w *bufio.Writer, h http.Header) error {
	if _, err := w.WriteString("HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
		return err
	}
	if err := h.Write(w); err != nil {
		return err
	}
	if _, err := w.WriteString("\r\n"); err != nil {
		return err
	}
	return w.Flush()
}

// run copies until both directions have ended, and closes both connections.
func (s *splice) run(ctx context.Context) {
	stopLife := context.AfterFunc(s.p.life, s.abort)
	defer stopLife()
	stopRequest := context.AfterFunc(ctx, s.abort)
	defer stopRequest()
	up := make(chan error, 1)
	go s.copyToBackend(up)
	down := s.copyToClient()
	if err := errors.Join(<-up, down); err != nil {
		s.abort()
		return
	}
	closeQuietly(s.backend)
	closeQuietly(s.client)
}

// abort resets both connections; both copies end with an error.
func (s *splice) abort() {
	s.once.Do(func() {
		abort(s.client)
		abort(s.backendConn)
		closeQuietly(s.backend)
	})
}

// copyToBackend ends with the client's end of stream or with either connection.
func (s *splice) copyToBackend(done chan<- error) {
	var early io.Reader = s.client
	if n := s.early.Buffered(); n > 0 {
		early = io.MultiReader(io.LimitReader(s.early, int64(n)), s.client)
	}
	read, write := copyHalf(s.backend, early, &s.x.received)
	s.ended(clientFault(read), s.backendFault(write))
	done <- errors.Join(read, write)
}

// copyToClient ends with the backend's end of stream or with either connection.
func (s *splice) copyToClient() error {
	read, write := copyHalf(s.client, s.backend, &s.x.sent)
	s.ended(s.backendFault(read), clientFault(write))
	return errors.Join(read, write)
}

// ended records the failure of one direction and takes the other one down.
func (s *splice) ended(faults ...*fault.Error) {
	for _, f := range faults {
		if f != nil {
			s.x.Fail(f)
			s.abort()
		}
	}
}

func (s *splice) backendFault(err error) *fault.Error {
	if err == nil {
		return nil
	}
	return s.p.explain(err)
}

func clientFault(err error) *fault.Error {
	if err == nil {
		return nil
	}
	return clientGone("upgraded stream", err)
}

// copyHalf copies src to dst, ends dst's sending direction after the last byte,
// and returns what went wrong with reading and with writing.
//
// A dst that stopped reading (EPIPE) does not end the other direction: what src
// still sends is dropped, so that its end is noticed.
func copyHalf(dst io.WriteCloser, src io.Reader, count *atomic.Int64) (read, write error) {
	buf := make([]byte, spliceBuffer)
	for stopped := false; ; {
		n, err := src.Read(buf)
		if n > 0 && !stopped {
			m, werr := dst.Write(buf[:n])
			count.Add(int64(m))
			switch {
			case errors.Is(werr, syscall.EPIPE):
				stopped = true
			case werr != nil:
				return nil, werr
			}
		}
		switch {
		case errors.Is(err, io.EOF) && stopped:
			return nil, nil
		case errors.Is(err, io.EOF):
			return nil, closeWrite(dst)
		case err != nil:
			return err, nil
		}
	}
}
