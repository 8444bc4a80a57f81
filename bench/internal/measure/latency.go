package measure

import (
	"context"
	"errors"
	"log/slog"

	"github.com/culvertdev/culvert/bench/internal/load"
)

func latencyTrials() []Trial {
	var (
		oneP50   = Measure{"pingpong_1_p50", unitMicros}
		oneP99   = Measure{"pingpong_1_p99", unitMicros}
		manyRate = Measure{"pingpong_64_rps", unitPerSec}
		manyP99  = Measure{"pingpong_64_p99", unitMicros}
		setup    = Measure{"setup_rate", unitPerSec}
		bulkP50  = Measure{"pingpong_beside_bulk_p50", unitMicros}
		bulkP99  = Measure{"pingpong_beside_bulk_p99", unitMicros}
	)
	return []Trial{
		{
			Name: "pingpong_1", Gives: []Measure{oneP50, oneP99}, Suits: dials,
			Run: func(ctx context.Context, at *Place) ([]Sample, error) {
				t, err := at.Subject.Dial.PingPong(ctx, 1, at.window())
				return percentiles(t, err, oneP50, oneP99)
			},
		},
		{
			Name: "pingpong_64", Gives: []Measure{manyRate, manyP99}, Suits: dials,
			Run: func(ctx context.Context, at *Place) ([]Sample, error) {
				t, err := at.Subject.Dial.PingPong(ctx, at.Scale.PingPong, at.window())
				if err != nil {
					return nil, err
				}
				p99, err := t.Micros(0.99)
				return []Sample{{manyRate, t.Rate()}, {manyP99, p99}}, err
			},
		},
		{
			Name: "setup", Gives: []Measure{setup}, Suits: dials,
			Run: func(ctx context.Context, at *Place) ([]Sample, error) {
				t, err := at.Subject.Dial.Setups(ctx, at.Scale.Setups, at.window())
				return []Sample{{setup, t.Rate()}}, err
			},
		},
		{
			Name: "pingpong_beside_bulk", Gives: []Measure{bulkP50, bulkP99}, Suits: dials,
			Run: func(ctx context.Context, at *Place) ([]Sample, error) {
				bulk, err := at.Subject.Dial.Bulk(ctx, at.Scale.Beside)
				if err != nil {
					return nil, err
				}
				t, err := at.Subject.Dial.PingPong(ctx, 1, at.window())
				return percentiles(t, errors.Join(err, bulk.Close()), bulkP50, bulkP99)
			},
		},
		stallTrial(),
		manyStallsTrial(),
	}
}

// percentiles gives the median and the 99th percentile in microseconds.
func percentiles(t load.Trips, err error, p50, p99 Measure) ([]Sample, error) {
	if err != nil {
		return nil, err
	}
	middle, err := t.Micros(0.50)
	if err != nil {
		return nil, err
	}
	late, err := t.Micros(0.99)
	return []Sample{{p50, middle}, {p99, late}}, err
}

// stalls is what besideStalls found.
type stalls struct {
	alone, beside load.Trips
	// grown is by how many MiB the tunnel's memory grew.
	grown float64
}

// besideStalls measures a ping-pong alone and beside n readers that do not read,
// and by how much the tunnel's memory grew. The tunnel is started anew: one that
// has carried load keeps memory in which the growth would not show.
func besideStalls(ctx context.Context, at *Place, n int) (r stalls, err error) {
	fresh := *at
	if fresh.Subject, err = at.Tunnel.Start(ctx, at.Env); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, fresh.Subject.Close()) }()
	s := fresh.Subject
	if r.alone, err = s.Dial.PingPong(ctx, 1, fresh.window()); err == nil {
		_, err = r.alone.Micros(0.50) // what has no time alone cannot be held against that
	}
	if err != nil {
		return r, err
	}
	before, err := s.Resident(ctx, at.Scale.Settle)
	if err != nil {
		return r, err
	}
	stalled, err := s.Dial.Stall(ctx, n)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, stalled.Close()) }()
	// All buffers on the way fill first.
	if err := s.Quiet(ctx, at.Scale.Settle); err != nil {
		return r, err
	}
	after, err := s.Resident(ctx, at.Scale.Settle)
	if err != nil {
		return r, err
	}
	r.grown = float64(after-before) / load.MiB
	if err := checkPressure(); err != nil {
		return r, err
	}
	r.beside, err = s.Dial.PingPong(ctx, 1, fresh.window())
	return r, err
}

func stallTrial() Trial {
	rate := Measure{"pingpong_beside_stall_rps", unitPerSec}
	share := Measure{"pingpong_beside_stall_share", unitShare}
	growth := Measure{"stall_growth_mib", unitMiB}
	return Trial{
		Name: "pingpong_beside_stall", Gives: []Measure{rate, share, growth}, Suits: dials, Heavy: true,
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			r, err := besideStalls(ctx, at, 1)
			if err != nil {
				return nil, err
			}
			return []Sample{{rate, r.beside.Rate()}, {growth, r.grown}, {share, r.beside.Rate() / r.alone.Rate()}}, nil
		},
	}
}

func manyStallsTrial() Trial {
	late := Measure{"pingpong_beside_1000_stalls_p99", unitShare}
	growth := Measure{"stalls_growth_mib", unitMiB}
	return Trial{
		Name: "pingpong_beside_1000_stalls", Gives: []Measure{late, growth}, Suits: dials, Heavy: true,
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			r, err := besideStalls(ctx, at, at.Scale.ManyStalls)
			if errors.Is(err, errPressure) {
				slog.Default().Warn("left out", "trial", at.trial, "subject", at.Tunnel.Name(), "reason", err)
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			beside, err := r.beside.Micros(0.99)
			alone, aloneErr := r.alone.Micros(0.99)
			if err = errors.Join(err, aloneErr); err != nil {
				return nil, err
			}
			return []Sample{{late, beside / alone}, {growth, r.grown}}, nil
		},
	}
}
