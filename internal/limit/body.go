package limit

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

// Body bounds the body of r. One whose length is said to be too large is refused
// at once. Of another one that turns out so, reading fails with the same
// [*fault.Error], and r.Body is replaced for that. Upgraded streams are not
// bodies and have no bound.
func (l *Limits) Body(r *http.Request) error {
	if l == nil || l.body <= 0 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	if r.ContentLength > l.body {
		return tooLarge(l.body)
	}
	if r.ContentLength < 0 {
		r.Body = &boundedBody{ReadCloser: r.Body, left: l.body, limit: l.body}
	}
	return nil
}

func tooLarge(limit int64) error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "limit", Code: wire.CodeRequestTooLarge,
		Err: fmt.Errorf("the request's body is larger than the %d bytes that this hub allows", limit),
	}
}

// boundedBody is a body of unknown length.
type boundedBody struct {
	io.ReadCloser
	left, limit int64
	failed      error
}

// Read reads up to the bound, and one byte more to see whether there is any.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n, err = int(b.left), tooLarge(b.limit)
	}
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.failed = err
	}
	return n, err
}
