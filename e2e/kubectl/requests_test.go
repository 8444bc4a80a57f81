package kubectl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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

// watchDelay is how soon a change must be seen. It is generous: what it must not be
// is the time that some buffer or the next event needs.
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
		if late := time.Since(started); err == nil && i > 0 && late > watchDelay {
			err = fmt.Errorf("the change to %s was seen after %v", value, late)
		}
		if err != nil {
			return s.failed(fmt.Errorf("at %s, after %v: %w", value, time.Since(started), err))
		}
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

// logs follows a log that grows ten times a second.
func logs(ctx context.Context, c *client) error {
	s, err := c.start(ctx, "logs", "-f", "--tail=1", "clock")
	if err != nil {
		return err
	}
	lines := bufio.NewReader(s.out)
	var first, last time.Time
	for i, before := 0, 0; i < 12; i++ {
		line, err := lines.ReadString('\n')
		var tick int
		if err == nil {
			_, err = fmt.Sscanf(line, "tick %d\n", &tick)
		}
		if err == nil && before > 0 && tick != before+1 {
			err = fmt.Errorf("tick %d follows tick %d", tick, before)
		}
		if err != nil {
			return s.failed(err)
		}
		if before = tick; i == 1 {
			first = time.Now()
		}
		last = time.Now()
	}
	// Ten ticks take a second; what was held back arrives at once.
	if took := last.Sub(first); took < 500*time.Millisecond {
		return s.failed(fmt.Errorf("ten ticks arrived within %v: they were not followed but held back", took))
	}
	return s.kill(false)
}
