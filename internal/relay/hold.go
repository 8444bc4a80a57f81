package relay

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// Hold has done called, once, when the body of res has ended or was closed: what
// is counted for a request lasts as long as its answer, a watch or an upgraded
// stream included. It takes the body over and gives res another one.
func Hold(res *http.Response, done func()) {
	once := sync.OnceFunc(done)
	if stream, ok := res.Body.(io.ReadWriteCloser); ok && res.StatusCode == http.StatusSwitchingProtocols {
		res.Body = &heldStream{heldBody{stream, once}, stream}
		return
	}
	res.Body = &heldBody{res.Body, once}
}

// heldBody is the body of an answer.
type heldBody struct {
	io.ReadCloser

	done func()
}

// Read implements [io.Reader].
func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(err, io.EOF) {
		b.done()
	}
	return n, err
}

// Close implements [io.Closer].
func (b *heldBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}

// heldStream is an upgraded stream: it is over when it is closed, and not when one
// of its directions is.
type heldStream struct {
	heldBody

	stream io.ReadWriteCloser
}

// Read implements [io.Reader].
func (s *heldStream) Read(p []byte) (int, error) { return s.stream.Read(p) }

// Write implements [io.Writer].
func (s *heldStream) Write(p []byte) (int, error) { return s.stream.Write(p) }

// CloseWrite ends the sending direction, where the stream can.
func (s *heldStream) CloseWrite() error {
	if half, ok := s.stream.(closeWriter); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}
