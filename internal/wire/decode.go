package wire

import (
	"math"
	"time"

	"google.golang.org/grpc/mem"
)

// Bounds on what a frame may carry beside payload. They keep a peer from making
// the receiver hold more than a frame is worth; a frame beyond them is
// malformed.
const (
	maxText     = 1024
	maxName     = 253 // RFC 1035, section 2.3.4
	maxEntries  = 64  // features, labels
	maxFrames   = 16384
	keepFrames  = 1024 // of a message, for the next one
	maxDuration = uint64(math.MaxInt64 / int64(time.Millisecond))
)

// Received collects the frames of one message. gRPC fills it through [Codec];
// the receiver takes the frames' payloads over and then calls Reset. The zero
// value is ready; it is reused from message to message.
type Received struct {
	Frames []Frame
	parts  []mem.Buffer
}

// Reset empties r and releases payloads that nobody took over.
func (r *Received) Reset() {
	for i := range r.Frames {
		r.Frames[i].Free()
		r.Frames[i] = Frame{}
	}
	r.Frames = r.Frames[:0]
	if cap(r.Frames) > keepFrames {
		r.Frames = nil
	}
}

// Decode appends the frames of one message to r. Payloads refer to the pieces
// of bufs and hold their own references, so the caller may free bufs. A Data
// payload that lies in several pieces becomes several Data frames, which means
// the same. Frames of unknown kinds are left out. On error r holds the frames
// before the malformed one.
func (r *Received) Decode(bufs mem.BufferSlice) error {
	c := newCursor(bufs)
	for c.left > 0 {
		num, typ, val, err := c.field(0)
		if err != nil {
			return err
		}
		if typ != typeBytes {
			continue
		}
		if num != 1 {
			c.skip(int(val))
			continue
		}
		if len(r.Frames) >= maxFrames {
			return malformed("more than %d frames in a message", maxFrames)
		}
		if err := r.frame(&c, c.left-int(val)); err != nil {
			return err
		}
	}
	return nil
}

// frame reads one Frame, which ends where end bytes are left.
func (r *Received) frame(c *cursor, end int) error {
	seen := false
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		if typ != typeBytes {
			continue
		}
		if num < uint64(KindHello) || num > uint64(KindStatus) {
			c.skip(int(val))
			continue
		}
		if seen {
			return malformed("frame with two bodies")
		}
		seen = true
		bodyEnd := c.left - int(val)
		f := Frame{Kind: Kind(num)}
		switch f.Kind {
		case KindHello:
			err = f.readHello(c, bodyEnd)
		case KindOpen, KindData:
			err = r.withPayload(c, bodyEnd, &f)
			if err != nil {
				return err
			}
			continue
		case KindGoAway:
			err = f.readGoAway(c, bodyEnd)
		case KindStatus:
			err = f.readStatus(c, bodyEnd)
		default:
			err = f.readControl(c, bodyEnd)
		}
		if err != nil {
			return err
		}
		r.Frames = append(r.Frames, f)
	}
	return nil
}

// withPayload reads Open and Data and appends one frame for each piece.
func (r *Received) withPayload(c *cursor, end int, f *Frame) (err error) {
	r.parts = r.parts[:0]
	defer func() {
		if err != nil {
			r.freeParts()
		}
	}()
	payload := uint64(2)
	if f.Kind == KindOpen {
		payload = 6
		f.Open = &Open{}
	}
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		switch {
		case num == 1 && typ == typeVarint:
			f.Session = SessionID(val)
		case num == payload && typ == typeBytes:
			r.freeParts() // a repeated scalar: the last one counts
			r.parts = c.take(r.parts, int(val))
		case f.Kind == KindOpen:
			if err := f.Open.readField(c, num, typ, val); err != nil {
				return err
			}
		case typ == typeBytes:
			c.skip(int(val))
		}
	}
	if len(r.parts) > 0 {
		f.Payload = r.parts[0]
	}
	r.Frames = append(r.Frames, *f)
	for i := 1; i < len(r.parts); i++ {
		r.Frames = append(r.Frames, Frame{Kind: KindData, Session: f.Session, Payload: r.parts[i]})
	}
	clear(r.parts)
	r.parts = r.parts[:0]
	return nil
}

