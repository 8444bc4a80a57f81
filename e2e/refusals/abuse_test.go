package refusals

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

const (
	// attempts is how often each size is claimed, claimed how much at most.
	attempts = 50
	claimed  = 1<<32 - 1
	// allowance is what the hub's resident memory may grow by over all attempts of
	// one kind: buffers of their connections, many times over under the race
	// detector.
	allowance = 64 << 20
)

// grpcOpen opens a Connect stream on a new connection.
func grpcOpen(host string) []byte {
	head := rawhttp.Block([2]string{":method", "POST"}, [2]string{":scheme", "https"}, [2]string{":authority", host},
		[2]string{":path", "/culvert.v1.TunnelService/Connect"}, [2]string{"content-type", "application/grpc"}, [2]string{"te", "trailers"})
	out := append([]byte(rawhttp.Preface), rawhttp.Frame(0, rawhttp.FrameSettings, 0, 0, nil)...)
	return append(out, rawhttp.Frame(len(head), rawhttp.FrameHeaders, rawhttp.FlagEndHeaders, 1, head)...)
}

// grpcCall is grpcOpen and a message that claims size bytes and has 100.
func grpcCall(host string, size uint32) []byte {
	message := append(binary.BigEndian.AppendUint32([]byte{0}, size), bytes.Repeat([]byte{0x0a}, 100)...)
	return append(grpcOpen(host), rawhttp.Frame(len(message), rawhttp.FrameData, 0, 1, message)...)
}

// grpcStatus reads the trailer of the call on stream 1.
func grpcStatus(conn io.ReadWriter) (string, error) {
	decoder := hpack.NewDecoder(4096, nil)
	status := ""
	for {
		kind, flags, stream, payload, err := rawhttp.ReadFrame(conn)
		if err != nil {
			return "", err
		}
		if kind == rawhttp.FrameHeaders && stream == 1 {
			fields, err := decoder.DecodeFull(payload)
			if err != nil {
				return "", err
			}
			for _, f := range fields {
				if f.Name == "grpc-status" {
					status = f.Value
				}
			}
			if flags&rawhttp.FlagEndStream != 0 {
				return status, nil
			}
		}
	}
}

func TestOversizedFrames(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	signer, err := the.hub.agentsCA()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := signer.sign(agentTemplate())
	if err != nil {
		t.Fatal(err)
	}
	// repeat does attempts of one kind and holds the hub's memory against what it
	// was; other callers are served meanwhile.
	repeat := func(t *testing.T, attempt func(t *testing.T)) {
		t.Helper()
		before, err := the.hub.process.Memory()
		if err != nil {
			t.Fatal(err)
		}
		for range attempts {
			attempt(t)
			if t.Failed() {
				return
			}
		}
		if status, body, err := the.hub.get(ctx, "/recorder/api", the.ada); status != 200 {
			t.Errorf("another caller: %d %s %v", status, body, err)
		}
		after, err := the.hub.process.Memory()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("resident %d -> %d MiB, peak %d -> %d MiB", before.Resident>>20, after.Resident>>20, before.Peak>>20, after.Peak>>20)
		if grown := after.Peak - before.Peak; grown > allowance {
			t.Errorf("the hub grew by %d MiB", grown>>20)
		}
	}
	t.Run("O3: before TLS a claimed size costs nothing", func(t *testing.T) {
		for _, c := range []struct {
			name string
			data []byte
		}{
			{"TLS record", []byte{0x16, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff}},
			{"handshake message in a whole record", append([]byte{0x16, 3, 1, 0, 4}, 1, 0xff, 0xff, 0xff)},
			{"gRPC in clear text", grpcCall("x", claimed)},
		} {
			repeat(t, func(t *testing.T) {
				t.Helper()
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", the.hub.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := conn.Write(c.data); err != nil {
					t.Fatal(err)
				}
				// The rest of what was claimed never comes. The hub may have hung up by now.
				_ = conn.(*net.TCPConn).CloseWrite()
				if err := endsWithin(conn, exchangeTime); err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
			})
		}
	})

	t.Run("K1: a peer without a certificate cannot claim a size", func(t *testing.T) {
		repeat(t, func(t *testing.T) {
			t.Helper()
			conn := the.hub.dial(t, tunnelProtocol)
			defer conn.Close()
			_, _ = conn.Write(grpcCall(the.hub.addr, claimed)) // may meet the refusal
			if err := endsWithin(conn, exchangeTime); err != nil {
				t.Error(err)
			}
		})
	})

	t.Run("O3: a client's HTTP/2 frame or Content-Length that claims too much costs nothing", func(t *testing.T) {
		repeat(t, func(t *testing.T) {
			t.Helper()
			conn := the.hub.dial(t, "h2")
			defer conn.Close()
			start := append([]byte(rawhttp.Preface), rawhttp.Frame(0, rawhttp.FrameSettings, 0, 0, nil)...)
			if _, err := conn.Write(append(start, rawhttp.Frame(1<<24-1, rawhttp.FrameHeaders, rawhttp.FlagEndHeaders, 1, make([]byte, 100))...)); err != nil {
				t.Fatal(err)
			}
			if got := answered(rawhttp.ReadHTTP2(conn)); got.cut == "" {
				t.Errorf("answered %d", got.status)
			}
		})
		repeat(t, func(t *testing.T) {
			t.Helper()
			got := the.hub.http1(t, request{method: "POST", path: "/recorder/api", header: [][2]string{{"Content-Length", "9223372036854775807"}}})
			if got.status != 401 {
				t.Errorf("%d %s", got.status, got.cut)
			}
		})
	})

	t.Run("K1: an agent that claims a message of 4 GiB loses its stream, with the reason", func(t *testing.T) {
		for _, size := range []uint32{claimed, 1 << 30, 1<<20 + 1} {
			repeat(t, func(t *testing.T) {
				t.Helper()
				conn := the.hub.dial(t, tunnelProtocol, agent)
				defer conn.Close()
				if _, err := conn.Write(grpcCall(the.hub.addr, size)); err != nil {
					t.Fatal(err)
				}
				if status, err := grpcStatus(conn); status != "8" { // RESOURCE_EXHAUSTED
					t.Errorf("grpc-status %q, %v", status, err)
				}
			})
		}
		awaitLine(ctx, t, the.hub.process.Log(), "agent disconnected", "cluster=rogue", "larger than max")
	})

	t.Run("K1: an agent that claims a field of 2 GiB inside of a small message loses its stream", func(t *testing.T) {
		repeat(t, func(t *testing.T) {
			t.Helper()
			conn := the.hub.dial(t, tunnelProtocol, agent)
			defer conn.Close()
			call := grpcCall(the.hub.addr, 100)
			copy(call[len(call)-100:], []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x07}) // field 1, length 2^31-1
			if _, err := conn.Write(call); err != nil {
				t.Fatal(err)
			}
			if status, err := grpcStatus(conn); status == "" || status == "0" {
				t.Errorf("grpc-status %q, %v", status, err)
			}
		})
	})
}
