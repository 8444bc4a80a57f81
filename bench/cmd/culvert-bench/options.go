package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/spf13/pflag"

	"github.com/culvertdev/culvert/bench/internal/measure"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

// options are the flags, checked.
type options struct {
	out      string
	quick    bool
	rounds   int
	only     *regexp.Regexp
	tunnels  []subject.Tunnel
	kube     bool
	netem    bool
	profiles string
}

func parse(args []string) (*options, error) {
	o := &options{}
	var only string
	var files []string
	var direct, bare bool
	f := pflag.NewFlagSet("culvert-bench", pflag.ContinueOnError)
	f.StringVar(&o.out, "out", "", "file for the results, JSON")
	f.BoolVar(&o.quick, "quick", false, "take less than a minute; shows large changes only")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of every trial (default 5, with --quick 3, with --netem 1)")
	f.StringVar(&only, "only", "", "regular expression: measure only what it matches")
	f.StringArrayVar(&files, "tunnel", nil, "file that describes another tunnel to measure (repeat)")
	f.BoolVar(&direct, "direct", false, "measure the service without a tunnel too")
	f.BoolVar(&bare, "bare", false, "measure requests to a hub that asks nobody who they are and whether they may, too")
	f.BoolVar(&o.kube, "kube", false, "measure requests to a real kube-apiserver too; the first run builds it")
	f.BoolVar(&o.netem, "netem", false, "measure one session over lines with round trips and loss instead; needs root")
	f.StringVar(&o.profiles, "profiles", "", "existing folder for CPU profiles of every window")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var problems []error
	if f.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	if o.rounds < 0 {
		problems = append(problems, errors.New("--rounds: must not be negative"))
	}
	if o.netem && o.kube {
		problems = append(problems, errors.New("--kube, --netem: give one of them"))
	}
	if only != "" {
		var err error
		if o.only, err = regexp.Compile(only); err != nil {
			problems = append(problems, fmt.Errorf("--only: %w", err))
		}
	}
	if o.profiles != "" {
		if info, err := os.Stat(o.profiles); err != nil || !info.IsDir() {
			problems = append(problems, fmt.Errorf("--profiles: %s is no folder", o.profiles))
		}
	}
	o.tunnels = []subject.Tunnel{subject.Culvert{}, subject.Reference{}}
	if direct || o.netem {
		o.tunnels = append(o.tunnels, subject.Direct{})
	}
	if bare {
		o.tunnels = append(o.tunnels, subject.Bare{})
	}
	for _, file := range files {
		t, err := subject.LoadForeign(file)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		o.tunnels = append(o.tunnels, t)
	}
	return o, errors.Join(problems...)
}

// scale is that of a run over the loopback.
func (o *options) scale() measure.Scale {
	s := measure.Full()
	if o.quick {
		s = measure.Quick()
	}
	if o.rounds > 0 {
		s.Rounds, s.HeavyRounds = o.rounds, min(o.rounds, s.HeavyRounds)
	}
	return s
}

// base is the subject that ratios are taken to.
func (o *options) base() string {
	if o.netem {
		return subject.Direct{}.Name()
	}
	return report.Reference
}