func (r *Received) freeParts() {
	for _, p := range r.parts {
		p.Free()
	}
	clear(r.parts)
	r.parts = r.parts[:0]
}

func (o *Open) readField(c *cursor, num uint64, typ int, val uint64) (err error) {
	switch {
	case num == 2 && typ == typeBytes:
		o.Target, err = readTarget(c, c.left-int(val))
	case num == 3 && typ == typeVarint:
		o.Window = val
	case num == 4 && typ == typeVarint:
		o.Timeout = duration(val)
	case num == 5 && typ == typeBytes:
		o.Trace, err = c.text(val, maxText)
	case num == 7 && typ == typeBytes:
		o.RequestID, err = c.text(val, maxText)
	case num == 8 && typ == typeBytes:
		o.Cluster, err = c.text(val, maxName)
	case typ == typeBytes:
		c.skip(int(val))
	}
	return err
}

func duration(ms uint64) time.Duration {
	return time.Duration(min(ms, maxDuration)) * time.Millisecond
}

// readControl reads the frames that consist of a session or nonce, an offset or
// code, a hop and a message.
func (f *Frame) readControl(c *cursor, end int) error {
	failure := f.Kind == KindRefused || f.Kind == KindReset
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		switch {
		case num == 1 && typ == typeVarint && (f.Kind == KindPing || f.Kind == KindPong):
			f.Nonce = val
		case num == 1 && typ == typeVarint:
			f.Session = SessionID(val)
		case num == 2 && typ == typeVarint && failure:
			f.Code = Code(min(val, math.MaxUint32)).Known()
		case num == 2 && typ == typeVarint:
			f.Offset = Offset(val)
		case num == 3 && typ == typeVarint && failure:
			f.Hop = Hop(min(val, math.MaxUint32))
		case num == 4 && typ == typeBytes && failure:
			if f.Message, err = c.text(val, maxText); err != nil {
				return err
			}
		case typ == typeBytes:
			c.skip(int(val))
		}
	}
	if failure {
		f.Code = f.Code.Known()
	}
	return nil
}

func (f *Frame) readGoAway(c *cursor, end int) error {
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		switch {
		case num == 1 && typ == typeVarint:
			f.Code = Code(min(val, math.MaxUint32))
		case num == 2 && typ == typeBytes:
			if f.Message, err = c.text(val, maxText); err != nil {
				return err
			}
		case num == 3 && typ == typeVarint:
			f.LastSession = SessionID(val)
		case num == 4 && typ == typeVarint:
			f.Deadline = duration(val)
		case typ == typeBytes:
			c.skip(int(val))
		}
	}
	f.Code = f.Code.Known()
	return nil
}

func (f *Frame) readStatus(c *cursor, end int) error {
	f.Status = &Status{}
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		switch {
		case num == 1 && typ == typeBytes:
			if f.Status.Kubernetes, err = readReadiness(c, c.left-int(val)); err != nil {
				return err
			}
		case typ == typeBytes:
			c.skip(int(val))
		}
	}
	return nil
}

func readReadiness(c *cursor, end int) (*Readiness, error) {
	r := &Readiness{}
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return nil, err
		}
		switch {
		case num == 1 && typ == typeVarint:
			r.Ready = val != 0
		case num == 2 && typ == typeVarint:
			r.Code = Code(min(val, math.MaxUint32))
		case num == 3 && typ == typeBytes:
			if r.Message, err = c.text(val, maxText); err != nil {
				return nil, err
			}
		case typ == typeBytes:
			c.skip(int(val))
		}
	}
	if !r.Ready || r.Code != CodeUnspecified {
		r.Code = r.Code.Known()
	}
	return r, nil
}

