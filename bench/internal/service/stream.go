package service

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// Operations, the first byte of a connection.
const (
	Echo     = 'e'
	Source   = 's'
	Narrow   = 'n'
	Sink     = 'k'
	Generate = 'g'
	Digest   = 'd'
	Recall   = 'r'
)

// BlockSize is how much is written and read at once, in bytes: large enough that
// the benchmark's own processes cost little beside the tunnel.
const BlockSize = 256 << 10

// NarrowBuffer is the kernel's buffer at either end of a Narrow session, in bytes.
const NarrowBuffer = 16 << 10

// DigestSize is the length of a digest, in bytes.
const DigestSize = sha256.Size

// Request returns the first bytes of a connection.
func Request(op byte, numbers ...uint64) []byte {
	out := []byte{op}
	for _, n := range numbers {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return out
}

// Stream returns the bytes that belong to a seed, without end. It never fails.
func Stream(seed uint64) io.Reader {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// Block returns BlockSize bytes that do not compress. The caller owns them.
func Block() []byte {
	block := make([]byte, BlockSize)
	_, _ = Stream(0).Read(block) // a ChaCha8 always fills what it is given
	return block
}
