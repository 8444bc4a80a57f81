package bench

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// each runs f for the reference and for Culvert.
func each(b *testing.B, f func(b *testing.B, address string)) {
	for _, subject := range []struct {
		name  string
		start func(*testing.B, string) string
	}{{"relay", relay}, {"culvert", culvert}} {
		b.Run(subject.name, func(b *testing.B) { f(b, subject.start(b, listen(b, nil, service))) })
	}
}

func dial(b *testing.B, address string, kind byte) net.Conn {
	b.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.Write([]byte{kind}); err != nil {
		b.Fatal(err)
	}
	return c
}

const block = 1 << 20

func BenchmarkDownload(b *testing.B) {
	for _, sessions := range []int{1, 16} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			each(b, func(b *testing.B, address string) {
				transfer(b, address, sessions, 'd', func(c net.Conn) error {
					_, err := io.CopyN(io.Discard, c, block)
					return err
				})
			})
		})
	}
}

func BenchmarkUpload(b *testing.B) {
	for _, sessions := range []int{1, 16} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			data := make([]byte, block)
			each(b, func(b *testing.B, address string) {
				transfer(b, address, sessions, 'u', func(c net.Conn) error {
					_, err := c.Write(data)
					return err
				})
			})
		})
	}
}

// transfer moves b.N blocks, shared by the sessions.
func transfer(b *testing.B, address string, sessions int, kind byte, move func(net.Conn) error) {
	conns := make([]net.Conn, sessions)
	for i := range conns {
		conns[i] = dial(b, address, kind)
		if err := move(conns[i]); err != nil { // windows are open
			b.Fatal(err)
		}
	}
	b.SetBytes(block)
	b.ResetTimer()
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	var moving sync.WaitGroup
	for _, c := range conns {
		moving.Go(func() {
			for range work {
				if err := move(c); err != nil {
					b.Errorf("transfer: %v", err)
					return
				}
			}
		})
	}
	moving.Wait()
	b.StopTimer()
	for _, c := range conns {
		_ = c.Close()
	}
}

// BenchmarkPingPong sends 1 KiB and waits for it.
func BenchmarkPingPong(b *testing.B) {
	for _, sessions := range []int{1, 64} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			each(b, func(b *testing.B, address string) {
				ping := make([]byte, 1024)
				b.ReportAllocs()
				transferRaw(b, address, sessions, func(c net.Conn) error {
					if _, err := c.Write(ping); err != nil {
						return err
					}
					_, err := io.ReadFull(c, make([]byte, len(ping)))
					return err
				})
			})
		})
	}
}

func transferRaw(b *testing.B, address string, sessions int, move func(net.Conn) error) {
	transfer(b, address, sessions, 'e', move)
	b.SetBytes(0)
}

// BenchmarkSetup opens a session, sends a byte through and back, and closes it.
func BenchmarkSetup(b *testing.B) {
	each(b, func(b *testing.B, address string) {
		for b.Loop() {
			c := dial(b, address, 'e')
			if _, err := c.Write([]byte("x")); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			_ = c.Close()
		}
	})
}
