package wire

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec is the gRPC codec of the tunnel. It moves [Batch] and [Received]
// without copying payload and leaves every other message to protobuf. What it
// writes and reads is ordinary protobuf, so a peer may use generated code.
// The zero value is ready and safe for concurrent use.
type Codec struct{}

var _ encoding.CodecV2 = Codec{}

// Marshal implements [encoding.CodecV2]. A *Batch is emptied.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(*Batch); ok {
		return b.Take(), nil
	}
	out, err := encoding.GetCodecV2(proto.Name).Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	return out, nil
}

// Unmarshal implements [encoding.CodecV2].
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*Received); ok {
		return r.Decode(data)
	}
	if err := encoding.GetCodecV2(proto.Name).Unmarshal(data, v); err != nil {
		return fmt.Errorf("unmarshal %T: %w", v, err)
	}
	return nil
}

// Name implements [encoding.CodecV2].
func (Codec) Name() string { return proto.Name }
