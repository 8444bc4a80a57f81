package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/culvertdev/culvert/bench/internal/service"
)

// checkTime bounds a check.
const checkTime = 60 * time.Second

// halfCloser is the part of a connection that ends one direction.
type halfCloser interface{ CloseWrite() error }

// newSeed returns a seed that no other check has.
func newSeed() uint64 { return rand.Uint64() } //nolint:gosec // nobody tries to guess it

// digestOf returns the digest of the first n bytes of a stream.
func digestOf(stream io.Reader, n int64) ([]byte, error) {
	sum := sha256.New()
	return copyInto(sum, stream, n)
}

func copyInto(sum hash.Hash, from io.Reader, n int64) ([]byte, error) {
	if _, err := io.CopyN(sum, from, n); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// Integrity moves n bytes in each direction and compares their digests. It needs
// no half-close.
func (d Dialer) Integrity(ctx context.Context, n int64) error {
	seed := newSeed()
	want, err := digestOf(service.Stream(seed), n)
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	down, err := d.checked(ctx, service.Generate, uint64(n), seed)
	if err != nil {
		return err
	}
	got, err := digestOf(down, n)
	if err = errors.Join(err, down.Close()); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("download: other bytes arrived than were sent")
	}
	up, err := d.checked(ctx, service.Digest, uint64(n))
	if err != nil {
		return err
	}
	err = send(up, seed, n)
	got, rerr := io.ReadAll(io.LimitReader(up, service.DigestSize))
	if err = errors.Join(err, rerr, up.Close()); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	if !bytes.Equal(got, want) {
		return errors.New("upload: other bytes arrived than were sent")
	}
	return nil
}

// send writes n bytes of a stream.
func send(to io.Writer, seed uint64, n int64) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, io.LimitReader(service.Stream(seed), n), make([]byte, service.BlockSize))
	return err
}

// HalfClose ends one direction of a session and goes on with the other, first the
// client's, then the service's. Each must stay whole.
func (d Dialer) HalfClose(ctx context.Context, n int64) error {
	if err := d.clientEnds(ctx, n); err != nil {
		return fmt.Errorf("the client ends its direction: %w", err)
	}
	if err := d.serviceEnds(ctx, n); err != nil {
		return fmt.Errorf("the service ends its direction: %w", err)
	}
	return nil
}

// clientEnds has its digest answered only after the end of its direction.
func (d Dialer) clientEnds(ctx context.Context, n int64) error {
	seed := newSeed()
	want, err := digestOf(service.Stream(seed), n)
	if err != nil {
		return err
	}
	c, err := d.checked(ctx, service.Digest, 0)
	if err != nil {
		return err
	}
	got, err := sendAndEnd(c, seed, n, func() ([]byte, error) { return io.ReadAll(c) })
	switch err = errors.Join(err, c.Close()); {
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return fmt.Errorf("the answer has %d bytes and is not the digest", len(got))
	}
	return nil
}

// serviceEnds uploads after the end of the download.
func (d Dialer) serviceEnds(ctx context.Context, n int64) error {
	seed := newSeed()
	want, err := digestOf(service.Stream(seed), n)
	if err != nil {
		return err
	}
	c, err := d.checked(ctx, service.Generate, uint64(n), seed)
	if err != nil {
		return err
	}
	down := sha256.New()
	_, err = io.Copy(down, c)
	if err == nil && !bytes.Equal(down.Sum(nil), want) {
		err = errors.New("other bytes arrived than were sent")
	}
	if err != nil {
		return errors.Join(err, c.Close())
	}
	got, err := sendAndEnd(c, seed, n, func() ([]byte, error) {
		recall, err := d.checked(ctx, service.Recall, seed)
		if err != nil {
			return nil, err
		}
		sum, err := io.ReadAll(recall)
		return sum, errors.Join(err, recall.Close())
	})
	switch err = errors.Join(err, c.Close()); {
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return errors.New("the upload after it did not arrive as sent")
	}
	return nil
}

// sendAndEnd writes n bytes, ends the client's direction, and returns what answer
// gives.
func sendAndEnd(c net.Conn, seed uint64, n int64, answer func() ([]byte, error)) ([]byte, error) {
	if err := send(c, seed, n); err != nil {
		return nil, err
	}
	h, ok := c.(halfCloser)
	if !ok {
		return nil, errors.New("the connection has no half-close")
	}
	if err := h.CloseWrite(); err != nil {
		return nil, err
	}
	return answer()
}

// checked opens a session that ends by itself when a check takes too long.
func (d Dialer) checked(ctx context.Context, op byte, numbers ...uint64) (net.Conn, error) {
	c, err := d.open(ctx, op, numbers...)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(checkTime)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
