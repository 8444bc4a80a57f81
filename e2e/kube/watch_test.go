package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// lines are those that a running kubectl prints.
type lines struct {
	cmd    *exec.Cmd
	lines  chan string // closed at the end
	stderr strings.Builder
}

// watchWith starts kubectl with args until the end of t. Env is added to its
// environment.
func watchWith(t *testing.T, u user, env []string, args ...string) *lines {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := u.kubectl.Command(ctx, args...)
	cmd.Env = append(cmd.Env, env...)
	l := &lines{cmd: cmd, lines: make(chan string, 16)}
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = &l.stderr
	must(t, cmd.Start())
	go l.read(out)
	t.Cleanup(func() {
		cancel()
		for range l.lines { // up to the end of its output
		}
		// It was killed, unless it ended by itself, which the tests notice.
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	return l
}

// read ends with the output of the process.
func (l *lines) read(out io.Reader) {
	defer close(l.lines)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		l.lines <- scanner.Text()
	}
}

// next returns the next line, or an error when none comes within d.
func (l *lines) next(d time.Duration) (string, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case line, ok := <-l.lines:
		if !ok {
			return "", errors.New("kubectl has ended")
		}
		return line, nil
	case <-timer.C:
		return "", fmt.Errorf("no line from kubectl within %v", d)
	}
}

// named makes kubectl watch one object by a list. A watch of an object by its name does not
// print its first event, which is the object as it is then: a change that is made before
// the watch has begun would never show.
func named(object string) string { return "--field-selector=metadata.name=" + object }

// http1 makes kubectl speak HTTP/1.1 (k8s.io/apimachinery/pkg/util/net).
var http1 = []string{"DISABLE_HTTP2=1"}

func testWatch(t *testing.T, w *world) {
	for name, env := range map[string][]string{"HTTP/2": nil, "HTTP/1.1": http1} {
		t.Run("O20,O22: kubectl get -w over "+name+" shows each change within a second", func(t *testing.T) {
			watch := watchWith(t, w.ops, env, "-n", "work", "get", "configmaps", named("first"), "-w", "--no-headers",
				"-o", "custom-columns=VALUE:.data.key")
			_, err := watch.next(30 * time.Second) // as it is now: the watch begins here
			must(t, err)
			inTime(t, w.delays(t, "work", "first", watch))
		})
	}
	t.Run("O20: a watch over WebSocket, answered by kube-apiserver", func(t *testing.T) {
		dialer := websocket.Dialer{TLSClientConfig: w.tls(t), HandshakeTimeout: 30 * time.Second}
		conn, res, err := dialer.DialContext(t.Context(),
			"wss://"+hubHost+"/managed/api/v1/namespaces/work/configmaps?watch=1&fieldSelector=metadata.name%3Dfirst",
			// The API server demands an origin, as browsers send it.
			http.Header{"Authorization": {"Bearer " + w.ops.token}, "Origin": {hubURL}})
		if err != nil {
			t.Fatal(err, res)
		}
		defer conn.Close()
		must(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
		read := func() (event struct {
			Type   string
			Object struct{ Data map[string]string }
		}) {
			t.Helper()
			_, message, err := conn.ReadMessage()
			must(t, err)
			must(t, json.Unmarshal(message, &event))
			return event
		}
		if first := read(); first.Type != "ADDED" {
			t.Fatalf("got %+v", first)
		}
		w.change(t, "work", "first", "by-websocket")
		if second := read(); second.Type != "MODIFIED" || second.Object.Data["key"] != "by-websocket" {
			t.Errorf("got %+v", second)
		}
	})
}

// changes is how often delays changes what is watched.
const changes = 10

// delays changes a ConfigMap again and again, each time once the change before has been
// shown, so that no event can wait for a later one to push it out. It returns how long
// each took, the shortest first.
func (w *world) delays(t *testing.T, namespace, name string, watches ...*lines) []time.Duration {
	t.Helper()
	var delays []time.Duration
	for i := range changes {
		value := fmt.Sprint(name, "-", time.Now().UnixNano(), "-", i)
		started := time.Now()
		w.change(t, namespace, name, value)
		for _, watch := range watches {
			line, err := watch.next(20 * time.Second) // a busy machine holds up single ones
			must(t, err)
			if line != value {
				t.Fatalf("got %q, want %q", line, value)
			}
			delays = append(delays, time.Since(started))
		}
	}
	slices.Sort(delays)
	return delays
}

// inTime holds the median of delays to a second: single ones are the machine's.
func inTime(t *testing.T, delays []time.Duration) {
	t.Helper()
	median, longest := delays[len(delays)/2], delays[len(delays)-1]
	t.Logf("from before the change to the line: median %v, longest %v", median, longest)
	if median > time.Second {
		t.Errorf("half of the changes took %v or more", median)
	}
}

// idle is what stays open while all other tests run.
type idle struct {
	since   time.Time
	watches map[string]*lines
}

func startIdle(t *testing.T, w *world) *idle {
	t.Helper()
	i := &idle{watches: map[string]*lines{}}
	for name, env := range map[string][]string{"HTTP/2": nil, "HTTP/1.1": http1} {
		i.watches[name] = watchWith(t, w.ops, env, "-n", "idle", "get", "configmaps", named("idle"), "-w", "--no-headers",
			"-o", "custom-columns=VALUE:.data.key")
		_, err := i.watches[name].next(30 * time.Second)
		must(t, err)
	}
	i.since = time.Now()
	return i
}

func testIdle(t *testing.T, w *world, i *idle) {
	for name, watch := range i.watches {
		// kubectl ends when its watch does, so a line before its time or an end
		// shows that the watch was not left alone.
		if line, err := watch.next(time.Until(i.since.Add(idleTime))); err == nil || strings.Contains(err.Error(), "ended") {
			t.Fatalf("the idle watch over %s said %q, %v %s", name, line, err, watch.stderr.String())
		}
	}
	t.Run("O20: kubectl get -w over HTTP/2 and HTTP/1.1, idle for over a minute, shows each change within a second", func(t *testing.T) {
		t.Logf("idle for %v", time.Since(i.since))
		inTime(t, w.delays(t, "idle", "idle", slices.Collect(maps.Values(i.watches))...))
	})
}
