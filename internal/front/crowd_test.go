package front

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(3, patience)
		done := make(chan struct{})
		cut := map[string]time.Duration{}
		start := time.Now()
		enter := func(name string) *waiting {
			return c.enter(done, func(error) { cut[name] = time.Since(start) })
		}
		silent, talks, third := enter("silent"), enter("talks"), enter("third")
		time.Sleep(time.Second)
		talks.hear()
		third.leave()
		if d := time.Since(start); len(cut) != 0 || d != time.Second {
			t.Fatalf("there was a place after %v: cut %v", d, cut)
		}
		enter("fourth")
		enter("fifth") // waits until the silent one's patience is over
		if len(cut) != 1 || cut["silent"] != patience {
			t.Fatalf("cut %v, want the silent one after %v", cut, patience)
		}
		silent.leave() // its goroutine ends later
		enter("sixth")
		if len(cut) != 2 || cut["talks"] != time.Second+patience && cut["fourth"] != time.Second+patience {
			t.Errorf("cut %v, want who was silent longest, %v after the start", cut, time.Second+patience)
		}
		close(done)
		if c.enter(done, func(error) {}) != nil && c.all.Len() > c.most {
			t.Error("more than the bound")
		}
		if n := c.all.Len(); n > 3 {
			t.Errorf("%d in a crowd of 3", n)
		}
	})
	t.Run("a place that becomes free is taken at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(1, patience)
			first := c.enter(nil, func(error) { t.Error("cut while it had time") })
			start := time.Now()
			go func() {
				time.Sleep(time.Millisecond)
				first.leave()
			}()
			if c.enter(nil, func(error) {}) == nil || time.Since(start) != time.Millisecond {
				t.Errorf("after %v", time.Since(start))
			}
		})
	})
	t.Run("the end of the port ends the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(1, patience)
			c.enter(nil, func(error) {})
			done := make(chan struct{})
			close(done)
			if c.enter(done, func(error) {}) != nil {
				t.Error("it entered")
			}
		})
	})
}
