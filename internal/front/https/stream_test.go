package https_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func TestStreaming(t *testing.T) {
	events := make(chan string)
	ended := make(chan struct{}, 1)
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w).Flush
		w.WriteHeader(http.StatusOK)
		flush()
		for {
			select {
			case event := <-events:
				io.WriteString(w, event)
				flush()
			case <-r.Context().Done():
				ended <- struct{}{}
				return
			}
		}
	})})
	versions(t, func(t *testing.T, http2 bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		res, err := b.client(http2).Do(b.request(http.MethodGet, "/edge-1/api/v1/pods?watch=1", nil).WithContext(ctx))
		ok(t, err)
		defer res.Body.Close()
		t.Run("O22: the head of a watch arrives before any event, each event when it happens", func(t *testing.T) {
			for i := range 3 {
				want := fmt.Sprintf("event %d\n", i)
				events <- want
				got := make([]byte, len(want))
				_, err := io.ReadFull(res.Body, got)
				ok(t, err)
				if string(got) != want {
					t.Errorf("got %q", got)
				}
			}
		})
		t.Run("D11: a client that leaves ends the request at the API server at once", func(t *testing.T) {
			cancel()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("the API server still serves the request")
			}
		})
	})
}

func TestTalkInTurns(t *testing.T) {
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w).Flush
		w.WriteHeader(http.StatusOK)
		flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, "re: "+line)
			flush()
		}
	})})
	versions(t, func(t *testing.T, http2 bool) {
		t.Helper()
		t.Run("O20: a chunked request and its answer stream at the same time", func(t *testing.T) {
			pr, pw := io.Pipe()
			res, err := b.client(http2).Do(b.request(http.MethodPost, "/edge-1/talk", pr))
			ok(t, err)
			defer res.Body.Close()
			out := bufio.NewReader(res.Body)
			for i := range 3 {
				_, err := fmt.Fprintf(pw, "%d\n", i)
				ok(t, err)
				line, err := out.ReadString('\n')
				ok(t, err)
				if line != fmt.Sprintf("re: %d\n", i) {
					t.Errorf("got %q", line)
				}
			}
			ok(t, pw.Close())
			if _, err := out.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("end: %v", err)
			}
		})
	})
}

func TestBrokenAnswer(t *testing.T) {
	b := newBed(t, bedConfig{})
	for name, head := range map[string]string{
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
	} {
		port := b.rawTarget(func(_ string, conn *net.TCPConn, _ *bufio.Reader) { io.WriteString(conn, head) })
		versions(t, func(t *testing.T, http2 bool) {
			t.Helper()
			t.Run("N2: a cut "+name+" body is no clean end", func(t *testing.T) {
				res, err := b.client(http2).Do(b.request(http.MethodGet, service("http:web:"+port, "/"), nil))
				ok(t, err)
				defer res.Body.Close()
				if body, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("read %q without an error", body)
				}
			})
		})
		t.Run("HTTP/1.0", func(t *testing.T) {
			t.Run("N2: a cut "+name+" body is no clean end", func(t *testing.T) {
				conn := b.raw()
				_, err := fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n", service("http:web:"+port, "/"), hubToken)
				ok(t, err)
				if body, err := io.ReadAll(conn); err == nil {
					t.Errorf("read %q without an error", body)
				}
			})
		})
	}
	t.Run("N2: an upload that the client cuts is no clean end at the target", func(t *testing.T) {
		ended := make(chan error, 1)
		port := b.rawTarget(func(_ string, _ *net.TCPConn, r *bufio.Reader) {
			// What ends the connection does not matter, only that the body
			// has no last chunk.
			all, _ := io.ReadAll(r)
			if bytes.HasSuffix(all, []byte("0\r\n\r\n")) {
				ended <- fmt.Errorf("the body has an end: %q", all)
				return
			}
			ended <- nil
		})
		conn := b.raw()
		_, err := io.WriteString(conn, head("POST "+service("http:web:"+port, "/"), "Transfer-Encoding: chunked")+"4\r\npart\r\n")
		ok(t, err)
		ok(t, conn.Close())
		ok(t, <-ended)
	})
}

func TestPool(t *testing.T) {
	var served atomic.Int32
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		io.WriteString(w, "ok")
	})})
	client := b.client(true)
	t.Run("O3: requests one after the other share a session", func(t *testing.T) {
		for range 5 {
			b.get(client, "/edge-1/api")
		}
		if n := b.dialled(); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
	t.Run("O3: after the link was lost a GET goes over a fresh session", func(t *testing.T) {
		b.cutSessions()
		res, body := b.get(client, "/edge-1/api")
		if res.StatusCode != 200 || body != "ok" || b.dialled() != 2 {
			t.Errorf("got %s %q over %d sessions", res.Status, body, b.dialled())
		}
	})
}

// endless writes as fast as it is read, until told to end.
type endless struct {
	stop atomic.Bool
	sum  hash.Hash
	n    int64
	done chan struct{}
}

func (e *endless) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	defer close(e.done)
	block := bytes.Repeat([]byte("culvert "), 4<<10)
	for !e.stop.Load() {
		e.sum.Write(block)
		n, err := w.Write(block)
		e.n += int64(n)
		if err != nil {
			return
		}
	}
}

func TestStalledClient(t *testing.T) {
	source := &endless{sum: sha256.New(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("/endless", source)
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	b := newBed(t, bedConfig{kube: mux})
	client := b.client(true)
	b.get(client, "/edge-1/small")

	stalled, err := client.Do(b.request(http.MethodGet, "/edge-1/endless", nil))
	ok(t, err)
	defer stalled.Body.Close()
	before := heap()
	t.Run("D11: a client that does not read delays nobody on its own connection", func(t *testing.T) {
		for range 200 {
			start := time.Now()
			res, body := b.get(client, "/edge-1/small")
			if took := time.Since(start); res.StatusCode != 200 || body != "ok" || took > 5*time.Second {
				t.Fatalf("got %s %q after %v", res.Status, body, took)
			}
		}
	})
	t.Run("D11: it costs bounded memory", func(t *testing.T) {
		// Windows and buffers of all hops and of the test's own client.
		if grown := heap() - before; grown > 32<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
	t.Run("D11: when it reads again it gets every byte", func(t *testing.T) {
		source.stop.Store(true)
		sum := sha256.New()
		n, err := io.Copy(sum, stalled.Body)
		ok(t, err)
		<-source.done
		if n != source.n || !bytes.Equal(sum.Sum(nil), source.sum.Sum(nil)) {
			t.Errorf("got %d bytes of %d", n, source.n)
		}
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestLargeBodies(t *testing.T) {
	const size = 16 << 20
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })})
	payload := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	versions(t, func(t *testing.T, http2 bool) {
		t.Helper()
		t.Run("O22: 16 MiB up and down at once stay the same bytes", func(t *testing.T) {
			res, err := b.client(http2).Do(b.request(http.MethodPut, "/edge-1/echo", bytes.NewReader(payload)))
			ok(t, err)
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			ok(t, err)
			if !bytes.Equal(got, payload) {
				t.Errorf("got %d bytes", len(got))
			}
		})
	})
}
