package kubectl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// get reads an object and a list.
func get(ctx context.Context, c *client) error {
	value, err := c.run(ctx, "", "get", "configmap", "first", "-o", "jsonpath={.data.key}")
	if err == nil && value != "value" {
		err = fmt.Errorf("the value is %q", value)
	}
	pods, listErr := c.run(ctx, "", "get", "pods", "--no-headers", "-o", "custom-columns=NAME:.metadata.name,PHASE:.status.phase")
	if want := "clock    Running\nquiet    Running\ntalker   Running\nworker   Running\n"; listErr == nil && pods != want {
		listErr = fmt.Errorf("the list is %q", pods)
	}
	return errors.Join(err, listErr)
}

// watchDelay is how soon changes must be seen, by their median: single ones may be held up
// by a busy machine. It is generous: what it must not be is the time that some buffer or
// the next event needs.
const watchDelay = 5 * time.Second

// watch follows an object through changes that are made at the API server itself.
func watch(ctx context.Context, c *client) error {
	if err := c.w.make(ctx, c.id); err != nil {
		return err
	}
	// As a list: for a single object kubectl leaves out the first event of its watch,
	// though that may be a change since it got the object.
	s, err := c.start(ctx, "get", "configmaps", "--field-selector=metadata.name="+c.id, "-w", "--no-headers", "-o", "custom-columns=VALUE:.data.key")
	if err != nil {
		return err
	}
	lines := bufio.NewReader(s.out)
	var delays []time.Duration
	for i, value := range []string{"value", "one", "two", "three"} {
		if i > 0 {
			if err := c.w.change(ctx, c.id, value); err != nil {
				return s.failed(err)
			}
		}
		started := time.Now()
		line, err := lines.ReadString('\n')
		if err == nil && line != value+"\n" {
			err = fmt.Errorf("got %q, want %q", line, value)
		}
		if err != nil {
			return s.failed(fmt.Errorf("at %s, after %v: %w", value, time.Since(started), err))
		}
		if i > 0 {
			delays = append(delays, time.Since(started))
		}
	}
	slices.Sort(delays)
	if late := delays[len(delays)/2]; late > watchDelay {
		return s.failed(fmt.Errorf("half of the changes were seen after %v or more", late))
	}
	return s.kill(false)
}

// apply makes an object and changes it.
func apply(ctx context.Context, c *client) error {
	for _, step := range []struct{ value, says string }{{"one", "created"}, {"two", "configured"}, {"two", "unchanged"}} {
		manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":%q},"data":{"key":%q}}`, c.id, namespace, step.value)
		out, err := c.run(ctx, manifest, "apply", "-f", "-")
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("configmap/%s %s\n", c.id, step.says); out != want {
			return fmt.Errorf("kubectl said %q, want %q", out, want)
		}
		made, err := c.w.direct.Get(ctx, c.id, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if made.Data["key"] != step.value {
			return fmt.Errorf("the API server has %q, want %q", made.Data["key"], step.value)
		}
	}
	return nil
}

// ticks is how many ticks in a row, two seconds of them, tell whether they are followed:
// they are, where most come one by one. What is held back arrives at once.
const ticks = 20

// logs follows a log that grows ten times a second, until that can be seen of it: on a busy
// machine some ticks may come together.
func logs(ctx context.Context, c *client) error {
	s, err := c.start(ctx, "logs", "-f", "--tail=1", "clock")
	if err != nil {
		return err
	}
	lines := bufio.NewReader(s.out)
	var gaps []time.Duration
	last := time.Now()
	for before := 0; !oneByOne(gaps); {
		line, err := lines.ReadString('\n')
		var tick int
		if err == nil {
			_, err = fmt.Sscanf(line, "tick %d\n", &tick)
		}
		if err == nil && before > 0 && tick != before+1 {
			err = fmt.Errorf("tick %d follows tick %d", tick, before)
		}
		if err != nil {
			return s.failed(fmt.Errorf("after %d ticks, the last of them apart by %v: %w", len(gaps), gaps[max(0, len(gaps)-ticks):], err))
		}
		gaps, last, before = append(gaps, time.Since(last)), time.Now(), tick
	}
	return s.kill(false)
}

// oneByOne tells whether the last ticks came so, by the median of their distances.
func oneByOne(gaps []time.Duration) bool {
	if len(gaps) < ticks {
		return false
	}
	sorted := slices.Sorted(slices.Values(gaps[len(gaps)-ticks:]))
	return sorted[len(sorted)/2] >= 50*time.Millisecond
}
