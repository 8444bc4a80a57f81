package refusals

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// grace is how long beyond a limit a peer is given before the test goes on: what the limit
// is, and that a busy machine may be the reason, is for [testbed.InTime].
const grace = 30 * time.Second

// endsWithin reads until the peer ends the connection, whichever way.
func endsWithin(conn net.Conn, d time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("still open after %v", d)
	}
	return nil
}

// drip sends data again and again, byte by byte, until the peer ends the
// connection. It ends with that.
func drip(conn net.Conn, data []byte) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		if _, err := conn.Write(data[i%len(data) : i%len(data)+1]); err != nil {
			return
		}
		<-tick.C
	}
}

// slowPeer has opened a connection and now takes its time.
type slowPeer struct {
	name string
	conn net.Conn
	// data is sent byte by byte; without it the peer says nothing.
	data []byte
	// limit is when the hub must have ended the connection.
	limit time.Duration
	ended chan error
}

// wait ends with the connection, or when that has lived too long.
func (p *slowPeer) wait(ctx context.Context) {
	var dripping sync.WaitGroup
	if p.data != nil {
		dripping.Go(func() { drip(p.conn, p.data) })
	}
	began := time.Now()
	err := endsWithin(p.conn, p.limit+grace)
	err = errors.Join(err, testbed.InTime(ctx, bin("culvert"), time.Since(began), p.limit))
	_ = p.conn.Close() // it is over; this ends drip
	dripping.Wait()
	p.ended <- err
}

// slowBed is a hub of its own, with a certificate of an agent.
func slowBed(ctx context.Context, t *testing.T) (*hub, tls.Certificate) {
	t.Helper()
	tokens := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(tokens, []byte(the.ada+",ada,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := startHub(ctx, "hub2", "--token-file", tokens)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	signer, err := h.agentsCA()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := signer.sign(agentTemplate())
	if err != nil {
		t.Fatal(err)
	}
	return h, agent
}

// TestSilentAndSlowPeers starts all its peers first and then waits for each: the
// hub's limits are of 10 and 20 seconds.
func TestSilentAndSlowPeers(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	h, agent := slowBed(ctx, t)
	raw := func() net.Conn {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() }) // closed by then, where all went well
		return conn
	}
	overTLS := func(alpn string, certs ...tls.Certificate) net.Conn {
		conn := h.dial(t, alpn, certs...)
		if err := conn.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	const handshake, head = 15 * time.Second, 30 * time.Second
	slow := []*slowPeer{
		{name: "O3: a peer that says nothing is cut", conn: raw(), limit: handshake},
		{name: "O3: a ClientHello byte by byte is cut", conn: raw(), limit: handshake, data: append([]byte{0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3}, make([]byte, 200)...)},
		{name: "O3: a request head byte by byte is cut", conn: overTLS("http/1.1"), limit: head, data: []byte("GET /recorder/api HTTP/1.1\r\nHost: x\r\nX-Slow: " + strings.Repeat("x", 1000))},
		{name: "O3: an HTTP/1.1 client without a request is cut", conn: overTLS("http/1.1"), limit: head},
		{name: "O3: an HTTP/2 client without a preface is cut", conn: overTLS("h2"), limit: head},
		{name: "K1: an agent without a preface is cut", conn: overTLS(tunnelProtocol, agent), limit: head},
	}
	for _, p := range slow {
		p.ended = make(chan error, 1)
		go p.wait(ctx)
	}
	mute := overTLS(tunnelProtocol, agent)
	if _, err := mute.Write(grpcOpen(h.addr)); err != nil {
		t.Fatal(err)
	}

	t.Run("O3: a thousand silent connections stop nobody, and go away", func(t *testing.T) {
		var silent []net.Conn
		for range 1000 {
			silent = append(silent, raw())
		}
		// Every request is on a connection of its own, which has to get in.
		for range 20 {
			started := time.Now()
			asking, cancel := context.WithTimeout(ctx, 30*time.Second)
			status, body, err := h.get(asking, "/nosuch/api", the.ada)
			cancel()
			took := time.Since(started)
			if late := testbed.InTime(ctx, bin("culvert"), took, 5*time.Second); status != 404 || late != nil {
				t.Errorf("beside the silent ones: %d %s %v after %v, %v", status, body, err, took, late)
			}
		}
		var waiting sync.WaitGroup
		for _, conn := range silent {
			waiting.Go(func() {
				if err := endsWithin(conn, handshake+grace); err != nil {
					t.Error(err)
				}
			})
		}
		waiting.Wait()
	})

	t.Run("O3: what is no TLS is cut at once, with one line", func(t *testing.T) {
		for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", rawhttp.Preface, "SSH-2.0-x\r\n", strings.Repeat("\x00", 100), strings.Repeat("\xff", 100)} {
			conn := raw()
			remote := "remote=" + conn.LocalAddr().String() + " "
			before := len(logLines(t, h.process.Log(), remote)) // ports come round again
			began := time.Now()
			if _, err := io.WriteString(conn, garbage); err != nil {
				t.Fatal(err)
			}
			err := endsWithin(conn, grace)
			if err = errors.Join(err, testbed.InTime(ctx, bin("culvert"), time.Since(began), 3*time.Second)); err != nil {
				t.Errorf("%q: %v", garbage, err)
			}
			var lines []string
			err = testbed.Poll(ctx, "a line about "+remote, func(context.Context) error {
				if lines = logLines(t, h.process.Log(), remote); len(lines) == before {
					return errors.New("there is none")
				}
				return nil
			})
			if err != nil {
				t.Fatalf("%q: %v", garbage, err)
			}
			if last := lines[len(lines)-1]; len(lines) != before+1 || !strings.Contains(last, "tls handshake refused") || !strings.Contains(last, "reason=") {
				t.Errorf("%q: %d lines: %q", garbage, len(lines)-before, lines)
			}
		}
	})

	t.Run("K1: an agent without a HELLO loses its stream", func(t *testing.T) {
		if err := mute.SetReadDeadline(time.Now().Add(head + grace)); err != nil {
			t.Fatal(err)
		}
		if status, err := grpcStatus(mute); status == "" || status == "0" {
			t.Errorf("grpc-status %q, %v", status, err)
		}
		awaitLine(ctx, t, h.process.Log(), "agent disconnected", "no HELLO within")
	})

	for _, p := range slow {
		t.Run(p.name, func(t *testing.T) {
			if err := <-p.ended; err != nil {
				t.Error(err)
			}
		})
	}
	if err := h.ready(ctx); err != nil {
		t.Error(err)
	}
}
