package refusals

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

// request is sent as it is, byte for byte: a client library would mend or refuse
// what these tests send. Names are written as given.
type request struct {
	method, path string
	header       [][2]string
	body         string
	trailer      [][2]string
}

func (r request) verb() string {
	if r.method == "" {
		return http.MethodGet
	}
	return r.method
}

// answer is what came back. Without a status the hub cut the request, and cut
// says how.
type answer struct {
	status int
	header http.Header
	body   []byte
	cut    string
}

// protocol sends a request in one version of HTTP.
type protocol struct {
	name string
	send func(t *testing.T, h *hub, r request) answer
}

func protocols() []protocol {
	return []protocol{
		{"HTTP/1.1", func(t *testing.T, h *hub, r request) answer { t.Helper(); return h.http1(t, r) }},
		{"HTTP/2", func(t *testing.T, h *hub, r request) answer { t.Helper(); return h.http2(t, r) }},
	}
}

func bearer(token string) [][2]string { return [][2]string{{"authorization", "Bearer " + token}} }

// exchangeTime bounds one request and its answer.
const exchangeTime = 20 * time.Second

// dial opens a TLS connection to the hub for one protocol. It is closed at the end
// of the test at the latest.
func (h *hub) dial(t *testing.T, alpn string, certs ...tls.Certificate) *tls.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), exchangeTime)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: h.roots, NextProtos: []string{alpn}, Certificates: certs}}
	conn, err := dialer.DialContext(ctx, "tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // often closed or broken by then
	if err := conn.SetDeadline(time.Now().Add(exchangeTime)); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn)
}

// http1 sends r in HTTP/1.1 (RFC 9112).
func (h *hub) http1(t *testing.T, r request) answer {
	t.Helper()
	conn := h.dial(t, "http/1.1")
	defer conn.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.verb(), r.path, h.addr)
	for _, f := range r.header {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
	}
	switch {
	case r.trailer != nil:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n", len(r.body), r.body)
		for _, f := range r.trailer {
			fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
		}
		b.WriteString("\r\n")
	case r.body != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(r.body), r.body)
	default:
		b.WriteString("\r\n")
	}
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return answer{cut: err.Error()}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.verb()})
	if err != nil {
		return answer{cut: err.Error()}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return answer{status: resp.StatusCode, header: resp.Header}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{cut: err.Error()}
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: body}
}

// The frames of HTTP/2 that are used here, and their flags (RFC 9113 section 6).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway = 0, 1, 3, 4, 6, 7

	endStream, ack, endHeaders = 1, 1, 4
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame returns one frame. The length it claims can be another than it has.
func frame(length int, kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// block returns a header block whose names are as given.
func block(fields ...[2]string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes everything
	}
	return b.Bytes()
}

// http2 sends r in HTTP/2 (RFC 9113) on a connection of its own.
func (h *hub) http2(t *testing.T, r request) answer {
	t.Helper()
	conn := h.dial(t, "h2")
	defer conn.Close()
	fields := append([][2]string{
		{":method", r.verb()}, {":scheme", "https"}, {":authority", h.addr}, {":path", r.path},
	}, r.header...)
	head, out := block(fields...), []byte(preface)
	out = append(out, frame(0, frameSettings, 0, 0, nil)...)
	flags := byte(endHeaders)
	if r.body == "" && r.trailer == nil {
		flags |= endStream
	}
	out = append(out, frame(len(head), frameHeaders, flags, 1, head)...)
	if flags&endStream == 0 {
		flags := byte(0)
		if r.trailer == nil {
			flags = endStream
		}
		out = append(out, frame(len(r.body), frameData, flags, 1, []byte(r.body))...)
	}
	if r.trailer != nil {
		tail := block(r.trailer...)
		out = append(out, frame(len(tail), frameHeaders, endStream|endHeaders, 1, tail)...)
	}
	if _, err := conn.Write(out); err != nil {
		return answer{cut: err.Error()}
	}
	return readHTTP2(conn)
}

// readHTTP2 reads the answer on stream 1.
func readHTTP2(conn io.ReadWriter) answer {
	a := answer{header: http.Header{}}
	decoder := hpack.NewDecoder(4096, nil)
	for {
		kind, flags, stream, payload, err := readFrame(conn)
		if err != nil {
			return answer{cut: err.Error()}
		}
		switch {
		case kind == frameSettings && flags&ack == 0:
			_, err = conn.Write(frame(0, frameSettings, ack, 0, nil))
		case kind == frameGoAway && len(payload) >= 8 && binary.BigEndian.Uint32(payload[4:]) != 0:
			return answer{cut: fmt.Sprintf("GOAWAY %d", binary.BigEndian.Uint32(payload[4:]))}
		case stream != 1:
		case kind == frameReset:
			return answer{cut: "RST_STREAM"}
		case kind == frameHeaders:
			err = a.addHead(decoder, payload)
		case kind == frameData:
			a.body = append(a.body, payload...)
		}
		if err != nil {
			return answer{cut: err.Error()}
		}
		if stream == 1 && flags&endStream != 0 && (kind == frameHeaders || kind == frameData) {
			return a
		}
	}
}

func (a *answer) addHead(decoder *hpack.Decoder, payload []byte) error {
	fields, err := decoder.DecodeFull(payload)
	for _, f := range fields {
		if f.Name == ":status" {
			_, err = fmt.Sscan(f.Value, &a.status)
		} else {
			a.header.Add(f.Name, f.Value)
		}
	}
	return err
}

// readFrame reads a frame of at most 1 MiB. Neither padding nor CONTINUATION is
// used by the hub's library.
func readFrame(r io.Reader) (kind, flags byte, stream uint32, payload []byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if length > 1<<20 {
		return 0, 0, 0, nil, errors.New("a frame of more than 1 MiB")
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(r, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]) &^ (1 << 31), payload, err
}
