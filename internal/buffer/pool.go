package buffer

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/mem"
)

const (
	minClass = 11 // 2 KiB: gRPC does not pool buffers of up to 1 KiB
	maxClass = 18 // 256 KiB
)

// pool hands out buffers in powers of two. gRPC's default pool jumps from
// 32 KiB to 1 MiB and clears what it hands out; payload is always overwritten,
// so neither is wanted here.
type pool struct {
	classes [maxClass + 1]sync.Pool
}

var shared pool

// Pool returns the process-wide pool of payload buffers. It is safe for
// concurrent use. Buffers it hands out are not cleared.
func Pool() mem.BufferPool { return &shared }

// Get implements [mem.BufferPool].
func (p *pool) Get(length int) *[]byte {
	c := class(length)
	if c > maxClass {
		b := make([]byte, length)
		return &b
	}
	if b, ok := p.classes[c].Get().(*[]byte); ok {
		*b = (*b)[:length]
		return b
	}
	b := make([]byte, length, 1<<c)
	return &b
}

// Put implements [mem.BufferPool].
func (p *pool) Put(b *[]byte) {
	c := bits.Len(uint(cap(*b))) - 1
	if c < minClass || c > maxClass || cap(*b) != 1<<c {
		return
	}
	p.classes[c].Put(b)
}

func class(length int) int {
	if length <= 1<<minClass {
		return minClass
	}
	return bits.Len(uint(length - 1))
}

// Copy returns a pooled buffer that holds a copy of p; the caller owns
// one reference. Empty p gives nil.
func Copy(p []byte) mem.Buffer {
	if len(p) == 0 {
		return nil
	}
	b := shared.Get(len(p))
	copy(*b, p)
	return mem.NewBuffer(b, &shared)
}
