package wire_test

import (
	"bytes"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/buffer"
	"github.com/culvertdev/culvert/internal/wire"
)

func buf(s string) mem.Buffer { return buffer.Copy([]byte(s)) }

// samples has each frame with every field set, and the message that generated
// code makes of it.
func samples() map[string]struct {
	frame wire.Frame
	want  *culvertv1.Frame
} {
	type sample = struct {
		frame wire.Frame
		want  *culvertv1.Frame
	}
	return map[string]sample{
		"hello": {
			wire.Frame{Kind: wire.KindHello, Hello: &wire.Hello{
				Revision: 1, Features: []string{"a", ""}, InitialWindow: 1 << 18, MaxData: 1 << 17, MaxSessions: 7,
				Version: "v1", Labels: map[string]string{"zone": "z", "": "empty"}, Instance: "i", Name: "n",
			}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Hello{Hello: &culvertv1.Hello{
				Revision: 1, Features: []string{"a", ""}, InitialWindow: 1 << 18, MaxData: 1 << 17, MaxSessions: 7,
				Version: "v1", Labels: map[string]string{"zone": "z", "": "empty"}, Instance: "i", Name: "n",
			}}},
		},
		"open kubernetes": {
			wire.Frame{Kind: wire.KindOpen, Session: 3, Payload: buf("GET /"), Open: &wire.Open{
				Target: wire.KubernetesAPI(), Window: 9, Timeout: 1500 * time.Millisecond, Trace: "t", RequestID: "r",
			}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Open{Open: &culvertv1.Open{
				Session: 3, Payload: []byte("GET /"), Window: 9, TimeoutMs: 1500, Trace: "t", RequestId: "r",
				Target: &culvertv1.Target{Kind: &culvertv1.Target_KubernetesApi{KubernetesApi: &culvertv1.KubernetesApi{}}},
			}}},
		},
		"open service": {
			wire.Frame{Kind: wire.KindOpen, Session: 5, Open: &wire.Open{Target: wire.Service("ns", "web", "https", "http")}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Open{Open: &culvertv1.Open{
				Session: 5,
				Target: &culvertv1.Target{Kind: &culvertv1.Target_Service{Service: &culvertv1.Service{
					Namespace: "ns", Name: "web", Port: "https", Scheme: "http",
				}}},
			}}},
		},
		"open address": {
			wire.Frame{Kind: wire.KindOpen, Session: 7, Open: &wire.Open{Target: wire.Address("db.prod.svc", 5432)}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Open{Open: &culvertv1.Open{
				Session: 7,
				Target:  &culvertv1.Target{Kind: &culvertv1.Target_Address{Address: &culvertv1.Address{Host: "db.prod.svc", Port: 5432}}},
			}}},
		},
		"open of a client's": {
			wire.Frame{Kind: wire.KindOpen, Session: 9, Open: &wire.Open{Target: wire.Address("db.prod.svc", 5432), Cluster: "edge-1"}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Open{Open: &culvertv1.Open{
				Session: 9, Cluster: "edge-1",
				Target: &culvertv1.Target{Kind: &culvertv1.Target_Address{Address: &culvertv1.Address{Host: "db.prod.svc", Port: 5432}}},
			}}},
		},
		"open hub": {
			wire.Frame{Kind: wire.KindOpen, Session: 11, Open: &wire.Open{Target: wire.Hub()}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Open{Open: &culvertv1.Open{
				Session: 11, Target: &culvertv1.Target{Kind: &culvertv1.Target_Hub{Hub: &culvertv1.Hub{}}},
			}}},
		},
		"opened": {
			wire.Frame{Kind: wire.KindOpened, Session: 3, Offset: 99},
			&culvertv1.Frame{Body: &culvertv1.Frame_Opened{Opened: &culvertv1.Opened{Session: 3, Offset: 99}}},
		},
		"refused": {
			wire.Frame{Kind: wire.KindRefused, Session: 3, Code: wire.CodeUnreachable, Hop: wire.HopAgent, Message: "m"},
			&culvertv1.Frame{Body: &culvertv1.Frame_Refused{Refused: &culvertv1.Refused{
				Session: 3, Code: culvertv1.Code_CODE_UNREACHABLE, Hop: culvertv1.Hop_HOP_AGENT, Message: "m",
			}}},
		},
		"data": {
			wire.Frame{Kind: wire.KindData, Session: math.MaxUint64, Payload: buf("payload")},
			&culvertv1.Frame{Body: &culvertv1.Frame_Data{Data: &culvertv1.Data{Session: math.MaxUint64, Payload: []byte("payload")}}},
		},
		"fin": {
			wire.Frame{Kind: wire.KindFin, Session: 3, Offset: math.MaxUint64},
			&culvertv1.Frame{Body: &culvertv1.Frame_Fin{Fin: &culvertv1.Fin{Session: 3, Offset: math.MaxUint64}}},
		},
		"stop": {
			wire.Frame{Kind: wire.KindStop, Session: 3},
			&culvertv1.Frame{Body: &culvertv1.Frame_Stop{Stop: &culvertv1.Stop{Session: 3}}},
		},
		"reset": {
			wire.Frame{Kind: wire.KindReset, Session: 3, Code: wire.CodeConnectionReset, Hop: wire.HopTarget, Message: "m"},
			&culvertv1.Frame{Body: &culvertv1.Frame_Reset_{Reset_: &culvertv1.Reset{
				Session: 3, Code: culvertv1.Code_CODE_CONNECTION_RESET, Hop: culvertv1.Hop_HOP_TARGET, Message: "m",
			}}},
		},
		"credit": {
			wire.Frame{Kind: wire.KindCredit, Session: 3, Offset: 5},
			&culvertv1.Frame{Body: &culvertv1.Frame_Credit{Credit: &culvertv1.Credit{Session: 3, Offset: 5}}},
		},
		"reclaim": {
			wire.Frame{Kind: wire.KindReclaim, Session: 3, Offset: 5},
			&culvertv1.Frame{Body: &culvertv1.Frame_Reclaim{Reclaim: &culvertv1.Reclaim{Session: 3, Offset: 5}}},
		},
		"returned": {
			wire.Frame{Kind: wire.KindReturned, Session: 3, Offset: 5},
			&culvertv1.Frame{Body: &culvertv1.Frame_Returned{Returned: &culvertv1.Returned{Session: 3, Offset: 5}}},
		},
		"ping": {
			wire.Frame{Kind: wire.KindPing, Nonce: 5},
			&culvertv1.Frame{Body: &culvertv1.Frame_Ping{Ping: &culvertv1.Ping{Sent: 5}}},
		},
		"pong": {
			wire.Frame{Kind: wire.KindPong, Nonce: 5},
			&culvertv1.Frame{Body: &culvertv1.Frame_Pong{Pong: &culvertv1.Pong{Sent: 5}}},
		},
		"goaway": {
			wire.Frame{Kind: wire.KindGoAway, Code: wire.CodeDraining, Message: "m", LastSession: 9, Deadline: 2 * time.Second},
			&culvertv1.Frame{Body: &culvertv1.Frame_GoAway{GoAway: &culvertv1.GoAway{
				Code: culvertv1.Code_CODE_DRAINING, Message: "m", LastSession: 9, DeadlineMs: 2000,
			}}},
		},
		"status": {
			wire.Frame{Kind: wire.KindStatus, Status: &wire.Status{Kubernetes: &wire.Readiness{Code: wire.CodeUnavailable, Message: "m"}}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Status{Status: &culvertv1.Status{
				Kubernetes: &culvertv1.Readiness{Code: culvertv1.Code_CODE_UNAVAILABLE, Message: "m"},
			}}},
		},
		"status ready": {
			wire.Frame{Kind: wire.KindStatus, Status: &wire.Status{Kubernetes: &wire.Readiness{Ready: true}}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Status{Status: &culvertv1.Status{Kubernetes: &culvertv1.Readiness{Ready: true}}}},
		},
		"status of nothing": {
			wire.Frame{Kind: wire.KindStatus, Status: &wire.Status{}},
			&culvertv1.Frame{Body: &culvertv1.Frame_Status{Status: &culvertv1.Status{}}},
		},
	}
}

