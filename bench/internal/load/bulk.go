package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/bench/internal/service"
)

// Transfer is what moved in a window.
type Transfer struct {
	Bytes   uint64
	Elapsed time.Duration
}

// MiB is a mebibyte.
const MiB = 1 << 20

// Rate returns MiB a second.
func (t Transfer) Rate() float64 { return float64(t.Bytes) / MiB / t.Elapsed.Seconds() }

// meter counts bytes of all sessions of a group; each has a counter of its own,
// on a cache line of its own.
type meter []struct {
	n atomic.Uint64
	_ [56]byte
}

func (m meter) sum() (total uint64) {
	for i := range m {
		total += m[i].n.Load()
	}
	return total
}

// moving waits until every session has moved something.
func (m meter) moving(ctx context.Context, failed <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	for i := range m {
		for m[i].n.Load() == 0 {
			if err := wait(ctx, time.Millisecond, failed); err != nil {
				return fmt.Errorf("nothing came through session %d of %d: %w", i+1, len(m), err)
			}
		}
	}
	return nil
}

// Download reads from n endless sources at once.
func (d Dialer) Download(ctx context.Context, n int, w Window) (Transfer, error) {
	return d.bulk(ctx, n, w, service.Source, download)
}

// Upload writes to n sinks at once; what the sinks have read counts.
func (d Dialer) Upload(ctx context.Context, n int, w Window) (Transfer, error) {
	return d.bulk(ctx, n, w, service.Sink, upload)
}

func (d Dialer) bulk(ctx context.Context, n int, w Window, op byte, move func(net.Conn, *atomic.Uint64) error) (Transfer, error) {
	g, err := d.openGroup(ctx, n, op)
	if err != nil {
		return Transfer{}, err
	}
	m := make(meter, n)
	g.start(func(i int, c net.Conn) error { return move(c, &m[i].n) })
	var t Transfer
	if err := m.moving(ctx, g.failed); err != nil {
		return t, errors.Join(err, g.Close())
	}
	t.Elapsed, err = w.run(ctx, g.failed, func(begin bool) {
		if begin {
			t.Bytes = m.sum()
		} else {
			t.Bytes = m.sum() - t.Bytes
		}
	})
	if err := g.Close(); err != nil {
		return t, err
	}
	if err == nil && t.Bytes == 0 {
		err = fmt.Errorf("nothing came through in %v", w.Length)
	}
	return t, err
}

func download(c net.Conn, n *atomic.Uint64) error {
	block := make([]byte, service.BlockSize)
	for {
		got, err := c.Read(block)
		n.Add(uint64(got))
		if err != nil {
			return fmt.Errorf("download: %w", err)
		}
	}
}

// upload takes the counts that the sink sends.
func upload(c net.Conn, n *atomic.Uint64) error {
	wrote := make(chan error, 1)
	go write(c, wrote)
	var count [8]byte
	for {
		if _, err := io.ReadFull(c, count[:]); err != nil {
			_ = c.Close() // ends the writer
			return fmt.Errorf("upload: %w (writer: %w)", err, <-wrote)
		}
		n.Store(binary.BigEndian.Uint64(count[:]))
	}
}

// write fills c until it is closed.
func write(c net.Conn, ended chan<- error) {
	for block := service.Block(); ; {
		if _, err := c.Write(block); err != nil {
			ended <- err
			return
		}
	}
}

// Bulk begins n downloads that go on until the group is closed.
func (d Dialer) Bulk(ctx context.Context, n int) (*Group, error) {
	g, err := d.openGroup(ctx, n, service.Source)
	if err != nil {
		return nil, err
	}
	m := make(meter, n)
	g.start(func(i int, c net.Conn) error { return download(c, &m[i].n) })
	return g, nil
}
