package main

import (
	"context"
	"errors"
	"maps"
	"os"

	"github.com/culvertdev/culvert/bench/internal/measure"
	"github.com/culvertdev/culvert/bench/internal/netem"
	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

// lines measures one session over slow and lossy lines.
func lines(ctx context.Context, o *options, dir string) error {
	results := report.Results{Base: o.base()}
	l := measure.Lines{
		Run: measure.Run{
			Scale: o.scale().ForLines(o.rounds), Tunnels: o.tunnels, Profiles: o.profiles, Progress: os.Stderr,
		},
		Dir: dir, Only: o.only,
	}
	err := l.Do(ctx, &results)
	return errors.Join(err, publish(o, &results))
}

// roles are all that this executable can be as a child.
func roles() map[string]process.Role {
	all := subject.Roles()
	maps.Copy(all, netem.Roles())
	return all
}
