package kubectl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// idleTime is for how long nothing happens on idle sessions: longer than what is
// usual for an idle timeout of a proxy, and in the slow suite five minutes.
func idleTime() time.Duration {
	if testbed.Slow() {
		return 5 * time.Minute
	}
	return 61 * time.Second
}

// idle is what stays open while all other tests run.
type idle struct {
	since    time.Time
	sessions []*idleSession
}

// idleSession is a session with pod quiet's command or a command of its own, which
// are silent until somebody speaks.
type idleSession struct {
	title string
	*session
	lines *bufio.Reader
	// wake makes it say a word.
	wake func(ctx context.Context, word string) error
}

// startIdle opens a session of each kind, by each of kubectl's protocols.
func startIdle(t *testing.T, w *world) *idle {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	way := access{name: "path", kubeconfig: w.kubeconfigOf(t, clusterName)}
	i := &idle{}
	for _, protocol := range []stream{webSocket, spdy} {
		c := &client{w: w, way: way, stream: protocol, http: http2}
		s := i.open(t, "exec over "+string(protocol), c, "exec", "-i", "quiet", "--", "sh", "-c", "echo begin; cat")
		s.wake = func(_ context.Context, word string) error {
			_, err := io.WriteString(s.in, word+"\n")
			return err
		}
	}
	for _, v := range []version{http1, http2} {
		c := &client{w: w, way: way, stream: webSocket, http: v}
		s := i.open(t, "logs -f over "+string(v), c, "logs", "-f", "quiet")
		s.wake = func(ctx context.Context, word string) error { return i.speak(ctx, c, word) }
	}
	for _, s := range i.sessions {
		must(t, s.expect(ctx, "begin"))
	}
	i.since = time.Now()
	return i
}

func (i *idle) open(t *testing.T, title string, c *client, args ...string) *idleSession {
	t.Helper()
	running, err := c.start(context.Background(), args...)
	must(t, err)
	s := &idleSession{title: title, session: running, lines: bufio.NewReader(running.out)}
	i.sessions = append(i.sessions, s)
	t.Cleanup(func() { check(t, s.kill(args[0] == "exec")) })
	return s
}

// speak makes the pod itself write a line.
func (i *idle) speak(ctx context.Context, c *client, word string) error {
	attached := c.w.managed.Admin()
	cmd := attached.Command(ctx, "-n", namespace, "attach", "-i", "quiet")
	in, err := cmd.StdinPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		return err
	}
	_, err = io.WriteString(in, word+"\n")
	// The follower's line shows that it arrived; kubectl is of no more use then.
	for _, s := range i.sessions {
		if s.c == c {
			err = errors.Join(err, s.expect(ctx, word))
		}
	}
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	return err
}

// expect reads lines up to one.
func (s *idleSession) expect(ctx context.Context, want string) error {
	defer context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })()
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%s ended: %w: %s", s.title, err, s.stderr.String())
		}
		if strings.TrimSpace(line) == want {
			return nil
		}
	}
}

func (i *idle) test(t *testing.T) {
	timer := time.NewTimer(time.Until(i.since.Add(idleTime())))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
	for n, s := range i.sessions {
		t.Run(fmt.Sprintf("D11,K9: %s, idle for %v and longer, goes on", s.title, idleTime()), func(t *testing.T) {
			ctx := within(t, time.Minute)
			word := fmt.Sprintf("awake-%d", n)
			must(t, s.wake(ctx, word))
			if strings.HasPrefix(s.title, "exec") {
				must(t, s.expect(ctx, word))
			}
		})
	}
}