// encode marshals frames as one message and returns its bytes.
func encode(t testing.TB, frames ...wire.Frame) []byte {
	t.Helper()
	var b wire.Batch
	for i := range frames {
		b.Append(&frames[i])
	}
	if b.Len() == 0 {
		t.Fatal("a batch with frames has length 0")
	}
	want := b.Len()
	out, err := wire.Codec{}.Marshal(&b)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Free()
	if out.Len() != want {
		t.Errorf("Len said %d, the message has %d bytes", want, out.Len())
	}
	return out.Materialize()
}

// pieces cuts p into buffers of n bytes.
func pieces(p []byte, n int) mem.BufferSlice {
	var out mem.BufferSlice
	for len(p) > 0 {
		k := min(n, len(p))
		out = append(out, mem.SliceBuffer(p[:k]))
		p = p[k:]
	}
	return out
}

func TestEncodeIsWhatGeneratedCodeReads(t *testing.T) {
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			var got culvertv1.ConnectRequest
			if err := proto.Unmarshal(encode(t, s.frame), &got); err != nil {
				t.Fatal(err)
			}
			if len(got.GetFrames()) != 1 || !proto.Equal(got.GetFrames()[0], s.want) {
				t.Fatalf("generated code reads %v, want %v", got.GetFrames(), s.want)
			}
		})
	}
}

