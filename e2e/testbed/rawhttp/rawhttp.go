package rawhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Field is the name and the value of a header or trailer field.
type Field = [2]string

// Request is sent as it is. Names are written as given.
type Request struct {
	// Method is GET when it is empty.
	Method, Path string
	Header       []Field
	Body         string
	// Trailer, when not nil, makes the body one in chunks.
	Trailer []Field
}

func (r Request) method() string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

// Answer is what came back. Without a status the server cut the request, and Cut
// says how.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Cut    string
}

// Server is where requests are sent, each on a connection of its own. Its methods
// are safe for concurrent use.
type Server struct {
	// Addr is its host:port, Roots what verifies it.
	Addr  string
	Roots *x509.CertPool
	// Certificates are shown to it.
	Certificates []tls.Certificate
	// Timeout bounds one request and its answer.
	Timeout time.Duration
}

// Protocol is one version of HTTP.
type Protocol struct {
	Name string
	Send func(context.Context, Server, Request) Answer
}

// Protocols are all versions that can be sent.
func Protocols() []Protocol {
	return []Protocol{
		{"HTTP/1.1", func(ctx context.Context, s Server, r Request) Answer { return s.HTTP1(ctx, r) }},
		{"HTTP/2", func(ctx context.Context, s Server, r Request) Answer { return s.HTTP2(ctx, r) }},
	}
}

// Dial opens a TLS connection for one protocol, with the deadline of one exchange.
// The caller closes it.
func (s Server) Dial(ctx context.Context, alpn string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		RootCAs: s.Roots, NextProtos: []string{alpn}, Certificates: s.Certificates, MinVersion: tls.VersionTLS12,
	}}
	conn, err := dialer.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), conn.SetDeadline(time.Now().Add(s.Timeout))
}

// HTTP1 sends r in HTTP/1.1 (RFC 9112).
func (s Server) HTTP1(ctx context.Context, r Request) Answer {
	conn, err := s.Dial(ctx, "http/1.1")
	if err != nil {
		return Answer{Cut: err.Error()}
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, r.text(s.Addr)); err != nil {
		return Answer{Cut: err.Error()}
	}
	return readHTTP1(bufio.NewReader(conn), r.method())
}

// text is the request in HTTP/1.1.
func (r Request) text(host string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method(), r.Path, host)
	write := func(fields []Field) {
		for _, f := range fields {
			fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
		}
		b.WriteString("\r\n")
	}
	head := r.Header
	switch {
	case r.Trailer != nil:
		write(append(slices.Clip(head), Field{"Transfer-Encoding", "chunked"}))
		fmt.Fprintf(&b, "%x\r\n%s\r\n0\r\n", len(r.Body), r.Body)
		write(r.Trailer)
	case r.Body != "":
		write(append(slices.Clip(head), Field{"Content-Length", fmt.Sprint(len(r.Body))}))
		b.WriteString(r.Body)
	default:
		write(head)
	}
	return b.String()
}

func readHTTP1(r *bufio.Reader, method string) Answer {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return Answer{Cut: err.Error()}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return Answer{Status: resp.StatusCode, Header: resp.Header}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{Cut: err.Error()}
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}
}
