package oneport

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// handshakeTime is how long the hub waits for a handshake at most, with an
	// allowance for its clients.
	handshakeTime = 10*time.Second + 5*time.Second
	// grace is what a busy machine may add before a client gives up; whether it is the
	// reason is for [testbed.InTime].
	grace = 30 * time.Second
)

// broken is a kind of client that does something wrong.
type broken struct {
	title string
	// do speaks to the hub on conn, which the caller closes.
	do func(ctx context.Context, conn net.Conn) error
	// slow ones are ended by the clock.
	slow bool
	// quiet ones are no more than a probe, and leave no line.
	quiet bool
}

// ends reads until the hub ends the connection; what it says goes to nobody.
func ends(ctx context.Context, conn net.Conn) error {
	_, err := answer(ctx, conn)
	return err
}

// answer returns what the hub says until it ends the connection.
func answer(ctx context.Context, conn net.Conn) (string, error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	var said bytes.Buffer
	if _, err := io.Copy(&said, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		return said.String(), fmt.Errorf("the hub keeps the connection: %w", err)
	}
	return said.String(), nil
}

// say writes bytes and waits for the end. That may come before all is written.
func say(text string) func(context.Context, net.Conn) error {
	return func(ctx context.Context, conn net.Conn) error {
		_, _ = io.WriteString(conn, text)
		return ends(ctx, conn)
	}
}

// inTLS does the same within TLS, and wants the answer to begin with one of want,
// or none.
func inTLS(protocol, text string, want ...string) func(context.Context, net.Conn) error {
	return func(ctx context.Context, raw net.Conn) error {
		conn := tls.Client(raw, &tls.Config{RootCAs: the.roots, ServerName: testbed.HubAddress.String(), NextProtos: []string{protocol}, MinVersion: tls.VersionTLS13})
		if err := conn.HandshakeContext(ctx); err != nil {
			return err
		}
		_, _ = io.WriteString(conn, text)
		said, err := answer(ctx, conn)
		if err == nil && len(want) > 0 && !slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(said, w) }) {
			err = fmt.Errorf("the hub said %.80q, want %q", said, want)
		}
		return err
	}
}

// hello is a ClientHello for the hub.
func hello() []byte {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{RootCAs: the.roots, ServerName: "hub." + domain, MinVersion: tls.VersionTLS13}).Handshake() // ends with the pipe
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		panic(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		panic(err)
	}
	return slices.Concat(head, body)
}

