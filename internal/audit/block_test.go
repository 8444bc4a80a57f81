package audit

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestBlock(t *testing.T) {
	t.Run("N11: what cannot be recorded does not begin, and what was under way waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			out.stop()
			l := open(t, Config{Stdout: &StdoutConfig{WhenFull: WhenFullBlock}, Queue: small}, Options{Stdout: out})
			l.Record(typical())
			time.Sleep(gather)
			synctest.Wait()
			queued := full(t, l)
			start := time.Now()
			err := l.Admit(t.Context())
			f := fault.As(err)
			if f == nil || f.Hop != wire.HopHub || f.Code != wire.CodeUnavailable || f.RetryAfter != admitTimeout || time.Since(start) != admitTimeout {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			if f != nil && !strings.Contains(f.Error(), "the audit stdout takes no events") {
				t.Error(f)
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			if f := fault.As(l.Admit(gone)); f == nil || f.Code != wire.CodeCanceled {
				t.Errorf("a caller that is gone: %v", f)
			}

			// More than there is room for, so that the last ones wait.
			const late = 200
			var wg sync.WaitGroup
			var admitted error
			wg.Go(func() {
				for range late {
					l.Record(typical())
				}
			})
			wg.Go(func() { admitted = l.Admit(t.Context()) })
			time.Sleep(time.Second)
			synctest.Wait()
			out.goOn()
			wg.Wait()
			if admitted != nil {
				t.Error(admitted)
			}
			shut(t, l)
			if n := len(out.lines(t)); n != 1+queued+late || l.drains[0].dropped.Load() != 0 {
				t.Errorf("%d lines, %d dropped", n, l.drains[0].dropped.Load())
			}
		})
	})
	t.Run("N11: whoever waits for a full sink can be let go before the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			out.stop()
			l := open(t, Config{Stdout: &StdoutConfig{WhenFull: WhenFullBlock}, Queue: small}, Options{Stdout: out})
			l.Record(typical())
			time.Sleep(gather)
			synctest.Wait()
			queued := full(t, l)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 200 {
					l.Record(typical())
				}
			})
			synctest.Wait()
			l.Unblock()
			wg.Wait()
			if err := l.Admit(t.Context()); err != nil {
				t.Error(err)
			}
			out.goOn()
			shut(t, l)
			if n, lost := len(out.lines(t)), l.drains[0].dropped.Load(); lost == 0 || n+int(lost) != 1+queued+200 {
				t.Errorf("%d lines, %d lost", n, lost)
			}
		})
	})
	t.Run("N11: the end wakes those that wait, is bounded, and says what was lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			out.stop()
			l := open(t, Config{Stdout: &StdoutConfig{WhenFull: WhenFullBlock}, Queue: small}, Options{Stdout: out})
			l.Record(typical())
			time.Sleep(gather)
			synctest.Wait()
			full(t, l)
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 100 {
					l.Record(typical())
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			start := time.Now()
			err := l.Close(ctx)
			wg.Wait()
			if took := time.Since(start); took != 3*time.Second+endGrace || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "events are not written") {
				t.Errorf("after %v: %v", took, err)
			}
			out.goOn() // what the process' end does
		})
	})
	t.Run("waiting to flush ends with the caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			out.stop()
			l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: out})
			l.Record(typical())
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := l.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			out.goOn()
			if err := l.Flush(t.Context()); err != nil {
				t.Error(err)
			}
			shut(t, l)
		})
	})
}
