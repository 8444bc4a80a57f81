package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/service"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

// trialTime bounds one trial beyond its windows.
const trialTime = 2 * time.Minute

// startTime bounds the start of a tunnel.
const startTime = time.Minute

// Run says what to measure.
type Run struct {
	Scale   Scale
	Trials  []Trial
	Tunnels []subject.Tunnel
	Env     *subject.Env
	// Profiles is a folder for CPU profiles, or empty.
	Profiles string
	// Progress gets a line for each trial; nil means none.
	Progress io.Writer
}

// StartService runs the service at the far side of env and fills in where it is.
// The caller stops it.
func StartService(ctx context.Context, env *subject.Env) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return process.Start(ctx, process.Spec{
		Name: "service", Role: service.RoleName, Ready: &env.Service, Dir: env.Dir, Within: env.Far.Within,
		Config: service.Config{Host: env.Far.Host, Cert: env.Cert, Key: env.Key},
	})
}

// Do starts every tunnel and runs all rounds. Trials that fail are recorded in to
// and do not end the run; an error does.
func (r *Run) Do(ctx context.Context, to *report.Results) (err error) {
	places := make([]*Place, 0, len(r.Tunnels))
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.Subject.Close())
		}
	}()
	for _, t := range r.Tunnels {
		starting, cancel := context.WithTimeout(ctx, startTime)
		s, err := t.Start(starting, r.Env)
		cancel()
		if err != nil {
			return fmt.Errorf("start %s: %w", t.Name(), err)
		}
		places = append(places, &Place{Scale: r.Scale, Env: r.Env, Tunnel: t, Subject: s, Profiles: r.Profiles})
	}
	for round := range max(r.Scale.Rounds, r.Scale.HeavyRounds) {
		for i := range r.Trials {
			trial := &r.Trials[i]
			rounds := r.Scale.Rounds
			if trial.Heavy {
				rounds = r.Scale.HeavyRounds
			}
			if round >= rounds {
				continue
			}
			if err := r.trial(ctx, trial, places, round, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// trial runs one trial for every subject. Its order turns round by round.
func (r *Run) trial(ctx context.Context, t *Trial, places []*Place, round int, to *report.Results) error {
	order := slices.Clone(places)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, at := range order {
		name := at.Tunnel.Name()
		if t.Own && name != report.Culvert || !t.Suits(at.Tunnel, at.Subject) {
			continue
		}
		at.trial, at.round = t.Name, round
		limited, cancel := context.WithTimeout(ctx, trialTime)
		samples, err := t.Run(limited, at)
		cancel()
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if err != nil {
			to.Fail(t.Name, name, err)
			r.sayf("round %d  %-28s %-10s failed: %v", round+1, t.Name, name, err)
			continue
		}
		t.record(to, name, samples)
		if len(samples) > 0 {
			r.sayf("round %d  %-28s %-10s %.4g %s", round+1, samples[0].ID, name, samples[0].Value, samples[0].Unit)
		}
	}
	return nil
}

func (r *Run) sayf(format string, args ...any) {
	if r.Progress != nil {
		fmt.Fprintf(r.Progress, format+"\n", args...)
	}
}
