package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"k8s.io/apimachinery/pkg/api/resource"
)

// pipe is a standard output whose reader can stop and fail.
type pipe struct {
	mu   sync.Mutex
	text bytes.Buffer
	// stopped is closed when reading goes on; nil while it does.
	stopped chan struct{}
	fail    error
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		// Some of it got through.
		n, _ := p.text.Write(b[:len(b)/2])
		return n, p.fail
	}
	return p.text.Write(b)
}

func (p *pipe) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = make(chan struct{})
}

func (p *pipe) goOn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.stopped)
	p.stopped = nil
}

func (p *pipe) failWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

func (p *pipe) lines(t *testing.T) []decoded {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []decoded
	for l := range strings.Lines(p.text.String()) {
		found = append(found, decode(t, l))
	}
	return found
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t *testing.T, cfg Config, opts Options) *Log {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quiet()
	}
	l, err := New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestNoSinks(t *testing.T) {
	t.Run("without sinks there is no log, and everything can be called", func(t *testing.T) {
		l, err := New(Config{}, Options{})
		if l != nil || err != nil {
			t.Fatalf("%v, %v", l, err)
		}
		l.Record(&Event{})
		l.Unblock()
		l.Begin(&Event{}, nil).End(nil)
		if id := l.Begin(&Event{}, nil).ID(); id != "" {
			t.Errorf("id %q", id)
		}
		if err := errors.Join(l.Admit(t.Context()), l.Flush(t.Context()), l.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

func TestRecord(t *testing.T) {
	t.Run("D8: events are written in order within 20 ms, with the hub's name", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: out, Hub: "hub-0"})
			defer shut(t, l)
			for i := range 10 {
				l.Record(&Event{Stage: StageRequest, Status: 200 + i})
			}
			time.Sleep(gather)
			synctest.Wait()
			got := out.lines(t)
			if len(got) != 10 || got[9].Status != 209 || got[0].Hub != "hub-0" {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("D8: what is queued is written at the end, and nothing after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: out})
			l.Record(&Event{Stage: StageRequest})
			start := time.Now()
			shut(t, l)
			shut(t, l)
			l.Record(&Event{Stage: StageRequest})
			if n := len(out.lines(t)); n != 1 || time.Since(start) != 0 || l.drains[0].dropped.Load() != 1 {
				t.Errorf("%d lines after %v, %d dropped", n, time.Since(start), l.drains[0].dropped.Load())
			}
		})
	})
	t.Run("D8: many at once are all written, each as a whole", func(t *testing.T) {
		out := &pipe{}
		l := open(t, Config{Stdout: &StdoutConfig{WhenFull: WhenFullBlock}, Queue: *resource.NewQuantity(LeastQueue, resource.BinarySI)}, Options{Stdout: out})
		const callers, each = 8, 500
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					l.Record(typical())
				}
			})
		}
		wg.Wait()
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(out.lines(t)); n != callers*each {
			t.Errorf("%d lines", n)
		}
		shut(t, l)
	})
	t.Run("N11: an event costs no allocation", func(t *testing.T) {
		l := open(t, Config{Stdout: &StdoutConfig{WhenFull: WhenFullBlock}}, Options{Stdout: io.Discard})
		defer shut(t, l)
		e := typical()
		l.Record(e)
		if n := testing.AllocsPerRun(1000, func() { l.Record(e) }); n > 2 {
			t.Errorf("%v allocations", n)
		}
	})
}

// full lets the queue of a stopped pipe run full, and returns how many events
// that took.
func full(t *testing.T, l *Log) int {
	t.Helper()
	n := 0
	for l.drains[0].queue.full() == nil {
		l.Record(typical())
		n++
	}
	return n
}

var small = *resource.NewQuantity(LeastQueue, resource.BinarySI)

