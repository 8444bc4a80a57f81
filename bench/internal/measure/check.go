package measure

import (
	"context"
	"log/slog"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/report"
)

func checkTrials() []Trial {
	return []Trial{
		checkTrial("integrity", load.Dialer.Integrity),
		checkTrial("half_close", load.Dialer.HalfClose),
	}
}

// checkTrial passes or fails; a failure is a result, and its reason is logged.
func checkTrial(id string, check func(d load.Dialer, ctx context.Context, n int64) error) Trial {
	pass := Measure{id, report.UnitPass}
	return Trial{
		Name: id, Gives: []Measure{pass}, Suits: dials, Heavy: true,
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			if err := check(at.Subject.Dial, ctx, at.Scale.Check); err != nil {
				slog.Default().Warn("check failed", "check", id, "subject", at.Tunnel.Name(), "reason", err)
				return []Sample{{pass, 0}}, nil
			}
			return []Sample{{pass, 1}}, nil
		},
	}
}
