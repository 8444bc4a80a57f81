package splice_test

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/culvertdev/culvert/internal/mux/muxtest"
	"github.com/culvertdev/culvert/internal/splice"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestCutIdle(t *testing.T) {
	const idle = time.Hour
	t.Run("a session without traffic is cut after the time, not before, and not much later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pair := muxtest.New(t)
			ours, theirs := pair.Open(t)
			start := time.Now()
			defer splice.CutIdle(ours, idle, wire.HopHub)()
			if _, err := io.ReadAll(theirs); err == nil {
				t.Error("a clean end")
			}
			if after := time.Since(start); after < idle || after > idle+idle/8 {
				t.Errorf("cut after %v", after)
			}
			pair.Stop()
		})
	})
	t.Run("traffic in either direction keeps it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pair := muxtest.New(t)
			ours, theirs := pair.Open(t)
			stop := splice.CutIdle(ours, idle, wire.HopHub)
			for i := range 6 {
				time.Sleep(idle - idle/8 - time.Minute)
				from, to := ours, theirs
				if i%2 == 1 {
					from, to = theirs, ours
				}
				if _, err := from.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			time.Sleep(3 * idle)
			if _, err := ours.Write([]byte("x")); err != nil {
				t.Errorf("cut after the watch had ended: %v", err)
			}
			pair.Stop()
		})
	})
}
