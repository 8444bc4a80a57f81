package frames

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAllocations(t *testing.T) {
	perFrame, err := Allocations(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.3f allocations a frame", perFrame)
}

func BenchmarkDataPath(b *testing.B) {
	p, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	const block = 1 << 20
	if err := p.Move(64 * block); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(block)
	b.ReportAllocs()
	frames := p.Frames()
	for b.Loop() {
		if err := p.Move(block); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(p.Frames()-frames)/float64(b.N), "frames/op")
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
}
