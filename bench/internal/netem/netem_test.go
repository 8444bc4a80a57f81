package netem

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConditionNames(t *testing.T) {
	for want, c := range map[string]Condition{
		"rtt0_loss0":     {},
		"rtt100_loss0":   {RTT: 100 * time.Millisecond},
		"rtt50_loss1":    {RTT: 50 * time.Millisecond, Loss: 0.01},
		"rtt10_loss0.1":  {RTT: 10 * time.Millisecond, Loss: 0.001},
		"rtt200_loss100": {RTT: 200 * time.Millisecond, Loss: 1},
	} {
		if got := c.String(); got != want {
			t.Errorf("%+v: got %q, want %q", c, got, want)
		}
	}
}

func TestLineIsAsSlowAsAsked(t *testing.T) {
	start := time.Unix(1000, 0)
	d := newDirection(Condition{RTT: 100 * time.Millisecond, Rate: 8_000_000}, nil, nil) // a byte a microsecond
	for _, c := range []struct {
		at   time.Duration
		size int
		want time.Duration
		why  string
	}{
		{0, 1000, 51 * time.Millisecond, "its own length and half a round trip"},
		{0, 1000, 52 * time.Millisecond, "waits for the one before"},
		{10 * time.Millisecond, 500, 60500 * time.Microsecond, "the line was free again"},
	} {
		due, lost := d.send(start.Add(c.at), c.size)
		if lost || due.Sub(start) != c.want {
			t.Errorf("a packet of %d after %v arrives after %v (lost: %v), want %v: %s", c.size, c.at, due.Sub(start), lost, c.want, c.why)
		}
	}
	d.c.Loss = 1
	if _, lost := d.send(start, 1); !lost {
		t.Error("nothing is lost on a line that loses everything")
	}
}

func TestWireSize(t *testing.T) {
	packet := func(size int, kind byte, headers, segment uint16) []byte {
		p := make([]byte, vnetHeader+size)
		p[1] = kind
		binary.NativeEndian.PutUint16(p[2:], headers)
		binary.NativeEndian.PutUint16(p[4:], segment)
		return p
	}
	for title, c := range map[string]struct {
		packet []byte
		want   int
	}{
		"a plain packet":          {packet(1500, 0, 0, 0), 1514},
		"ten segments":            {packet(40+10*1460, 1, 40, 1460), 10 * 1514},
		"the last one is shorter": {packet(40+1460+100, 1, 40, 1460), 1514 + 154},
		"one segment":             {packet(40+1460, 1, 40, 1460), 1514},
	} {
		if got := wireSize(c.packet); got != c.want {
			t.Errorf("%s: got %d, want %d", title, got, c.want)
		}
	}
}

func TestUnknown(t *testing.T) {
	for text, want := range map[string]bool{
		"Error: Specified qdisc kind is unknown.":     true,
		"exec: tc: executable file not found in PATH": true,
		"Operation not permitted":                     false,
	} {
		if got := unknown(errors.New(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if unknown(nil) {
		t.Error("no error is taken for one")
	}
}