func TestDecodeReadsWhatGeneratedCodeWrites(t *testing.T) {
	for name, s := range samples() {
		raw, err := proto.Marshal(&culvertv1.ConnectResponse{Frames: []*culvertv1.Frame{s.want}})
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 2, 3, 7, len(raw)} {
			t.Run(name, func(t *testing.T) {
				var r wire.Received
				if err := (wire.Codec{}).Unmarshal(pieces(raw, size), &r); err != nil {
					t.Fatal(err)
				}
				// Encoding again must give the same meaning, however many frames
				// the pieces made.
				var got culvertv1.ConnectRequest
				if err := proto.Unmarshal(encode(t, r.Frames...), &got); err != nil {
					t.Fatal(err)
				}
				r.Reset()
				if joined := join(got.GetFrames()); !proto.Equal(joined, s.want) {
					t.Fatalf("in pieces of %d bytes: got %v, want %v", size, joined, s.want)
				}
			})
		}
	}
}

// join puts the payload of Data frames that follow the first frame back into it.
func join(frames []*culvertv1.Frame) *culvertv1.Frame {
	first := frames[0]
	for _, f := range frames[1:] {
		switch b := first.GetBody().(type) {
		case *culvertv1.Frame_Open:
			b.Open.Payload = append(b.Open.Payload, f.GetData().GetPayload()...)
		case *culvertv1.Frame_Data:
			b.Data.Payload = append(b.Data.Payload, f.GetData().GetPayload()...)
		}
	}
	return first
}

func TestLargePayloadIsNotCopied(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 64<<10)
	data := buffer.Copy(payload)
	var b wire.Batch
	b.Append(&wire.Frame{Kind: wire.KindPing, Nonce: 1})
	b.Append(&wire.Frame{Kind: wire.KindData, Session: 1, Payload: data})
	b.Append(&wire.Frame{Kind: wire.KindPing, Nonce: 2})
	out := b.Take()
	if len(out) != 3 || &out[1].ReadOnlyData()[0] != &data.ReadOnlyData()[0] {
		t.Fatalf("the message has %d pieces; want head, the payload itself, head", len(out))
	}
	var r wire.Received
	if err := r.Decode(out); err != nil {
		t.Fatal(err)
	}
	if len(r.Frames) != 3 || &r.Frames[1].Payload.ReadOnlyData()[0] != &data.ReadOnlyData()[0] {
		t.Fatalf("decoded %d frames; the payload must be the same bytes", len(r.Frames))
	}
	out.Free()
	if got := r.Frames[1].Payload.ReadOnlyData(); !bytes.Equal(got, payload) {
		t.Fatal("the frame lost its payload when the message was freed")
	}
	r.Reset()
}

