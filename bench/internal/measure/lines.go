package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/culvertdev/culvert/bench/internal/load"
	"github.com/culvertdev/culvert/bench/internal/netem"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

// lineRate is the bandwidth of every line, bits a second.
const lineRate = 1_000_000_000

// Lines is a run over slow and lossy lines.
type Lines struct {
	// Run has no Env and no Trials.
	Run

	// Dir is an existing folder for everything; the caller removes it.
	Dir string
	// Only selects conditions by the ids of their measures; nil means all.
	Only *regexp.Regexp
}

// conditions returns the matrix.
func conditions() []netem.Condition {
	var out []netem.Condition
	for _, ms := range []int{0, 10, 50, 100, 200} {
		for _, loss := range []float64{0, 0.001, 0.01} {
			out = append(out, netem.Condition{RTT: time.Duration(ms) * time.Millisecond, Loss: loss, Rate: lineRate})
		}
	}
	return out
}

// FillTime is the time in which a session must have filled the line; what comes
// after counts.
const FillTime = 3 * time.Second

// Do measures every condition, each on a line and with tunnels of its own.
func (l *Lines) Do(ctx context.Context, to *report.Results) (err error) {
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	hosts, err := netem.NewHosts(starting, l.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hosts.Close()) }()
	congestion, err := hosts.CongestionControl()
	if err != nil {
		return err
	}
	l.sayf("TCP congestion control: %s", congestion)
	measured := false
	for _, c := range conditions() {
		var trials []Trial
		for _, d := range []struct {
			name string
			move mover
		}{{"download_1", load.Dialer.Download}, {"upload_1", load.Dialer.Upload}} {
			id := d.name + "_" + c.String()
			if l.Only == nil || l.Only.MatchString(id) {
				trials = append(trials, bulkTrial(id, "", func(Scale) int { return 1 }, d.move))
			}
		}
		if len(trials) == 0 {
			continue
		}
		measured = true
		if err := l.condition(ctx, hosts, c, trials, to); err != nil {
			return err
		}
	}
	if !measured {
		return fmt.Errorf("only: %q matches no line; there are such as download_1_rtt100_loss0", l.Only)
	}
	return nil
}

func (l *Lines) condition(ctx context.Context, hosts *netem.Hosts, c netem.Condition, trials []Trial, to *report.Results) (err error) {
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	line, by, err := hosts.Connect(starting, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	l.sayf("line %s, made by %s", c, by)
	dir, err := os.MkdirTemp(l.Dir, c.String()+"-")
	if err != nil {
		return fmt.Errorf("folder of a line: %w", err)
	}
	run := l.Run
	run.Trials = trials
	run.Env, err = subject.NewEnv(dir, subject.Side{Host: netem.NearAddress}, subject.Side{Host: netem.FarAddress, Within: hosts.Far()})
	if err != nil {
		return err
	}
	service, err := StartService(ctx, run.Env)
	if err != nil {
		return err
	}
	return errors.Join(run.Do(ctx, to), service.Stop())
}

// ForLines is the scale of lines: windows after the time in which a session must
// have filled the line.
func (s Scale) ForLines(rounds int) Scale {
	s.Rounds, s.HeavyRounds = max(rounds, 1), 0
	s.Warmup, s.Window = FillTime, 2*time.Second
	return s
}
