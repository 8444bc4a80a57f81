package relay

import "sync"

// bufferSize is what a body is copied with, in bytes: two TLS records.
const bufferSize = 32 << 10

// bufferPool implements httputil.BufferPool. A response holds one buffer while
// its body is under way, so a client that does not read costs this much here.
type bufferPool struct{ pool sync.Pool }

// Get returns a buffer of bufferSize bytes.
func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

// Put takes a buffer back that Get returned.
func (b *bufferPool) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }
