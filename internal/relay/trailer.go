package relay

import (
	"errors"
	"io"
	"net/http"

	"golang.org/x/net/http/httpguts"
)

// trailerBody fills the outgoing trailer when the incoming body ends, which is
// when the server knows its trailer. The transport reads body and trailer in one
// goroutine, in this order.
type trailerBody struct {
	io.ReadCloser
	in   *http.Request
	out  http.Header
	edit func(http.Header)
}

// passTrailer makes out carry the trailer of in. Without it the outgoing request
// has a copy of the incoming trailer from before it arrived.
func passTrailer(in, out *http.Request, edit func(http.Header)) {
	if out.Body == nil || in.Trailer == nil {
		out.Trailer = nil
		return
	}
	trailer := http.Header{}
	for name := range in.Trailer {
		trailer[name] = nil
	}
	if edit != nil {
		edit(trailer)
	}
	out.Trailer = trailer
	out.Body = &trailerBody{ReadCloser: out.Body, in: in, out: trailer, edit: edit}
}

// Read reads the incoming body.
func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for name, values := range b.in.Trailer {
			if httpguts.ValidTrailerHeader(name) {
				b.out[name] = values
			}
		}
		if b.edit != nil {
			b.edit(b.out)
		}
	}
	return n, err
}
