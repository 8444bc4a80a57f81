package rawhttp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/net/http2/hpack"
)

// The frames of HTTP/2 that are used, and their flags (RFC 9113 section 6).
const (
	FrameData     = 0
	FrameHeaders  = 1
	FrameReset    = 3
	FrameSettings = 4
	FramePing     = 6
	FrameGoAway   = 7

	FlagEndStream  = 1
	FlagAck        = 1
	FlagEndHeaders = 4
)

// Preface opens a connection (RFC 9113 section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frame returns one frame. The length it claims can be another than it has.
func Frame(length int, kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// Block returns a header block whose names are as given.
func Block(fields ...Field) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // a buffer takes everything
	}
	return b.Bytes()
}

// HTTP2 sends r in HTTP/2 (RFC 9113).
func (s Server) HTTP2(ctx context.Context, r Request) Answer {
	conn, err := s.Dial(ctx, "h2")
	if err != nil {
		return Answer{Cut: err.Error()}
	}
	defer conn.Close()
	if _, err := conn.Write(r.frames(s.Addr)); err != nil {
		return Answer{Cut: err.Error()}
	}
	return ReadHTTP2(conn)
}

// frames are the request on stream 1 of a new connection.
func (r Request) frames(authority string) []byte {
	fields := append([]Field{
		{":method", r.method()}, {":scheme", "https"}, {":authority", authority}, {":path", r.Path},
	}, r.Header...)
	head, out := Block(fields...), []byte(Preface)
	out = append(out, Frame(0, FrameSettings, 0, 0, nil)...)
	flags := byte(FlagEndHeaders)
	if r.Body == "" && r.Trailer == nil {
		flags |= FlagEndStream
	}
	out = append(out, Frame(len(head), FrameHeaders, flags, 1, head)...)
	if flags&FlagEndStream == 0 {
		flags := byte(0)
		if r.Trailer == nil {
			flags = FlagEndStream
		}
		out = append(out, Frame(len(r.Body), FrameData, flags, 1, []byte(r.Body))...)
	}
	if r.Trailer != nil {
		tail := Block(r.Trailer...)
		out = append(out, Frame(len(tail), FrameHeaders, FlagEndStream|FlagEndHeaders, 1, tail)...)
	}
	return out
}

// ReadHTTP2 reads the answer on stream 1.
func ReadHTTP2(conn io.ReadWriter) Answer {
	a := Answer{Header: http.Header{}}
	decoder := hpack.NewDecoder(4096, nil)
	for {
		kind, flags, stream, payload, err := ReadFrame(conn)
		if err != nil {
			return Answer{Cut: err.Error()}
		}
		switch {
		case kind == FrameSettings && flags&FlagAck == 0:
			_, err = conn.Write(Frame(0, FrameSettings, FlagAck, 0, nil))
		case kind == FrameGoAway && len(payload) >= 8 && binary.BigEndian.Uint32(payload[4:]) != 0:
			return Answer{Cut: fmt.Sprintf("GOAWAY %d", binary.BigEndian.Uint32(payload[4:]))}
		case stream != 1:
		case kind == FrameReset:
			return Answer{Cut: "RST_STREAM"}
		case kind == FrameHeaders:
			err = a.addHead(decoder, payload)
		case kind == FrameData:
			a.Body = append(a.Body, payload...)
		}
		if err != nil {
			return Answer{Cut: err.Error()}
		}
		if stream == 1 && flags&FlagEndStream != 0 && (kind == FrameHeaders || kind == FrameData) {
			return a
		}
	}
}

func (a *Answer) addHead(decoder *hpack.Decoder, payload []byte) error {
	fields, err := decoder.DecodeFull(payload)
	for _, f := range fields {
		if f.Name == ":status" {
			_, err = fmt.Sscan(f.Value, &a.Status)
		} else {
			a.Header.Add(f.Name, f.Value)
		}
	}
	return err
}

// ReadFrame reads a frame of at most 1 MiB. Neither padding nor CONTINUATION is
// understood.
func ReadFrame(r io.Reader) (kind, flags byte, stream uint32, payload []byte, err error) {
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
