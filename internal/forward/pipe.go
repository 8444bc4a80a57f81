package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

// Pipe carries in to remote and remote to out, each until it ends: the end of in closes
// the sending half of remote, and the end of remote closes out. It returns once both have
// ended or, with untilPeer, once remote has; an error of either, and the end of ctx, end
// both at once, but what remote sent before it failed still goes to out. It closes remote,
// whose peer does not take such an end for an orderly one.
//
// A Read of in that blocks is not waited for: that goroutine ends with the Read.
func Pipe(ctx context.Context, remote net.Conn, in io.Reader, out io.WriteCloser, untilPeer bool) error {
	conn, ok := remote.(splice.Conn)
	if !ok {
		return errors.Join(fmt.Errorf("a connection of type %T cannot be half-closed", remote), remote.Close())
	}
	sent, received := make(chan sendResult, 1), make(chan error, 1)
	go send(conn, in, sent)
	go receive(out, conn, received)
	err := await(ctx, sent, received, untilPeer)
	if err != nil {
		splice.Fail(conn, wire.HopClient, err)
		return err
	}
	if closed := conn.Close(); !errors.Is(closed, net.ErrClosed) {
		err = closed
	}
	return err
}

// sendResult is how send ended.
type sendResult struct {
	err error
	// remote tells that err is of the connection, whose reader ends with it, too.
	remote bool
}

// await returns when what Pipe waits for has happened.
func await(ctx context.Context, sent <-chan sendResult, received <-chan error, untilPeer bool) error {
	var failed error
	for sent != nil || received != nil {
		select {
		case end := <-sent:
			if failed = end.err; failed != nil && (!end.remote || received == nil) {
				return failed
			}
			sent = nil
		case err := <-received:
			if err = cmp.Or(err, failed); err != nil || untilPeer {
				return err
			}
			received = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// send copies in to its end, and tells the peer of it.
func send(conn splice.Conn, in io.Reader, done chan<- sendResult) {
	from := &source{Reader: in}
	_, err := io.Copy(conn, from)
	switch {
	case err == nil:
		if err = conn.CloseWrite(); errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ENOTCONN) {
			err = nil // the peer has gone, which the other direction tells
		}
	case errors.Is(err, syscall.EPIPE):
		err = nil // the peer reads no more, and may still have something to say
	default:
		err = fmt.Errorf("send: %w", err)
	}
	done <- sendResult{err: err, remote: !from.failed}
}

// source is a reader that remembers whether it has failed.
type source struct {
	io.Reader

	failed bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.failed = err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// receive copies conn to its end, and tells the reader of out of it. After a failure out
// stays open: ssh ends a ProxyCommand with its output, before it has said what is wrong.
func receive(out io.WriteCloser, conn splice.Conn, done chan<- error) {
	_, err := io.Copy(out, conn)
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		err = fmt.Errorf("receive: %w", err)
	}
	done <- err
}
