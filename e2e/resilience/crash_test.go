package resilience

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// backWithin is how soon a request must succeed once a killed part is back.
const backWithin = time.Second

func testAgentCrash(t *testing.T, l *lab) {
	h := l.startHub(t, "agent-crash")
	agent := h.startAgent(t, "agent")
	c := h.caller(t, true)
	h.awaitServing(t, c)

	t.Run("N12: a stream that is open when the agent dies ends visibly, and a new one works", func(t *testing.T) {
		ctx := within(t, 2*time.Minute)
		watches := map[string]*watch{
			"HTTP/1.1": startWatch(ctx, t, h.caller(t, false)),
			"HTTP/2":   startWatch(ctx, t, h.caller(t, true)),
		}
		kubectl := startKubectlWatch(ctx, t, h.kubectl(t))
		pending := startPending(ctx, t, l, h)
		died := time.Now()
		must(t, agent.Kill9())
		for name, w := range watches {
			err := w.end(ctx)
			t.Logf("%s watch: %v after %v", name, err, time.Since(died).Round(time.Millisecond))
			if err == nil || err == io.EOF || errors.Is(err, context.DeadlineExceeded) { //nolint:errorlint // io.EOF comes bare
				t.Errorf("%s: the watch ended with %v, want an error that tells it from a complete answer", name, err)
			}
		}
		a, err := pending.wait(ctx)
		must(t, err)
		check(t, a.wantAway("tunnel"))
		code, stderr := kubectl.wait(t)
		t.Logf("kubectl get -w: exit code %d after %v: %s", code, time.Since(died).Round(time.Millisecond), stderr)
		l.inTime(t, "the end of the streams", time.Since(died), away)
		must(t, agent.Start(ctx))
		h.awaitServing(t, c)
		startWatch(ctx, t, h.caller(t, true))
	})

	t.Run("N12: after kill -9 of the agent callers get a 503, and a request succeeds within 1 s of its return", func(t *testing.T) {
		var answers, returns []time.Duration
		for i := range 5 {
			ctx := within(t, time.Minute)
			must(t, agent.Kill9())
			a, err := c.get(ctx, versionPath)
			must(t, err)
			check(t, a.wantAway("hub", "tunnel"))
			started := time.Now()
			must(t, agent.Start(ctx))
			back := c.firstSuccess(ctx, t).Sub(started)
			t.Logf("round %d: 503 after %v; back %v after the start of the process", i, a.took.Round(time.Millisecond), back.Round(time.Millisecond))
			answers, returns = append(answers, a.took), append(returns, back)
		}
		l.middleInTime(t, "the answer", answers, away)
		l.middleInTime(t, "the return", returns, backWithin)
	})
}

func testHubCrash(t *testing.T, l *lab) {
	h := l.startHub(t, "hub-crash")
	agent := h.startAgent(t, "agent")
	h.awaitServing(t, h.caller(t, true))

	t.Run("N12: after kill -9 of the hub a request succeeds within 1 s of its return", func(t *testing.T) {
		// The longer it is away, the longer the agent waits between attempts.
		returns := map[time.Duration][]time.Duration{}
		for i, gap := range slices.Repeat([]time.Duration{0, 500 * time.Millisecond, 3 * time.Second}, 3) {
			ctx := within(t, 2*time.Minute)
			c := h.caller(t, true)
			must(t, h.process.Kill9())
			if a, err := c.get(ctx, versionPath); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("while the hub is dead: %d, %v", a.status, err)
			}
			<-time.After(gap) // the time without a hub is what is tested
			must(t, h.process.Start(ctx))
			listening := h.awaitListening(t)
			back := c.firstSuccess(ctx, t).Sub(listening)
			t.Logf("round %d, away for %v: back %v after it listened", i, gap, back.Round(time.Millisecond))
			returns[gap] = append(returns[gap], back)
		}
		for gap, took := range returns {
			l.middleInTime(t, fmt.Sprintf("the return after %v", gap), took, backWithin)
		}
	})

	t.Run("N12: a hub that restarts while the agent is away still knows the cluster", func(t *testing.T) {
		ctx := within(t, 2*time.Minute)
		must(t, agent.Kill9())
		must(t, h.process.Kill9())
		must(t, h.process.Start(ctx))
		h.awaitListening(t)
		c := h.caller(t, true)
		a, err := c.get(ctx, versionPath)
		must(t, err)
		check(t, a.wantAway("hub"))
		a, err = c.get(ctx, strings.Replace(versionPath, clusterName, "never-seen", 1))
		must(t, err)
		if a.status != http.StatusNotFound {
			t.Errorf("a cluster that never joined: %d %s", a.status, a.body)
		}
	})
}

