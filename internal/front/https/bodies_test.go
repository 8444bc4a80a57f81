package https_test

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestBodies(t *testing.T) {
	b := newBed(t, bedConfig{kube: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			io.WriteString(zip, "hello")
			zip.Close()
		case "/untyped":
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		case "/trailers":
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "X-Announced")
			fmt.Fprintf(w, "%s|%s", body, r.Trailer.Get("X-Sum"))
			w.Header().Set("X-Announced", "a")
			w.Header().Set(http.TrailerPrefix+"X-Late", "b")
		case "/early":
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			io.WriteString(w, "done")
		}
	})})
	versions(t, func(t *testing.T, http2 bool) {
		t.Helper()
		client := b.client(http2)
		t.Run("O22: an encoded body is not decoded", func(t *testing.T) {
			res, body := b.get(client, "/edge-1/gzip")
			if res.Header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(body, "\x1f\x8b") {
				t.Errorf("got %v %q", res.Header, body)
			}
		})
		t.Run("O22: no Content-Type is guessed", func(t *testing.T) {
			res, _ := b.get(client, "/edge-1/untyped")
			if types, has := res.Header["Content-Type"]; has {
				t.Errorf("got %q", types)
			}
		})
		t.Run("O20: trailers pass both ways", func(t *testing.T) {
			r := b.request(http.MethodPost, "/edge-1/trailers", io.MultiReader(strings.NewReader("body")))
			r.Trailer = http.Header{"X-Sum": {"42"}, "Impersonate-User": {"root"}}
			res, err := client.Do(r)
			ok(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			ok(t, err)
			if string(body) != "body|42" || res.Trailer.Get("X-Announced") != "a" || res.Trailer.Get("X-Late") != "b" {
				t.Errorf("got %q, %v", body, res.Trailer)
			}
		})
	})
	t.Run("O20: an informational answer passes", func(t *testing.T) {
		conn := b.raw()
		_, err := io.WriteString(conn, head("GET /edge-1/early"))
		ok(t, err)
		r := bufio.NewReader(conn)
		if res := readResponse(t, r); res.StatusCode != 103 || res.Header.Get("Link") != "</style.css>" {
			t.Errorf("got %s %v", res.Status, res.Header)
		}
		if res := readResponse(t, r); res.StatusCode != 200 || res.Header.Get("Link") != "" {
			t.Errorf("got %s %v", res.Status, res.Header)
		}
	})
}

func TestExpectContinue(t *testing.T) {
	b := newBed(t, bedConfig{})
	port := b.rawTarget(func(head string, conn *net.TCPConn, r *bufio.Reader) {
		if !strings.Contains(head, "Expect: 100-continue\r\n") {
			t.Errorf("no Expect in %q", head)
		}
		if strings.HasPrefix(head, "PUT /refuse") {
			io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		body := make([]byte, 4)
		if _, err := io.ReadFull(r, body); err != nil {
			t.Errorf("read body: %v", err)
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n%s", body)
	})
	ask := func(t *testing.T, path string) (io.Writer, *bufio.Reader) {
		t.Helper()
		conn := b.raw()
		_, err := io.WriteString(conn, head("PUT "+service("http:web:"+port, path), "Content-Length: 4", "Expect: 100-continue"))
		ok(t, err)
		return conn, bufio.NewReader(conn)
	}
	t.Run("O20: 100 Continue comes from the target", func(t *testing.T) {
		conn, r := ask(t, "/accept")
		if res := readResponse(t, r); res.StatusCode != 100 {
			t.Fatalf("got %s", res.Status)
		}
		_, err := io.WriteString(conn, "body")
		ok(t, err)
		res := readResponse(t, r)
		body, err := io.ReadAll(res.Body)
		ok(t, err)
		if res.StatusCode != 200 || string(body) != "body" {
			t.Errorf("got %s %q", res.Status, body)
		}
	})
	t.Run("O20: a refusal comes instead of 100 Continue", func(t *testing.T) {
		if _, r := ask(t, "/refuse"); true {
			if res := readResponse(t, r); res.StatusCode != 413 {
				t.Errorf("got %s", res.Status)
			}
		}
	})
}
