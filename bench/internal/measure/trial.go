package measure

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

// Units of measures.
const (
	unitRate   = "MiB/s"
	unitCPU    = "s/GiB"
	unitMicros = "us"
	unitPerSec = "/s"
	unitKiB    = "KiB"
	unitMiB    = "MiB"
	unitCount  = "1"
	unitShare  = "of none"
)

// Measure is one figure of a trial.
type Measure struct{ ID, Unit string }

// Sample is the value of a measure in one round.
type Sample struct {
	Measure

	Value float64
}

// Trial measures one subject once.
type Trial struct {
	Name string
	// Gives lists what it measures.
	Gives []Measure
	// Heavy tells that it takes long to set up: it runs HeavyRounds times.
	Heavy bool
	// Own tells that it is about Culvert alone.
	Own bool
	// Suits tells whether a subject can be measured.
	Suits func(t subject.Tunnel, s *subject.Subject) bool
	// Run measures once.
	Run func(ctx context.Context, at *Place) ([]Sample, error)
}

// Place is where a trial runs.
type Place struct {
	Scale  Scale
	Env    *subject.Env
	Tunnel subject.Tunnel
	// Subject runs; trials about memory start more of the same Tunnel.
	Subject *subject.Subject
	// Profiles is a folder for CPU profiles of windows, or empty.
	Profiles string

	trial string
	round int
}

// window returns the window of the scale, whose edges begin and end profiles.
func (p *Place) window() load.Window {
	return load.Window{Warmup: p.Scale.Warmup, Length: p.Scale.Window, Edge: p.profile}
}

// profile begins or ends the profiles of the subject's processes.
func (p *Place) profile(begin bool) error {
	if _, own := p.Tunnel.(*subject.Foreign); p.Profiles == "" || own {
		return nil
	}
	for _, c := range p.Subject.Processes {
		file := ""
		if begin {
			name := fmt.Sprintf("%s-%s-%s-%d.pprof", p.trial, p.Tunnel.Name(), c.Name(), p.round)
			file = filepath.Join(p.Profiles, name)
		}
		if err := c.Profile(file); err != nil {
			return err
		}
	}
	return nil
}

// cost returns the window, and a function that gives the processor time which the
// tunnel used in it.
func (p *Place) cost() (load.Window, func() time.Duration) {
	var used time.Duration
	w := p.window()
	w.Edge = func(begin bool) error {
		now, err := p.Subject.CPU()
		if err != nil {
			return err
		}
		used = now - used
		return p.profile(begin)
	}
	return w, func() time.Duration { return used }
}

// dials suits subjects with sessions.
func dials(_ subject.Tunnel, s *subject.Subject) bool { return s.Dial != nil }

// All returns every trial, in the order in which they run.
func All() []Trial {
	var all []Trial
	all = append(all, bulkTrials()...)
	all = append(all, latencyTrials()...)
	all = append(all, memoryTrials()...)
	all = append(all, webTrials()...)
	return append(all, checkTrials()...)
}

// Select returns the trials that give a measure which only matches, and gives no
// more than those.
func Select(trials []Trial, only *regexp.Regexp) ([]Trial, error) {
	if only == nil {
		return trials, nil
	}
	var out []Trial
	var ids []string
	for _, t := range trials {
		var gives []Measure
		for _, m := range t.Gives {
			ids = append(ids, m.ID)
			if only.MatchString(m.ID) {
				gives = append(gives, m)
			}
		}
		if len(gives) > 0 {
			t.Gives = gives
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("only: %q matches no measure; there are %s", only, strings.Join(ids, " "))
	}
	return out, nil
}

// record adds the samples that the trial gives.
func (t *Trial) record(to *report.Results, subject string, samples []Sample) {
	for _, s := range samples {
		for _, m := range t.Gives {
			if m.ID == s.ID {
				to.Add(s.ID, s.Unit, subject, s.Value)
			}
		}
	}
}
