package wire

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/culvertdev/culvert/internal/buffer"
)

const (
	// headSize is the size of the buffers that hold everything but large
	// payloads. It takes a batch of small frames in one piece.
	headSize = 16 << 10
	// inlineMax is up to which size a payload is copied into the head: below,
	// the copy is cheaper than one more buffer on the way to the socket.
	inlineMax = 2 << 10
	// dataHead bounds the bytes of a Data frame before its payload.
	dataHead = 4 * (1 + 10)
)

// A Batch makes room for firstArena buffers at once, and when that is used up for
// twice as many, up to fullArena: a link that is quiet holds little.
const (
	firstArena = 8
	fullArena  = 256
)

// Batch collects frames into one gRPC message. The zero value is an empty
// batch. One goroutine at a time.
type Batch struct {
	// slices lies at the start of the room that is left in an arena. gRPC uses
	// what Take returned for as long as it likes, so the room of a message is
	// never used again; the collector frees an arena when all its messages are
	// sent.
	slices mem.BufferSlice
	arena  int        // how large the last one was
	root   mem.Buffer // the head being filled
	head   []byte     // its bytes
	cut    int        // head[cut:pos] is not in slices yet
	pos    int
	size   int
	frames int
	body   []byte // scratch for bodies of control frames
}

// Len returns the encoded size so far, in bytes.
func (b *Batch) Len() int { return b.size }

// Frames returns how many frames the batch holds.
func (b *Batch) Frames() int { return b.frames }

// Append encodes f and takes over its payload.
func (b *Batch) Append(f *Frame) {
	b.frames++
	if f.Kind == KindData {
		b.appendData(f)
		return
	}
	body := appendBody(b.body[:0], f)
	b.body = body[:0]
	tail := f.Payload // of Open: encoded last, so that it needs no copy
	f.Payload = nil
	var tailHead [11]byte
	th := tailHead[:0]
	tailLen := 0
	if tail != nil {
		tailLen = tail.Len()
		th = protowire.AppendTag(th, 6, protowire.BytesType)
		th = protowire.AppendVarint(th, uint64(tailLen))
	}
	bodyLen := len(body) + len(th) + tailLen
	inner := protowire.SizeTag(protowire.Number(f.Kind)) + protowire.SizeBytes(bodyLen)
	dst := b.reserve(len(body) + len(th) + dataHead)
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(inner))
	dst = protowire.AppendTag(dst, protowire.Number(f.Kind), protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(bodyLen))
	dst = append(dst, body...)
	dst = append(dst, th...)
	b.advance(len(dst))
	if tail != nil {
		b.appendPayload(tail)
	}
}

func (b *Batch) appendData(f *Frame) {
	n := 0
	if f.Payload != nil {
		n = f.Payload.Len()
	}
	bodyLen := 1 + protowire.SizeVarint(uint64(f.Session)) + 1 + protowire.SizeBytes(n)
	inner := 1 + protowire.SizeBytes(bodyLen)
	dst := b.reserve(dataHead)
	dst = append(dst, 1<<3|2)
	dst = protowire.AppendVarint(dst, uint64(inner))
	dst = append(dst, byte(KindData)<<3|2)
	dst = protowire.AppendVarint(dst, uint64(bodyLen))
	dst = append(dst, 1<<3)
	dst = protowire.AppendVarint(dst, uint64(f.Session))
	dst = append(dst, 2<<3|2)
	dst = protowire.AppendVarint(dst, uint64(n))
	b.advance(len(dst))
	if f.Payload != nil {
		b.appendPayload(f.Payload)
		f.Payload = nil
	}
}

func (b *Batch) appendPayload(p mem.Buffer) {
	n := p.Len()
	if n <= inlineMax {
		dst := b.reserve(n)
		dst = append(dst, p.ReadOnlyData()...)
		b.advance(len(dst))
		p.Free()
		return
	}
	b.flushHead()
	b.push(p)
	b.size += n
}

// push appends a buffer.
func (b *Batch) push(p mem.Buffer) {
	if len(b.slices) == cap(b.slices) {
		b.arena = min(max(firstArena, 2*b.arena), fullArena)
		next := make(mem.BufferSlice, len(b.slices), max(b.arena, 2*len(b.slices)))
		copy(next, b.slices)
		b.slices = next
	}
	b.slices = append(b.slices, p)
}

// reserve returns an empty slice at the end of the head with room for n bytes.
func (b *Batch) reserve(n int) []byte {
	if b.root == nil || b.pos+n > len(b.head) {
		b.sealHead()
		buf := buffer.Pool().Get(max(headSize, n))
		b.head = *buf
		b.root = mem.NewBuffer(buf, buffer.Pool())
	}
	return b.head[b.pos:b.pos:len(b.head)]
}

func (b *Batch) advance(n int) {
	b.pos += n
	b.size += n
}

// flushHead moves what was written to the head since the last cut to slices.
func (b *Batch) flushHead() {
	if b.pos > b.cut {
		b.push(b.root.Slice(b.cut, b.pos))
		b.cut = b.pos
	}
}