func TestDrop(t *testing.T) {
	t.Run("N11: a full sink loses events, counts them in the next line and in a metric, and nobody waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			reader := sdkmetric.NewManualReader()
			provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
			out := &pipe{}
			out.stop()
			l := open(t, Config{Stdout: &StdoutConfig{}, Queue: small},
				Options{Stdout: out, Meters: provider, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			l.Record(typical())
			time.Sleep(gather)
			synctest.Wait() // the writer is in a write that does not end
			start := time.Now()
			queued := full(t, l)
			for range 1000 {
				l.Record(typical())
			}
			if err := l.Admit(t.Context()); err != nil {
				t.Errorf("nobody waits: %v", err)
			}
			bytes, lines, missed := l.drains[0].queue.state()
			if time.Since(start) != 0 || bytes > LeastQueue || lines == 0 {
				t.Errorf("%v, %d bytes and %d lines are queued", time.Since(start), bytes, lines)
			}
			out.goOn()
			time.Sleep(gather)
			synctest.Wait()
			l.Record(&Event{Stage: StageRequest, RequestID: "next"})
			l.Record(&Event{Stage: StageRequest, RequestID: "after"})
			shut(t, l)
			got := out.lines(t)
			if missed == 0 || got[len(got)-2].Dropped != missed || got[len(got)-1].Dropped != 0 {
				t.Errorf("%d were lost, the next line says %d, the one after it %d", missed, got[len(got)-2].Dropped, got[len(got)-1].Dropped)
			}
			if len(got) < queued || uint64(len(got))+missed != 1+uint64(queued)+1000+2 {
				t.Errorf("%d lines and %d lost", len(got), missed)
			}
			if n := l.drains[0].dropped.Load(); n != missed || !strings.Contains(log.String(), fmt.Sprintf("are lost\" sink=stdout events=%d\n", missed)) {
				t.Errorf("%d dropped by the metric, the log says %s", n, log.String())
			}
			// The log is closed and its metrics are gone with it.
			var collected metricdata.ResourceMetrics
			if err := reader.Collect(t.Context(), &collected); err != nil || len(sums(collected)) != 0 {
				t.Errorf("%v, %v", sums(collected), err)
			}
			if err := provider.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("N11: the metrics are there while the log is open", func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: io.Discard, Meters: provider})
		l.Record(typical())
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		var collected metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &collected); err != nil {
			t.Error(err)
		}
		got := sums(collected)
		for name, want := range map[string]int64{
			"culvert.audit.events": 1, "culvert.audit.dropped": 0, "culvert.audit.write.failures": 0, "culvert.audit.queue": 0,
		} {
			if n, ok := got[name]; !ok || n != want {
				t.Errorf("%s is %d, %v", name, n, ok)
			}
		}
		shut(t, l)
	})
}

// sums returns the values of metrics with one series each.
func sums(m metricdata.ResourceMetrics) map[string]int64 {
	found := map[string]int64{}
	for _, scope := range m.ScopeMetrics {
		for _, one := range scope.Metrics {
			switch data := one.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					found[one.Name] += p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					found[one.Name] += p.Value
				}
			}
		}
	}
	return found
}

func TestFailingSink(t *testing.T) {
	t.Run("N11: a sink that fails is tried again with growing pauses, and nothing is lost or torn", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			out := &pipe{fail: errors.New("no space left")}
			l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: out, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			for range 100 {
				l.Record(typical())
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := l.drains[0].failures.Load(); n < 5 || n > 20 {
				t.Errorf("%d attempts in a minute", n)
			}
			out.failWith(nil)
			time.Sleep(maxPause)
			synctest.Wait()
			if n := len(out.lines(t)); n != 100 {
				t.Errorf("%d lines", n)
			}
			shut(t, l)
			text := log.String()
			if strings.Count(text, "\n") != 2 || !strings.Contains(text, "does not work") || !strings.Contains(text, "works again") ||
				!strings.Contains(text, "sink=stdout") || !strings.Contains(text, "no space left") {
				t.Errorf("it logged\n%s", text)
			}
		})
	})
	t.Run("N11: the end of one that fails for ever is bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{fail: errors.New("no space left")}
			l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: out})
			l.Record(typical())
			time.Sleep(time.Minute)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			err := l.Close(ctx)
			if time.Since(start) != time.Second || err == nil || !strings.Contains(err.Error(), "close audit stdout: 1 events are not written") {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			if n := l.drains[0].dropped.Load(); n != 1 {
				t.Errorf("%d dropped", n)
			}
		})
	})
}
