package testbed

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

const (
	// slackRuns is how often the reference runs.
	slackRuns = 5
	// slackTimes is how many times the reference's time a promise may be late: that many
	// processes and hops take part in what is timed.
	slackTimes = 10
	// judgedLate is how long ago what is timed may have ended when it is judged.
	judgedLate = 5 * time.Second
)

// Slack tells by how much longer than promised something may take on a machine that is as
// busy as this one is now. Its reference is how long a program, one of Culvert's own, takes
// to start, say its version and end: some milliseconds where nothing else runs.
func Slack(ctx context.Context, program string) (time.Duration, error) {
	var longest time.Duration
	for range slackRuns {
		started := time.Now()
		if out, err := exec.CommandContext(ctx, program, "version").CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s version: %w: %s", program, err, out)
		}
		longest = max(longest, time.Since(started))
	}
	return slackTimes * longest, nil
}

// InTime compares how long something took, up to now or a moment ago, with what is
// promised. Where that is exceeded, the machine has to be the reason: it has held up this
// process meanwhile (see [HeldUp]), or it is busy now. An error says that it is not.
func InTime(ctx context.Context, program string, took, promised time.Duration) error {
	if took <= promised {
		return nil
	}
	began := time.Now().Add(-took - judgedLate)
	slack, err := Slack(ctx, program)
	held := HeldUp(began)
	if err == nil && took > promised+held+slack {
		err = fmt.Errorf("it took %v where %v are promised, the machine stood still for %v, and %v more are left to so busy a one",
			took, promised, held.Round(time.Millisecond), slack.Round(time.Millisecond))
	}
	return err
}
