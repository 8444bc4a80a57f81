package connect_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/mux"
)

// h2 is a client of HTTP/2.
func (b *bed) h2() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: b.roots}, Protocols: protocols}
	b.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// connect2 asks for a tunnel; what is written to the returned pipe goes into it.
func (b *bed) connect2(transport *http.Transport, authority string) (*http.Response, *io.PipeWriter) {
	b.t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	req := (&http.Request{
		Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: b.secure}, Host: authority, Body: r,
		Header: http.Header{"Proxy-Authorization": {"Bearer " + token}},
	}).WithContext(ctx)
	res, err := transport.RoundTrip(req)
	ok(b.t, err)
	b.t.Cleanup(func() { res.Body.Close(); w.Close() })
	return res, w
}

func TestHTTP2(t *testing.T) {
	t.Run("bytes go at once in both directions, and END_STREAM is the client's half-close", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "hello ")
			echo(conn)
		})
		res, w := b.connect2(b.h2(), vm)
		if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
			t.Fatalf("answer %v", res)
		}
		first := make([]byte, 6)
		if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "hello " {
			t.Fatalf("got %q, %v before anything was sent", first, err)
		}
		_, err := io.WriteString(w, "one two")
		ok(t, err)
		ok(t, w.Close())
		if text, err := io.ReadAll(res.Body); err != nil || string(text) != "echo one two" {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("the target's end is END_STREAM", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, func(conn *net.TCPConn) { _, _ = io.WriteString(conn, "bye") })
		res, _ := b.connect2(b.h2(), vm)
		if text, err := io.ReadAll(res.Body); err != nil || string(text) != "bye" {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("a RST of the target is a RST_STREAM", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, func(conn *net.TCPConn) {
			_, _ = io.ReadFull(conn, make([]byte, 1))
			_ = conn.SetLinger(0)
		})
		res, w := b.connect2(b.h2(), vm)
		_, err := io.WriteString(w, "x")
		ok(t, err)
		_, err = io.ReadAll(res.Body)
		if reset := (http2.StreamError{}); !errors.As(err, &reset) {
			t.Errorf("got %v, want a stream error", err)
		}
	})
	t.Run("a RST_STREAM of the client resets the target", func(t *testing.T) {
		b := newBed(t, nil)
		got := make(chan error, 1)
		b.target(vm, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "x")
			_, err := io.Copy(io.Discard, conn)
			got <- err
		})
		res, _ := b.connect2(b.h2(), vm)
		_, err := io.ReadFull(res.Body, make([]byte, 1)) // the target is there
		ok(t, err)
		ok(t, res.Body.Close())
		if err := <-got; err == nil {
			t.Error("the target saw a clean end")
		}
	})
	t.Run("what a target does not read any more is taken from the client, who then reads the rest", func(t *testing.T) {
		b := newBed(t, nil)
		sent := make(chan struct{})
		b.targets.Store(vm, func(s *mux.Session) {
			_ = s.CloseRead()
			<-sent
			_, _ = io.WriteString(s, "enough")
			_ = s.Close()
		})
		res, w := b.connect2(b.h2(), vm)
		_, err := w.Write(make([]byte, 8<<20)) // more than is buffered on the way
		close(sent)
		ok(t, err)
		if text, err := io.ReadAll(res.Body); err != nil || string(text) != "enough" {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("tunnels of one connection do not wait for each other, and a refusal ends one alone", func(t *testing.T) {
		b := newBed(t, nil)
		b.target(vm, echo)
		transport := b.h2()
		slow, slowIn := b.connect2(transport, vm)
		refused, _ := b.connect2(transport, "vm1.edge-1.internal:22")
		if refused.StatusCode != http.StatusForbidden {
			t.Errorf("answer %v", refused)
		}
		ok(t, slowIn.Close())
		if text, err := io.ReadAll(slow.Body); err != nil || string(text) != "echo " {
			t.Errorf("got %q, %v", text, err)
		}
	})
	t.Run("nothing is answered before the session is open", func(t *testing.T) {
		b := newBed(t, nil)
		opening, release := make(chan struct{}), make(chan struct{})
		b.target(vm, echo)
		b.mayOpen = func(*front.Session) error { close(opening); <-release; return nil }
		answered := make(chan *http.Response, 1)
		go func() {
			res, _ := b.connect2(b.h2(), vm)
			answered <- res
		}()
		<-opening
		select {
		case res := <-answered:
			t.Errorf("answer %v", res)
		default:
		}
		close(release)
		<-answered
	})
}

// behind serves HTTPS as a target.
func behind(b *bed) *http.Server {
	certificate, caPEM := selfSigned(b.t)
	b.roots.AppendCertsFromPEM(caPEM)
	b.caPEM = append(b.caPEM, caPEM...)
	ln := listen(b.t)
	b.targets.Store("localhost.edge-1.internal:443", ln.Addr().String())
	b.targets.Store("127.0.0.1:443", ln.Addr().String())
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "behind "+r.Host) })}
	b.run(server, tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}))
	return server
}

func TestClients(t *testing.T) {
	t.Run("Go's transport by an HTTPS proxy, with the credential in its URL", func(t *testing.T) {
		b := newBed(t, nil)
		behind(b)
		proxy := &url.URL{Scheme: "https", Host: b.secure, User: url.UserPassword("any", token)}
		transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: b.roots}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		res, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://127.0.0.1/")
		ok(t, err)
		defer res.Body.Close()
		if text, err := io.ReadAll(res.Body); err != nil || string(text) != "behind 127.0.0.1" {
			t.Errorf("got %q, %v", text, err)
		}
	})
	for name, proxy := range map[string]func(*bed) string{
		"HTTPS": func(b *bed) string { return "https://any:" + token + "@" + b.secure },
		"HTTP":  func(b *bed) string { return "http://any:" + token + "@" + b.plain },
	} {
		t.Run("curl by an "+name+" proxy", func(t *testing.T) {
			b := newBed(t, nil)
			behind(b)
			ca := filepath.Join(t.TempDir(), "ca.crt")
			writeFile(t, ca, b.caPEM)
			out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "20", "--noproxy", "", "--proxy", proxy(b), "--proxy-cacert", ca, "--cacert", ca, "https://127.0.0.1/").CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "behind 127.0.0.1") {
				t.Errorf("curl: %v: %s", err, out)
			}
		})
	}
}