// firstSuccess sends requests, one after the other, until one succeeds, and
// returns when it did.
func (c *caller) firstSuccess(ctx context.Context, t *testing.T) time.Time {
	t.Helper()
	for {
		a, err := c.get(ctx, versionPath)
		if err == nil && a.status == http.StatusOK {
			return time.Now()
		}
		if ctx.Err() != nil {
			t.Fatalf("no request succeeded: %d %s, %v", a.status, a.body, err)
		}
	}
}

// watch is a raw watch of config maps.
type watch struct {
	lines *bufio.Reader
	ended chan error
}

// startWatch opens a watch and waits for its first event. The test's end closes
// it.
func startWatch(ctx context.Context, t *testing.T, c *caller) *watch {
	t.Helper()
	resp, err := c.open(ctx, http.MethodGet, configMaps+"?watch=1", nil)
	must(t, err)
	w := &watch{lines: bufio.NewReader(resp.Body), ended: make(chan error, 1)}
	line, err := w.lines.ReadString('\n')
	if err != nil || !strings.Contains(line, `"ADDED"`) {
		t.Fatalf("watch: %s: %q, %v", resp.Status, line, err)
	}
	go w.drain()
	t.Cleanup(func() { _ = resp.Body.Close() }) // may have failed before
	return w
}

// drain reads until the watch ends, and sends why.
func (w *watch) drain() {
	for {
		if _, err := w.lines.ReadString('\n'); err != nil {
			w.ended <- err
			return
		}
	}
}

func (w *watch) end(ctx context.Context) error {
	select {
	case err := <-w.ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the watch is still open: %w", ctx.Err())
	}
}

// kubectlWatch is a running "kubectl get -w".
type kubectlWatch struct {
	result chan error
	log    watchLog
}

// watchLog is kubectl's log, which tells when its watch was answered. It is read only
// after kubectl's end.
type watchLog struct {
	text     bytes.Buffer  // not embedded: its ReadFrom would take what Write has to see
	answered chan struct{} // closed then
}

// Write takes what kubectl says, a line at a time or more.
func (l *watchLog) Write(p []byte) (int, error) {
	n, err := l.text.Write(p)
	for line := range bytes.Lines(l.text.Bytes()) {
		if bytes.Contains(line, []byte("watch=true")) && bytes.Contains(line, []byte("200 OK")) {
			select {
			case <-l.answered:
			default:
				close(l.answered)
			}
		}
	}
	return n, err
}

// startKubectlWatch starts kubectl and waits until it has shown the first object and its
// watch was answered: between the two it has a list alone, whose repetition is no watch.
func startKubectlWatch(ctx context.Context, t *testing.T, kubectl testbed.Kubectl) *kubectlWatch {
	t.Helper()
	k := &kubectlWatch{result: make(chan error, 1), log: watchLog{answered: make(chan struct{})}}
	cmd := kubectl.Command(ctx, "get", "configmaps", "-w", "-o", "name", "-v=6")
	cmd.Stderr = &k.log
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	first, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.TrimSpace(first) != "configmap/first" {
		t.Fatalf("kubectl get -w = %q, %v", first, err)
	}
	select {
	case <-k.log.answered:
	case <-ctx.Done():
		t.Fatal("kubectl's watch was not answered")
	}
	go func() { k.result <- cmd.Wait() }()
	return k
}

// wait waits for kubectl's end and returns its exit code.
func (k *kubectlWatch) wait(t *testing.T) (int, string) {
	t.Helper()
	err := <-k.result // the command ends with its context
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0, k.log.text.String()
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode(), k.log.text.String()
	default:
		t.Fatalf("kubectl get -w did not end by itself: %v", err)
		return 0, ""
	}
}

// pending is a request that waits for an answer which never comes.
type pending struct {
	answer answer
	at     time.Time // when it was answered
	err    error
	done   chan struct{}
}

// startPending sends a POST, which nobody may repeat, to a service that does not
// answer, and waits until it got there.
func startPending(ctx context.Context, t *testing.T, l *lab, h *hub) *pending {
	t.Helper()
	arrived := make(chan struct{}, 1)
	path := l.serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		// The server notices the end of a connection once the body was read.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	p := &pending{done: make(chan struct{})}
	go p.run(ctx, h.caller(t, true), path)
	select {
	case <-arrived:
	case <-ctx.Done():
		t.Fatal("the request did not arrive at its target")
	}
	return p
}

func (p *pending) run(ctx context.Context, c *caller, path string) {
	defer close(p.done)
	p.answer, p.err = c.do(ctx, http.MethodPost, path+"/hang", strings.NewReader("once"))
	p.at = time.Now()
}

func (p *pending) wait(ctx context.Context) (answer, error) {
	select {
	case <-p.done:
		return p.answer, p.err
	case <-ctx.Done():
		return answer{}, errors.New("the request that was under way is still unanswered")
	}
}
