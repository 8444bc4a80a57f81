package measure

import (
	"context"

	"github.com/culvertdev/culvert/bench/internal/load"
)

// gib is a gibibyte, in bytes.
const gib = 1 << 30

func bulkTrials() []Trial {
	one := func(Scale) int { return 1 }
	many := func(s Scale) int { return s.Bulk }
	down, up := load.Dialer.Download, load.Dialer.Upload
	return []Trial{
		bulkTrial("download_1", "", one, down),
		bulkTrial("download_16", "cpu_per_gib", many, down),
		bulkTrial("upload_1", "", one, up),
		bulkTrial("upload_16", "cpu_per_gib_upload", many, up),
	}
}

type mover func(d load.Dialer, ctx context.Context, n int, w load.Window) (load.Transfer, error)

// bulkTrial measures a rate, and under the id cost (if any) what it costs.
func bulkTrial(id, cost string, sessions func(Scale) int, move mover) Trial {
	rate, cpu := Measure{id, unitRate}, Measure{cost, unitCPU}
	gives := []Measure{rate}
	if cost != "" {
		gives = append(gives, cpu)
	}
	return Trial{
		Name: id, Gives: gives, Suits: dials,
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			w, used := at.cost()
			t, err := move(at.Subject.Dial, ctx, sessions(at.Scale), w)
			if err != nil {
				return nil, err
			}
			samples := []Sample{{rate, t.Rate()}}
			// Nothing is known of the processes of a subject that has none.
			if cost != "" && len(at.Subject.Processes) > 0 {
				samples = append(samples, Sample{cpu, used().Seconds() / (float64(t.Bytes) / gib)})
			}
			return samples, nil
		},
	}
}
