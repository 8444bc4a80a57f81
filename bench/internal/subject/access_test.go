package subject

import (
	"slices"
	"testing"
	"time"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/service"
)

// clients is how many ask at a time, as in the measure http_64_rps.
const clients = 64

// access is Culvert with both ways to its service: on is the hub's own, with
// identity, policy and audit, off the port that has none of them.
func access(tb testing.TB) (on, off *load.Web) {
	tb.Helper()
	side := Side{Host: "127.0.0.1"}
	env, err := NewEnv(tb.TempDir(), side, side)
	if err != nil {
		tb.Fatal(err)
	}
	target, err := process.Start(tb.Context(), process.Spec{
		Name: "service", Role: service.RoleName, Ready: &env.Service, Dir: env.Dir,
		Config: service.Config{Host: side.Host, Cert: env.Cert, Key: env.Key},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := target.Stop(); err != nil {
			tb.Error(err)
		}
	})
	s, err := Culvert{}.Start(tb.Context(), env)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s.Web, bareWeb(env, s)
}

func TestAccess(t *testing.T) {
	t.Run("N20: requests pass with identity, policy and audit, and by the port without them", func(t *testing.T) {
		on, off := access(t)
		for name, web := range map[string]*load.Web{"on": on, "off": off} {
			if err := web.Probe(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// BenchmarkAccess gives requests per second with identity, policy and audit and
// without, by turns in one run, and what share of them is lost.
func BenchmarkAccess(b *testing.B) {
	on, off := access(b)
	window := load.Window{Warmup: 300 * time.Millisecond, Length: 2 * time.Second}
	rate := func(web *load.Web) float64 {
		t, err := web.Requests(b.Context(), clients, false, window)
		if err != nil {
			b.Fatal(err)
		}
		return t.Rate()
	}
	var with, without, lost []float64
	for b.Loop() {
		// A pair at a time: what else the machine does meets both alike.
		w, wo := rate(on), rate(off)
		with, without, lost = append(with, w), append(without, wo), append(lost, 100*(1-w/wo))
	}
	b.ReportMetric(median(with), "on_rps")
	b.ReportMetric(median(without), "off_rps")
	b.ReportMetric(median(lost), "lost_%")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
