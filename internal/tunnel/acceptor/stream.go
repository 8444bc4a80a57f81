package acceptor

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/culvertdev/culvert/internal/wire"
)

// serverTransport is the hub's end of a stream. A server stream ends when its
// handler returns, which it does when the link has ended.
type serverTransport struct {
	stream grpc.ServerStream
}

func (t *serverTransport) Send(b *wire.Batch) error {
	if err := t.stream.SendMsg(b); err != nil {
		return fmt.Errorf("send to the peer: %w", err)
	}
	return nil
}

func (t *serverTransport) Recv(r *wire.Received) error {
	err := t.stream.RecvMsg(r)
	if err != nil && !errors.Is(err, io.EOF) && t.stream.Context().Err() != nil {
		// gRPC knows no more than "context canceled" when a connection is gone.
		return fmt.Errorf("the connection with the agent was lost: %w", err)
	}
	return err
}

// Close has nothing to do.
func (t *serverTransport) Close(bool) {}
