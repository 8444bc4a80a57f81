package measure

import (
	"context"
	"fmt"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

func webTrials() []Trial {
	trivial := func(s *subject.Subject) *load.Web { return s.Web }
	kube := func(s *subject.Subject) *load.Web { return s.Kube }
	return []Trial{
		webTrial("http", 1, trivial, false),
		webTrial("http", 64, trivial, false),
		webTrial("http", 256, trivial, false),
		webTrial("http2", 1, trivial, true),
		webTrial("http2", 64, trivial, true),
		webTrial("http2", 256, trivial, true),
		webTrial("http_kube", 1, kube, false),
		webTrial("http_kube", 64, kube, false),
		webTrial("http2_kube", 64, kube, true),
	}
}

// clients translates the number in a measure's name to that of the scale.
func (s Scale) clients(nominal int) int {
	switch nominal {
	case 64:
		return s.Clients
	case 256:
		return s.ManyClients
	default:
		return nominal
	}
}

// webTrial measures requests by a number of clients.
func webTrial(kind string, clients int, way func(*subject.Subject) *load.Web, http2 bool) Trial {
	name := fmt.Sprintf("%s_%d", kind, clients)
	rate := Measure{name + "_rps", unitPerSec}
	p50, p99 := Measure{name + "_p50", unitMicros}, Measure{name + "_p99", unitMicros}
	cpu := Measure{name + "_cpu", unitMicros}
	return Trial{
		Name: name, Gives: []Measure{rate, p50, p99, cpu}, Heavy: clients > 64,
		Suits: func(_ subject.Tunnel, s *subject.Subject) bool { return way(s) != nil },
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			w, used := at.cost()
			t, err := way(at.Subject).Requests(ctx, at.Scale.clients(clients), http2, w)
			samples, err := percentiles(t, err, p50, p99)
			if err != nil {
				return nil, err
			}
			samples = append([]Sample{{rate, t.Rate()}}, samples...)
			if len(at.Subject.Processes) > 0 {
				samples = append(samples, Sample{cpu, float64(used().Microseconds()) / float64(len(t.Sorted))})
			}
			return samples, nil
		},
	}
}
