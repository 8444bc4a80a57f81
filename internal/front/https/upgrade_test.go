package https_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// switched is what a target answers to an upgrade of the given protocol.
func switched(protocol string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\nX-Stream: v5\r\n\r\n"
}

// upgrade asks for protocol, with early bytes right after the head, and reads
// the 101.
func upgrade(t *testing.T, b *bed, path, protocol, early string) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	conn := b.raw()
	_, err := io.WriteString(conn, head("POST "+path, "Connection: Upgrade", "Upgrade: "+protocol, "Content-Length: 0")+early)
	ok(t, err)
	r := bufio.NewReader(conn)
	res := readResponse(t, r)
	if res.StatusCode != 101 || res.Header.Get("Upgrade") != protocol || res.Header.Get("X-Stream") != "v5" {
		t.Fatalf("got %s %v", res.Status, res.Header)
	}
	return conn, r
}

func TestUpgrade(t *testing.T) {
	big := make([]byte, 1<<20)
	_, err := rand.Read(big)
	ok(t, err)
	for _, protocol := range []string{"SPDY/3.1", "websocket", "anything"} {
		t.Run(protocol, func(t *testing.T) {
			t.Run("O20: an upgrade to the API server carries bytes both ways, early ones too", func(t *testing.T) {
				kube := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Upgrade") != protocol || r.Header.Get("Impersonate-User") == "" || r.Header.Get("Authorization") != "Bearer "+agentToken {
						t.Errorf("API server saw %v", r.Header)
					}
					conn, rw, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					io.WriteString(conn, switched(protocol)+"hello ")
					io.Copy(conn, rw)
				})
				b := newBed(t, bedConfig{kube: kube})
				conn, r := upgrade(t, b, "/edge-1/api/v1/namespaces/x/pods/y/exec?command=sh", protocol, "early ")
				_, err := io.WriteString(conn, "late")
				ok(t, err)
				ok(t, conn.CloseWrite())
				got, err := io.ReadAll(r)
				ok(t, err)
				if string(got) != "hello early late" {
					t.Errorf("got %q", got)
				}
			})
			b := newBed(t, bedConfig{})
			t.Run("N2: a client that sends, closes its write side and receives 1 MiB gets all of it", func(t *testing.T) {
				received := make(chan []byte, 1)
				port := b.rawTarget(func(_ string, conn *net.TCPConn, r *bufio.Reader) {
					io.WriteString(conn, switched(protocol))
					all, err := io.ReadAll(r)
					if err != nil {
						t.Errorf("target: %v", err)
					}
					received <- all
					conn.Write(big)
				})
				conn, r := upgrade(t, b, service("http:web:"+port, "/"), protocol, "")
				_, err := conn.Write(big)
				ok(t, err)
				ok(t, conn.CloseWrite())
				if !bytes.Equal(<-received, big) {
					t.Error("the target did not get what was sent before the half-close")
				}
				got, err := io.ReadAll(r)
				ok(t, err)
				if !bytes.Equal(got, big) {
					t.Errorf("got %d bytes after the half-close", len(got))
				}
			})
			t.Run("N2: a target that sends, closes its write side and receives 1 MiB gets all of it", func(t *testing.T) {
				received := make(chan []byte, 1)
				port := b.rawTarget(func(_ string, conn *net.TCPConn, r *bufio.Reader) {
					io.WriteString(conn, switched(protocol))
					conn.Write(big)
					conn.CloseWrite()
					all, err := io.ReadAll(r)
					if err != nil {
						t.Errorf("target: %v", err)
					}
					received <- all
				})
				conn, r := upgrade(t, b, service("http:web:"+port, "/"), protocol, "")
				got, err := io.ReadAll(r)
				ok(t, err)
				if !bytes.Equal(got, big) {
					t.Errorf("got %d bytes", len(got))
				}
				_, err = conn.Write(big)
				ok(t, err)
				ok(t, conn.Close())
				if !bytes.Equal(<-received, big) {
					t.Error("the target did not get what was sent after its half-close")
				}
			})
			t.Run("N2: a target that breaks is not a clean end at the client", func(t *testing.T) {
				port := b.rawTarget(func(_ string, conn *net.TCPConn, r *bufio.Reader) {
					io.WriteString(conn, switched(protocol)+"part")
					r.ReadByte()
					conn.SetLinger(0)
				})
				conn, r := upgrade(t, b, service("http:web:"+port, "/"), protocol, "")
				part := make([]byte, 4)
				_, err := io.ReadFull(r, part)
				ok(t, err)
				_, err = conn.Write([]byte{0})
				ok(t, err)
				if _, err := r.ReadByte(); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("read after the break: %v, want a reset", err)
				}
			})
			t.Run("N2: a client that breaks is not a clean end at the target", func(t *testing.T) {
				ended := make(chan error, 1)
				port := b.rawTarget(func(_ string, conn *net.TCPConn, r *bufio.Reader) {
					io.WriteString(conn, switched(protocol))
					_, err := r.ReadByte()
					ended <- err
				})
				conn, _ := upgrade(t, b, service("http:web:"+port, "/"), protocol, "")
				tcp := conn.NetConn().(*net.TCPConn)
				ok(t, tcp.SetLinger(0))
				ok(t, tcp.Close())
				if err := <-ended; err == nil || errors.Is(err, io.EOF) {
					t.Errorf("read at the target: %v, want a reset", err)
				}
			})
		})
	}
}

func TestUpgradeRefused(t *testing.T) {
	b := newBed(t, bedConfig{})
	port := b.rawTarget(func(head string, conn *net.TCPConn, _ *bufio.Reader) {
		switch {
		case strings.HasPrefix(head, "GET /denied"):
			io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		case strings.Contains(head, "Upgrade"):
			io.WriteString(conn, switched("something-else"))
		default:
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain")
		}
	})
	ask := func(t *testing.T, path, protocol string) (*http.Response, string) {
		t.Helper()
		conn := b.raw()
		_, err := io.WriteString(conn, head("GET "+service("http:web:"+port, path), "Connection: Upgrade", "Upgrade: "+protocol))
		ok(t, err)
		res := readResponse(t, bufio.NewReader(conn))
		body, err := io.ReadAll(res.Body)
		ok(t, err)
		return res, string(body)
	}
	t.Run("O20: the target's refusal of an upgrade passes", func(t *testing.T) {
		if res, body := ask(t, "/denied", "websocket"); res.StatusCode != 403 || body != "no" {
			t.Errorf("got %s %q", res.Status, body)
		}
	})
	t.Run("O20: a switch to what was not asked for is an error", func(t *testing.T) {
		if res, _ := ask(t, "/", "websocket"); res.StatusCode != 502 || res.Header.Get("X-Culvert-Error") != "protocol-error" {
			t.Errorf("got %s %v", res.Status, res.Header)
		}
	})
	t.Run("O3: an upgrade to HTTP itself, which would escape impersonation, is not sent on", func(t *testing.T) {
		for _, protocol := range []string{"h2c", "H2C", "websocket, h2c", "HTTP/2.0"} {
			if res, body := ask(t, "/", protocol); res.StatusCode != 200 || body != "plain" {
				t.Errorf("%s: got %s %q", protocol, res.Status, body)
			}
		}
	})
}