func brokenClients() []broken {
	whole := hello()
	garbage := make([]byte, 512)
	_, _ = rand.Read(garbage)
	garbage[0] = 'x'
	const host = "Host: 198.18.0.1\r\n"
	head := func(lines string) string { return "POST /east/api HTTP/1.1\r\n" + host + lines + "\r\n" }
	return []broken{
		{title: "TLS garbage", do: say(string(garbage))},
		{title: "a record of 64 KiB", do: say("\x16\x03\x01\xff\xff" + strings.Repeat("x", 64<<10))},
		{title: "HTTP without TLS", do: say("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		{title: "half a ClientHello, then a reset", do: func(_ context.Context, conn net.Conn) error {
			if _, err := conn.Write(whole[:len(whole)/2]); err != nil {
				return err
			}
			tcp, ok := conn.(*net.TCPConn)
			if !ok {
				return errors.New("no TCP")
			}
			return tcp.SetLinger(0)
		}},
		{title: "a name that nobody has", do: func(ctx context.Context, raw net.Conn) error {
			if err := tls.Client(raw, &tls.Config{RootCAs: the.roots, ServerName: "nobody.example", MinVersion: tls.VersionTLS13}).HandshakeContext(ctx); err == nil {
				return errors.New("the handshake was complete")
			}
			return nil
		}},
		{title: "no bytes", quiet: true, do: func(context.Context, net.Conn) error { return nil }},
		{title: "a handshake and nothing after", quiet: true, do: func(ctx context.Context, raw net.Conn) error {
			return tls.Client(raw, &tls.Config{RootCAs: the.roots, ServerName: "hub." + domain, MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
		}},
		{title: "a header of 1 MiB", do: inTLS("http/1.1", "GET /east/version HTTP/1.1\r\n"+host+"X: "+strings.Repeat("x", 1<<20)+"\r\n\r\n", "HTTP/1.1 431", "")},
		{title: "HTTP/0.9", do: inTLS("http/1.1", "GET /east/version\r\n\r\n", "HTTP/1.1 400")},
		{title: "no HTTP in the TLS", do: inTLS("http/1.1", "\x00\x01\x02\r\n\r\n", "HTTP/1.1 400")},
		{title: "HTTP/1.1 where HTTP/2 was agreed on", do: inTLS("h2", "GET / HTTP/1.1\r\n"+host+"\r\n")},
		{title: "a preface of HTTP/2 and garbage", do: inTLS("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+strings.Repeat("\xff", 64))},
		{title: "smuggling: two lengths", do: inTLS("http/1.1", head("Content-Length: 1\r\nContent-Length: 2\r\n")+"x", "HTTP/1.1 400")},
		{title: "smuggling: a length and chunks", do: inTLS("http/1.1", head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n")+"0\r\n\r\nGET /east/secret HTTP/1.1\r\n"+host+"\r\n", "HTTP/1.1 400", "HTTP/1.1 401")},
		{title: "smuggling: chunked in disguise", do: inTLS("http/1.1", head("Transfer-Encoding: xchunked\r\n")+"0\r\n\r\n", "HTTP/1.1 501", "HTTP/1.1 400")},
		{title: "smuggling: a space before the colon", do: inTLS("http/1.1", head("Content-Length : 5\r\n")+"hello", "HTTP/1.1 400")},
		{title: "smuggling: a folded line", do: inTLS("http/1.1", head("Connection: close\r\nX: a\r\n Content-Length: 5\r\n")+"hello", "HTTP/1.1 400", "HTTP/1.1 401")},
		{title: "no bytes, and it stays", slow: true, do: ends},
		{title: "a ClientHello in pieces of one byte, and no more", slow: true, do: func(ctx context.Context, conn net.Conn) error {
			for _, c := range whole {
				if _, err := conn.Write([]byte{c}); err != nil {
					return fmt.Errorf("the hub did not wait for the ClientHello: %w", err)
				}
			}
			return ends(ctx, conn)
		}},
	}
}

func (b *broken) run(ctx context.Context) (local string, err error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime+grace)
	defer cancel()
	conn, err := toHub(ctx, "", "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.LocalAddr().String(), b.do(ctx, conn)
}

func TestBrokenClients(t *testing.T) {
	kinds := brokenClients()
	t.Run("each kind ends in bounded time, and is in the log", func(t *testing.T) {
		ctx := within(t, 3*time.Minute)
		var running sync.WaitGroup
		for i := range kinds {
			running.Go(func() {
				kind := &kinds[i]
				began := time.Now()
				from, err := kind.run(ctx)
				err = errors.Join(err, testbed.InTime(ctx, bin("culvert"), time.Since(began), handshakeTime))
				if err != nil {
					t.Errorf("%s: %v", kind.title, err)
					return
				}
				if kind.quiet {
					return
				}
				err = testbed.Poll(ctx, "a line about "+kind.title, func(context.Context) error {
					text, err := os.ReadFile(the.hub.Log())
					if err == nil && !strings.Contains(string(text), from) && !answered(kind.title) {
						err = errors.New("no line has " + from)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
	})
	t.Run("ten thousand of them leave no memory behind, and others are served meanwhile", func(t *testing.T) {
		ctx := within(t, 8*time.Minute)
		slow, fast := split(kinds)
		wave := func(clients int) {
			var next atomic.Int64
			var running sync.WaitGroup
			for range 64 {
				running.Go(func() {
					for i := next.Add(1); i <= int64(clients); i = next.Add(1) {
						kind := fast[int(i)%len(fast)]
						if _, err := kind.run(ctx); err != nil {
							t.Errorf("%s: %v", kind.title, err)
							return
						}
					}
				})
			}
			for i := range clients / 20 {
				running.Go(func() {
					if _, err := slow[i%len(slow)].run(ctx); err != nil {
						t.Errorf("%s: %v", slow[i%len(slow)].title, err)
					}
				})
			}
			honest, done := ways()[2].of(1)
			defer done()
			for range 20 {
				if err := honest.once(ctx); err != nil {
					t.Errorf("an honest client beside them: %v", err)
				}
			}
			running.Wait()
		}
		wave(2000)
		before := resident(ctx, t)
		wave(8000)
		// What it has collected it gives back to the system little by little.
		after, most := int64(0), before+before/4+(16<<20)
		err := testbed.Poll(within(t, 3*time.Minute), "the hub's memory", func(context.Context) error {
			if after = resident(ctx, t); after > most {
				return fmt.Errorf("it grew from %d to %d MiB", before>>20, after>>20)
			}
			return nil
		})
		t.Logf("the hub has %d MiB after 2 100 broken clients, %d MiB after 10 500", before>>20, after>>20)
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("more silent clients than there are places keep nobody out", func(t *testing.T) {
		ctx := within(t, 3*time.Minute)
		for range 1100 {
			conn, err := toHub(ctx, "", "")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
		start := time.Now()
		tr := transport(&tls.Config{RootCAs: the.roots}, true)
		defer tr.CloseIdleConnections()
		if _, err := call(ctx, &http.Client{Transport: tr}, http.MethodGet, "https://"+address()+"/-/healthz", "", nil); err != nil {
			t.Fatal(err)
		}
		// Two seconds of silence are cut when others wait; without that it were ten.
		took := time.Since(start)
		t.Logf("served after %v", took.Round(time.Millisecond))
		if err := testbed.InTime(ctx, bin("culvert"), took, 6*time.Second); err != nil {
			t.Errorf("served late: %v", err)
		}
	})
}

// answered tells kinds whose request was read and refused as such: its line is that
// of a request, which has an id and no address.
func answered(title string) bool {
	return title == "smuggling: a length and chunks" || title == "smuggling: a folded line"
}

func split(kinds []broken) (slow, fast []broken) {
	for _, kind := range kinds {
		if kind.slow {
			slow = append(slow, kind)
		} else {
			fast = append(fast, kind)
		}
	}
	return slow, fast
}

// resident returns what the hub has once it does not shrink any more.
func resident(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	var last int64
	err := testbed.Poll(ctx, "memory that is at rest", func(context.Context) error {
		m, err := the.hub.Memory()
		if err != nil {
			return err
		}
		before := last
		last = m.Resident
		if before == 0 || last < before {
			return fmt.Errorf("%d MiB", last>>20)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}
