package wire

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/mem"
)

// ErrMalformed says that bytes are not a batch of frames. It ends the link that
// they came from.
var ErrMalformed = errors.New("malformed frame")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// The wire types of protobuf that a message may use
// (https://protobuf.dev/programming-guides/encoding/#structure).
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeFixed32 = 5
)

// cursor walks over the pieces of one message. Every length is checked against
// what is left before anything is done with it, so a claimed size costs
// nothing.
type cursor struct {
	bufs mem.BufferSlice
	i    int    // piece being read
	cur  []byte // unread bytes of bufs[i]
	left int    // unread bytes of all pieces
}

func newCursor(bufs mem.BufferSlice) cursor {
	c := cursor{bufs: bufs, left: bufs.Len()}
	if len(bufs) > 0 {
		c.cur = bufs[0].ReadOnlyData()
	}
	return c
}

// fill makes cur non-empty; left must be above 0.
func (c *cursor) fill() {
	for len(c.cur) == 0 {
		c.i++
		c.cur = c.bufs[c.i].ReadOnlyData()
	}
}

// uvarint reads a varint that ends before end (counted in bytes left).
func (c *cursor) uvarint(end int) (uint64, error) {
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if c.left <= end {
			return 0, malformed("truncated varint")
		}
		c.fill()
		b := c.cur[0]
		c.cur = c.cur[1:]
		c.left--
		if shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, malformed("varint longer than 64 bits")
}

// field reads the next tag. For varints val is the value, for bytes the length
// of what follows, which is known to be there; other types are skipped.
func (c *cursor) field(end int) (num uint64, typ int, val uint64, err error) {
	for {
		tag, err := c.uvarint(end)
		if err != nil {
			return 0, 0, 0, err
		}
		num, typ = tag>>3, int(tag&7)
		if num == 0 {
			return 0, 0, 0, malformed("field number 0")
		}
		switch typ {
		case typeVarint:
			val, err = c.uvarint(end)
			return num, typ, val, err
		case typeBytes:
			val, err = c.uvarint(end)
			if err == nil && val > uint64(c.left-end) {
				err = malformed("length %d where %d bytes are left", val, c.left-end)
			}
			return num, typ, val, err
		case typeFixed64, typeFixed32:
			n := 8
			if typ == typeFixed32 {
				n = 4
			}
			if c.left-end < n {
				return 0, 0, 0, malformed("truncated fixed field")
			}
			c.skip(n)
			if c.left == end {
				return 0, 0, 0, nil
			}
		default:
			return 0, 0, 0, malformed("wire type %d", typ)
		}
	}
}

// skip drops n bytes, which must be there.
func (c *cursor) skip(n int) {
	for n > 0 {
		c.fill()
		k := min(n, len(c.cur))
		c.cur = c.cur[k:]
		c.left -= k
		n -= k
	}
}

// take appends to dst references to the next n bytes, which must be there.
func (c *cursor) take(dst []mem.Buffer, n int) []mem.Buffer {
	for n > 0 {
		c.fill()
		k := min(n, len(c.cur))
		b := c.bufs[c.i]
		from := b.Len() - len(c.cur)
		dst = append(dst, b.Slice(from, from+k))
		c.cur = c.cur[k:]
		c.left -= k
		n -= k
	}
	return dst
}

// text reads the next n bytes, which must be there, as a string of at most
// limit bytes.
func (c *cursor) text(n uint64, limit int) (string, error) {
	if n > uint64(limit) {
		return "", malformed("string of %d bytes where %d are allowed", n, limit)
	}
	b := make([]byte, 0, n)
	for rest := int(n); rest > 0; {
		c.fill()
		k := min(rest, len(c.cur))
		b = append(b, c.cur[:k]...)
		c.cur = c.cur[k:]
		c.left -= k
		rest -= k
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}
