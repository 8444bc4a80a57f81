// Package wire is the byte layout of the tunnel: frames to protobuf bytes and
// back, without copying payload.
//
// It is the only place that knows the layout of proto/culvert/v1. Everything
// above it sees [Frame]. The generated code in gen/ is not used on the data
// path, since it copies payload in both directions; the tests of this package
// hold both against each other.
//
// # Ownership
//
// A [Frame] with a Payload owns one reference to it. [Batch.Append] takes that
// reference over; frames handed out by [Decode] give theirs to the receiver.
package wire

import (
	"time"

	"google.golang.org/grpc/mem"
)

// SessionID names a session on one link. The dialler of a link opens odd ids,
// the acceptor even ones; 0 is never a session.
type SessionID uint64

// Offset counts the bytes of one half of a session from its start.
type Offset uint64

// Kind tells the frames apart. The values are the field numbers of Frame.body.
type Kind uint8

// The frames of revision 1. See docs/protocol.md for their meaning.
const (
	KindHello    Kind = 1
	KindOpen     Kind = 2
	KindOpened   Kind = 3
	KindRefused  Kind = 4
	KindData     Kind = 5
	KindFin      Kind = 6
	KindStop     Kind = 7
	KindReset    Kind = 8
	KindCredit   Kind = 9
	KindReclaim  Kind = 10
	KindReturned Kind = 11
	KindPing     Kind = 12
	KindPong     Kind = 13
	KindGoAway   Kind = 14
	KindStatus   Kind = 15
)

// String returns the frame's name in the protocol text, for example "DATA".
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "HELLO"
	case KindOpen:
		return "OPEN"
	case KindOpened:
		return "OPENED"
	case KindRefused:
		return "REFUSED"
	case KindData:
		return "DATA"
	case KindFin:
		return "FIN"
	case KindStop:
		return "STOP"
	case KindReset:
		return "RESET"
	case KindCredit:
		return "CREDIT"
	case KindReclaim:
		return "RECLAIM"
	case KindReturned:
		return "RETURNED"
	case KindPing:
		return "PING"
	case KindPong:
		return "PONG"
	case KindGoAway:
		return "GOAWAY"
	case KindStatus:
		return "STATUS"
	default:
		return "UNKNOWN"
	}
}

// Frame is one frame. Which fields count depends on Kind; the others are zero.
// A Frame is a plain value without locks: one goroutine at a time.
type Frame struct {
	Kind    Kind
	Session SessionID
	// Offset belongs to Opened, Fin, Credit, Reclaim and Returned.
	Offset Offset
	// Payload belongs to Data and to Open (its first bytes); nil when empty.
	Payload mem.Buffer
	// Code, Hop and Message belong to Refused, Reset and GoAway (no Hop).
	Code    Code
	Hop     Hop
	Message string
	// Nonce belongs to Ping and Pong.
	Nonce uint64
	// LastSession and Deadline belong to GoAway.
	LastSession SessionID
	Deadline    time.Duration
	// Hello, Open and Status carry the fields of those rare frames.
	Hello  *Hello
	Open   *Open
	Status *Status
}

// Free releases the frame's payload. It may be called on any frame.
func (f *Frame) Free() {
	if f.Payload != nil {
		f.Payload.Free()
		f.Payload = nil
	}
}

// Revision is the newest protocol revision that this package speaks.
const Revision = 1

// OldestRevision is the oldest one that it still speaks.
const OldestRevision = 1

// Hello is the body of the first frame of each direction.
type Hello struct {
	Revision uint32
	Features []string
	// InitialWindow is what the receiver may send on a session it opens before
	// any credit, in bytes.
	InitialWindow uint64
	// MaxData is the largest Data payload that the sender accepts, in bytes.
	MaxData uint32
	// MaxSessions bounds the sessions that the receiver may have open; 0 names
	// no bound.
	MaxSessions uint32
	Version     string
	Labels      map[string]string
	Instance    string
	// Name is what operators call the sender. It is for people.
	Name string
}

// Open is the body of an Open frame beside session id and first bytes.
type Open struct {
	Target Target
	// Window is what the peer may send before any credit, in bytes.
	Window uint64
	// Timeout bounds the peer's attempt; 0 leaves it to the peer. The layout
	// carries whole milliseconds; a shorter one is rounded up.
	Timeout time.Duration
	// Trace is a W3C traceparent, or empty.
	Trace     string
	RequestID string
	// Cluster is where the target is, for a peer that is a hub.
	Cluster string
}

// Status is the body of a Status frame: how ready its sender is for sessions. It is
// not changed once it was given away.
type Status struct {
	// Kubernetes is the state of the sender's own API server; nil says nothing, and
	// counts as ready.
	Kubernetes *Readiness
}

// Readiness is the state of the targets of one kind. It is comparable.
type Readiness struct {
	Ready bool
	// Code and Message say why not: what a session would be refused with. Message is
	// shortened to what a peer accepts.
	Code    Code
	Message string
}

// For returns what the status says of target, which may be nil for nothing. It may
// be called on a nil Status.
func (s *Status) For(target Target) *Readiness {
	if s == nil || target.Kind != TargetKubernetesAPI && target.Kind != TargetKubernetesTLS {
		return nil
	}
	return s.Kubernetes
}

// TargetKind tells the kinds of Target apart. The values are the field numbers
// of Target.kind; 0 is a target of a kind that this revision does not know.
type TargetKind uint8

// The kinds of target.
const (
	TargetUnknown       TargetKind = 0
	TargetKubernetesAPI TargetKind = 1
	TargetService       TargetKind = 2
	TargetAddress       TargetKind = 3
	TargetKubernetesTLS TargetKind = 4
	TargetHub           TargetKind = 5
)

// Target is what a session leads to. It is comparable, so it can key a pool.
type Target struct {
	Kind TargetKind
	// Namespace, Name, Port and Scheme belong to TargetService. Port is a
	// number, a name or empty; Scheme is "https", "http" or empty for https.
	Namespace, Name, Port, Scheme string
	// Host and PortNumber belong to TargetAddress.
	Host       string
	PortNumber uint16
}
