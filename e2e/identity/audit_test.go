package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// person is a user in an audit line.
type person struct {
	Name, UID string
	Groups    []string
}

// line is one of the hub's audit file, as docs/audit.md has it.
type line struct {
	Time                                          time.Time
	Stage, RequestID, TraceID, SessionID          string
	User, ImpersonatedUser, ClusterUser           person
	Authentication, Source, Hub, Cluster, Agent   string
	Target, Method, Path                          string
	Verb, Resource, Subresource, Namespace, Name  string
	Decision, Rule, Reason, Hop, Code, Error, End string
	Status                                        int
	Received, Sent                                int64
	Duration                                      float64
	Lost                                          int64
}

// auditFile is that of the hub "main".
func auditFile() string { return filepath.Join(testbed.Dir(), "audit-main.jsonl") }

// auditLines returns the lines that there are now. A last line without an end is
// left out: it is being written.
func auditLines(file string) ([]line, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var lines []line
	for text := range bytes.Lines(text) {
		if !bytes.HasSuffix(text, []byte("\n")) {
			break
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("audit line %q: %w", text, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// awaitLines waits until those lines of the hub "main" are there which match, and
// enough says that they are all.
func awaitLines(ctx context.Context, t *testing.T, what string, match func(line) bool, enough func([]line) bool) []line {
	t.Helper()
	var found []line
	err := testbed.Poll(ctx, what, func(context.Context) error {
		lines, err := auditLines(auditFile())
		if err != nil {
			return err
		}
		found = nil
		for _, l := range lines {
			if match(l) {
				found = append(found, l)
			}
		}
		if !enough(found) {
			return fmt.Errorf("%+v", found)
		}
		return nil
	})
	must(t, err)
	return found
}

// lineOf waits for the one line of a request, which has the trace of its caller.
func lineOf(ctx context.Context, r reply) (line, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var found []line
	err := testbed.Poll(ctx, "the audit line of trace "+r.trace, func(context.Context) error {
		lines, err := auditLines(auditFile())
		if err != nil {
			return err
		}
		found = nil
		for _, l := range lines {
			if l.TraceID == r.trace {
				found = append(found, l)
			}
		}
		if len(found) == 0 {
			return errors.New("none")
		}
		return nil
	})
	if err != nil {
		return line{}, err
	}
	if len(found) != 1 {
		return line{}, fmt.Errorf("%d audit lines of one request: %+v", len(found), found)
	}
	if id := r.header.Get("X-Request-Id"); found[0].RequestID == "" || id != "" && found[0].RequestID != id {
		return line{}, fmt.Errorf("the audit line has request id %q, the answer %q", found[0].RequestID, id)
	}
	return found[0], nil
}
