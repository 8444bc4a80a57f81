package audit

import (
	"context"
	"io"
)

// stream is a writer that belongs to somebody else.
type stream struct{ w io.Writer }

func (s stream) write(_ context.Context, p []byte) (int, error) { return s.w.Write(p) }

func (stream) close() error { return nil }