func (b *Batch) sealHead() {
	b.flushHead()
	if b.root != nil {
		b.root.Free()
	}
	b.root, b.head, b.cut, b.pos = nil, nil, 0, 0
}

// Take returns the encoded batch, which the caller owns, and empties b.
func (b *Batch) Take() mem.BufferSlice {
	b.sealHead()
	n := len(b.slices)
	out := b.slices[:n:n]
	b.slices, b.size, b.frames = b.slices[n:], 0, 0
	return out
}

// Free drops the batch's content and empties b.
func (b *Batch) Free() {
	s := b.Take()
	s.Free()
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

// clip shortens what people read to the bound of the receiver and makes it valid
// UTF-8, so that no message, however long its cause, can break the link.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	cut := maxText - len(ellipsis)
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + ellipsis
}

const ellipsis = "…"

func appendString(dst []byte, field protowire.Number, s string) []byte {
	if s = clip(s); s == "" {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	return protowire.AppendString(dst, s)
}

// millis rounds up, so that a short timeout does not become "none".
func millis(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

// appendBody appends the body of any frame but Data, without Open's payload.
func appendBody(dst []byte, f *Frame) []byte {
	switch f.Kind {
	case KindHello:
		return appendHello(dst, f.Hello)
	case KindOpen:
		o := f.Open
		dst = appendUint(dst, 1, uint64(f.Session))
		var scratch [128]byte
		dst = protowire.AppendTag(dst, 2, protowire.BytesType)
		dst = protowire.AppendBytes(dst, appendTarget(scratch[:0], &o.Target))
		dst = appendUint(dst, 3, o.Window)
		dst = appendUint(dst, 4, millis(o.Timeout))
		dst = appendString(dst, 5, o.Trace)
		dst = appendString(dst, 7, o.RequestID)
		return appendString(dst, 8, o.Cluster)
	case KindRefused, KindReset:
		dst = appendUint(dst, 1, uint64(f.Session))
		dst = appendUint(dst, 2, uint64(f.Code))
		dst = appendUint(dst, 3, uint64(f.Hop))
		return appendString(dst, 4, f.Message)
	case KindGoAway:
		dst = appendUint(dst, 1, uint64(f.Code))
		dst = appendString(dst, 2, f.Message)
		dst = appendUint(dst, 3, uint64(f.LastSession))
		return appendUint(dst, 4, millis(f.Deadline))
	case KindPing, KindPong:
		return appendUint(dst, 1, f.Nonce)
	case KindStatus:
		return appendStatus(dst, f.Status)
	default: // Opened, Fin, Stop, Credit, Reclaim, Returned
		dst = appendUint(dst, 1, uint64(f.Session))
		return appendUint(dst, 2, uint64(f.Offset))
	}
}

func appendHello(dst []byte, h *Hello) []byte {
	dst = appendUint(dst, 1, uint64(h.Revision))
	for _, s := range h.Features[:min(len(h.Features), maxEntries)] {
		dst = protowire.AppendTag(dst, 2, protowire.BytesType)
		dst = protowire.AppendString(dst, clip(s))
	}
	dst = appendUint(dst, 3, h.InitialWindow)
	dst = appendUint(dst, 4, uint64(h.MaxData))
	dst = appendUint(dst, 5, uint64(h.MaxSessions))
	dst = appendString(dst, 6, h.Version)
	labels := slices.Sorted(maps.Keys(h.Labels))
	for _, k := range labels[:min(len(labels), maxEntries)] {
		entry := appendString(nil, 1, k)
		entry = appendString(entry, 2, h.Labels[k])
		dst = protowire.AppendTag(dst, 7, protowire.BytesType)
		dst = protowire.AppendBytes(dst, entry)
	}
	dst = appendString(dst, 8, h.Instance)
	return appendString(dst, 9, h.Name)
}

func appendStatus(dst []byte, s *Status) []byte {
	if s == nil || s.Kubernetes == nil {
		return dst
	}
	var body []byte
	if s.Kubernetes.Ready {
		body = appendUint(body, 1, 1)
	}
	body = appendUint(body, 2, uint64(s.Kubernetes.Code))
	body = appendString(body, 3, s.Kubernetes.Message)
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	return protowire.AppendBytes(dst, body)
}

func appendTarget(dst []byte, t *Target) []byte {
	var body []byte
	switch t.Kind {
	case TargetUnknown:
		return dst
	case TargetKubernetesAPI, TargetKubernetesTLS, TargetHub:
	case TargetService:
		body = appendString(body, 1, t.Namespace)
		body = appendString(body, 2, t.Name)
		body = appendString(body, 3, t.Port)
		body = appendString(body, 4, t.Scheme)
	case TargetAddress:
		body = appendString(body, 1, t.Host)
		body = appendUint(body, 2, uint64(t.PortNumber))
	}
	dst = protowire.AppendTag(dst, protowire.Number(t.Kind), protowire.BytesType)
	return protowire.AppendBytes(dst, body)
}