func TestUnknownIsSkipped(t *testing.T) {
	raw := encode(t, wire.Frame{Kind: wire.KindPing, Nonce: 1})
	for name, extra := range map[string][]byte{
		"field of the batch":     {0x12, 2, 'h', 'i'},
		"varint of the batch":    {0x18, 0x80, 0x01},
		"fixed64 of the batch":   {0x21, 1, 2, 3, 4, 5, 6, 7, 8},
		"fixed32 of the batch":   {0x2d, 1, 2, 3, 4},
		"frame of unknown kind":  {0x0a, 4, 0xfa, 0x01, 1, 'x'},
		"empty frame":            {0x0a, 0},
		"scalar in a frame":      {0x0a, 3, 0xf8, 0x01, 7},
		"unknown field in pong":  {0x0a, 5, 0x6a, 3, 0xa2, 0x06, 0},
		"unknown target in open": {0x0a, 10, 0x12, 8, 0x08, 3, 0x12, 4, 0xa2, 0x06, 1, 'x'},
	} {
		t.Run(name, func(t *testing.T) {
			var r wire.Received
			if err := r.Decode(mem.BufferSlice{mem.SliceBuffer(extra), mem.SliceBuffer(raw)}); err != nil {
				t.Fatal(err)
			}
			last := r.Frames[len(r.Frames)-1]
			if last.Kind != wire.KindPing || last.Nonce != 1 {
				t.Fatalf("the frame behind it was read as %v", last)
			}
		})
	}
}

func TestMalformedIsRefused(t *testing.T) {
	for name, raw := range map[string][]byte{
		"truncated tag":              {0x8a},
		"field number 0":             {0x00, 1},
		"group":                      {0x0b},
		"length beyond the message":  {0x0a, 5, 1},
		"huge length":                {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"length of 2^64-1":           {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"varint of 11 bytes":         {0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"payload beyond the frame":   {0x0a, 6, 0x2a, 4, 0x08, 1, 0x12, 9, 1, 2, 3},
		"two bodies":                 {0x0a, 4, 0x62, 0, 0x6a, 0},
		"message beyond its bound":   append([]byte{0x0a, 0x88, 0x10, 0x42, 0x84, 0x10, 0x22, 0x81, 0x10}, make([]byte, 2049)...),
		"reason beyond its bound":    append([]byte{0x0a, 0x8a, 0x10, 0x7a, 0x87, 0x10, 0x0a, 0x84, 0x10, 0x1a, 0x81, 0x10}, make([]byte, 2049)...),
		"status beyond its frame":    {0x0a, 4, 0x7a, 2, 0x0a, 9},
		"too many frames":            bytes.Repeat([]byte{0x0a, 2, 0x62, 0}, 16385),
		"truncated fixed64":          {0x21, 1, 2},
		"body longer than its frame": {0x0a, 2, 0x62, 5, 0x08, 1, 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var r wire.Received
			if err := r.Decode(pieces(raw, 3)); err == nil {
				t.Fatalf("decoded %v", r.Frames)
			}
			r.Reset()
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		f.Add(encode(f, s.frame), uint8(3))
	}
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, uint8(1))
	f.Fuzz(func(t *testing.T, raw []byte, size uint8) {
		var r wire.Received
		err := r.Decode(pieces(raw, int(size)+1))
		total := 0
		for i := range r.Frames {
			if p := r.Frames[i].Payload; p != nil {
				total += p.Len()
			}
		}
		if total > len(raw) {
			t.Fatalf("%d payload bytes from a message of %d", total, len(raw))
		}
		if err != nil || len(r.Frames) == 0 {
			r.Reset()
			return
		}
		// What was understood survives a round trip through generated code.
		again := encode(t, r.Frames...)
		var got culvertv1.ConnectRequest
		if err := proto.Unmarshal(again, &got); err != nil {
			t.Fatalf("generated code does not read what was decoded and encoded again: %v", err)
		}
	})
}

func BenchmarkDataFrame(b *testing.B) {
	payload := make([]byte, 16<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	var batch wire.Batch
	var r wire.Received
	for b.Loop() {
		batch.Append(&wire.Frame{Kind: wire.KindData, Session: 1, Payload: buffer.Copy(payload)})
		out := batch.Take()
		if err := r.Decode(out); err != nil {
			b.Fatal(err)
		}
		out.Free()
		r.Reset()
	}
}