func (f *Frame) readHello(c *cursor, end int) error {
	h := &Hello{}
	f.Hello = h
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		var s string
		switch {
		case num == 1 && typ == typeVarint:
			h.Revision = uint32(min(val, math.MaxUint32))
		case num == 2 && typ == typeBytes:
			if s, err = c.text(val, maxText); err == nil && len(h.Features) >= maxEntries {
				err = malformed("more than %d features", maxEntries)
			}
			h.Features = append(h.Features, s)
		case num == 3 && typ == typeVarint:
			h.InitialWindow = val
		case num == 4 && typ == typeVarint:
			h.MaxData = uint32(min(val, math.MaxUint32))
		case num == 5 && typ == typeVarint:
			h.MaxSessions = uint32(min(val, math.MaxUint32))
		case num == 6 && typ == typeBytes:
			h.Version, err = c.text(val, maxText)
		case num == 7 && typ == typeBytes:
			err = h.readLabel(c, c.left-int(val))
		case num == 8 && typ == typeBytes:
			h.Instance, err = c.text(val, maxText)
		case num == 9 && typ == typeBytes:
			h.Name, err = c.text(val, maxText)
		case typ == typeBytes:
			c.skip(int(val))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *Hello) readLabel(c *cursor, end int) error {
	var kv [3]string
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return err
		}
		if typ != typeBytes {
			continue
		}
		if num > 2 {
			c.skip(int(val))
			continue
		}
		if kv[num], err = c.text(val, maxText); err != nil {
			return err
		}
	}
	if h.Labels == nil {
		h.Labels = make(map[string]string)
	}
	h.Labels[kv[1]] = kv[2]
	if len(h.Labels) > maxEntries {
		return malformed("more than %d labels", maxEntries)
	}
	return nil
}

func readTarget(c *cursor, end int) (Target, error) {
	var t Target
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return Target{}, err
		}
		if typ != typeBytes {
			continue
		}
		bodyEnd := c.left - int(val)
		switch TargetKind(min(num, math.MaxUint8)) {
		case TargetKubernetesAPI:
			c.skip(int(val))
			t = KubernetesAPI()
		case TargetKubernetesTLS:
			c.skip(int(val))
			t = KubernetesTLS()
		case TargetHub:
			c.skip(int(val))
			t = Hub()
		case TargetService:
			t, err = readService(c, bodyEnd)
		case TargetAddress:
			t, err = readAddress(c, bodyEnd)
		default:
			c.skip(int(val))
		}
		if err != nil {
			return Target{}, err
		}
	}
	return t, nil
}

func readService(c *cursor, end int) (Target, error) {
	t := Target{Kind: TargetService}
	into := [...]*string{1: &t.Namespace, 2: &t.Name, 3: &t.Port, 4: &t.Scheme}
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return Target{}, err
		}
		if typ != typeBytes {
			continue
		}
		if num >= uint64(len(into)) {
			c.skip(int(val))
			continue
		}
		if *into[num], err = c.text(val, maxName); err != nil {
			return Target{}, err
		}
	}
	return t, nil
}

func readAddress(c *cursor, end int) (Target, error) {
	t := Target{Kind: TargetAddress}
	for c.left > end {
		num, typ, val, err := c.field(end)
		if err != nil {
			return Target{}, err
		}
		switch {
		case num == 1 && typ == typeBytes:
			if t.Host, err = c.text(val, maxName); err != nil {
				return Target{}, err
			}
		case num == 2 && typ == typeVarint:
			t.PortNumber = 0 // what is out of range is no port, and refused as such
			if val <= math.MaxUint16 {
				t.PortNumber = uint16(val)
			}
		case typ == typeBytes:
			c.skip(int(val))
		}
	}
	return t, nil
}
