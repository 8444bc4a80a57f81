package resilience

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
)

// patternPeriod is a prime, so that no loss or doubling of frames, buffers or
// pages goes unseen.
const patternPeriod = 65521

// pattern is an endless reproducible stream of bytes. It is safe for concurrent
// use.
type pattern struct {
	twice []byte // two periods: any slice of at most one period is in it
}

func newPattern() pattern {
	random := rand.New(rand.NewPCG(1, 2))
	twice := make([]byte, 2*patternPeriod)
	for i := range patternPeriod {
		twice[i] = byte(random.Uint32())
	}
	copy(twice[patternPeriod:], twice)
	return pattern{twice: twice}
}

// at returns up to n bytes of the stream from offset on.
func (p pattern) at(offset, n int64) []byte {
	start := offset % patternPeriod
	return p.twice[start : start+min(n, patternPeriod)]
}

// write writes the first n bytes and counts them as the writer takes them.
func (p pattern) write(w io.Writer, n int64, taken *atomic.Int64) error {
	for offset := int64(0); offset < n; {
		// Pieces are small, so that the count follows closely.
		k, err := w.Write(p.at(offset, min(n-offset, 16<<10)))
		offset += int64(k)
		taken.Add(int64(k))
		if err != nil {
			return fmt.Errorf("write the pattern at %d of %d: %w", offset, n, err)
		}
	}
	return nil
}

// verify reads the n bytes from offset on and compares them.
func (p pattern) verify(r io.Reader, offset, n int64) error {
	buf := make([]byte, 64<<10-16)
	for end := offset + n; offset < end; {
		k, err := r.Read(buf[:min(int64(len(buf)), end-offset)])
		if !bytes.Equal(buf[:k], p.at(offset, int64(k))) {
			return fmt.Errorf("bytes %d to %d are not those that were sent", offset, offset+int64(k))
		}
		offset += int64(k)
		if err != nil && (offset < end || !errors.Is(err, io.EOF)) {
			return fmt.Errorf("read the pattern at %d of %d: %w", offset, end, err)
		}
	}
	return nil
}

// verifyAll is verify from the start, and then wants a clean end.
func (p pattern) verifyAll(r io.Reader, n int64) error {
	if err := p.verify(r, 0, n); err != nil {
		return err
	}
	return wantEnd(r, n)
}

// wantEnd wants a clean end after n bytes.
func wantEnd(r io.Reader, n int64) error {
	if k, err := r.Read(make([]byte, 1)); k != 0 || !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("after all %d bytes: %d more, %w where EOF is wanted", n, k, err)
	}
	return nil
}
