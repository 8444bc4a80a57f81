package frames

import (
	"math"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mostAllocations is what a DATA frame may cost: none in steady state. The rest is
// the room that a message of many frames needs, and what the collector took out
// of pools.
const mostAllocations = 0.05

// TestAllocations is a benchmark with a limit. It says nothing under the race
// detector, which empties pools at random; make test runs it without.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Log("under the race detector there is no limit")
	}
	for title, relays := range paths {
		t.Run(title, func(t *testing.T) {
			// Where the machine stands still a benchmark is over after few frames, to which
			// the collector's part is large: the best of three tells what frames cost.
			least := math.Inf(1)
			for i := 0; i == 0 || !raceDetector && least > mostAllocations && i < 3; i++ {
				r := testing.Benchmark(func(b *testing.B) { run(b, relays) })
				frames := r.Extra["frames/op"]
				if frames == 0 {
					t.Fatal("the benchmark failed")
				}
				perFrame := float64(r.AllocsPerOp()) / frames
				t.Logf("%d times %v allocations for %.1f frames, %.3f each", r.N, r.AllocsPerOp(), frames, perFrame)
				least = min(least, perFrame)
			}
			if !raceDetector && least > mostAllocations {
				t.Errorf("%.3f allocations a frame, the limit is %v", least, mostAllocations)
			}
		})
	}
}

// paths has how many relays are on the way.
var paths = map[string]int{"N1: tunnel": 0, "N1: tunnel, relay, tunnel": 1}

func BenchmarkDataPath(b *testing.B) {
	for title, relays := range paths {
		b.Run(title, func(b *testing.B) { run(b, relays) })
	}
}

func run(b *testing.B, relays int) {
	p, err := Open(relays)
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
