package measure

import (
	"context"
	"errors"

	"github.com/culvertdev/culvert/bench/internal/frames"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

// warm is how many sessions or agents there are first, so that what a process
// needs once is not counted as theirs.
const warm = 8

const kib = 1 << 10

func memoryTrials() []Trial {
	return []Trial{idleSessions(), idleAgents(), allocations()}
}

func idleSessions() Trial {
	each := Measure{"idle_session_kib", unitKiB}
	return Trial{
		Name: "idle_session", Gives: []Measure{each}, Heavy: true,
		Suits: func(_ subject.Tunnel, s *subject.Subject) bool { return s.Dial != nil && s.Hub != nil },
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			s, err := at.Tunnel.Start(ctx, at.Env)
			if err != nil {
				return nil, err
			}
			grown, err := grows(ctx, at, s, func(n int) (func() error, error) {
				held, err := s.Dial.Hold(ctx, n)
				if err != nil {
					return nil, err
				}
				return held.Close, nil
			}, at.Scale.IdleSessions)
			return []Sample{{each, grown}}, errors.Join(err, s.Close())
		},
	}
}

func idleAgents() Trial {
	each := Measure{"idle_agent_kib", unitKiB}
	return Trial{
		Name: "idle_agent", Gives: []Measure{each}, Heavy: true,
		Suits: func(t subject.Tunnel, _ *subject.Subject) bool { _, ok := t.(subject.AgentHost); return ok },
		Run: func(ctx context.Context, at *Place) ([]Sample, error) {
			host, ok := at.Tunnel.(subject.AgentHost)
			if !ok {
				return nil, errors.New("the tunnel has no agents")
			}
			s, err := host.StartHub(ctx, at.Env)
			if err != nil {
				return nil, err
			}
			grown, err := grows(ctx, at, s, func(n int) (func() error, error) {
				return nothing, host.AddAgents(ctx, at.Env, s, n)
			}, at.Scale.IdleAgents)
			return []Sample{{each, grown}}, errors.Join(err, s.Close())
		},
	}
}

func nothing() error { return nil }

// grows returns by how many KiB the hub's memory grows for each of n that add
// adds. What add returns takes them away again.
func grows(ctx context.Context, at *Place, s *subject.Subject, add func(n int) (func() error, error), n int) (_ float64, err error) {
	for _, count := range []int{warm, n} {
		before, err := s.Hub.Settled(ctx, at.Scale.Settle)
		if err != nil {
			return 0, err
		}
		remove, err := add(count)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, remove()) }()
		after, err := s.Hub.Settled(ctx, at.Scale.Settle)
		if err != nil {
			return 0, err
		}
		if count == n {
			return float64(after-before) / float64(n) / kib, nil
		}
	}
	return 0, nil
}

// allocations is about the data path itself, not about a tunnel that runs.
func allocations() Trial {
	each := Measure{"allocs_per_frame", unitCount}
	return Trial{
		Name: "allocs_per_frame", Gives: []Measure{each}, Own: true,
		Suits: func(subject.Tunnel, *subject.Subject) bool { return true },
		Run: func(_ context.Context, at *Place) ([]Sample, error) {
			perFrame, err := frames.Allocations(at.Scale.Frames)
			return []Sample{{each, perFrame}}, err
		},
	}
}
