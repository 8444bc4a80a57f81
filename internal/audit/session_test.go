package audit

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSession(t *testing.T) {
	interval := metav1.Duration{Duration: time.Minute}
	t.Run("N11: a session has a line at its start, every interval, and at its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			l := open(t, Config{Stdout: &StdoutConfig{}, Interval: interval}, Options{Stdout: out})
			var sent int64
			event := &Event{Start: time.Now(), RequestID: "r", User: Identity{Name: "alice"}, Target: "tcp db:5432", Path: "/x?token=y"}
			s := l.Begin(event, func(e *Event) { sent += 100; e.Sent = sent })
			event.RequestID = "of the caller"
			time.Sleep(150 * time.Second)
			s.End(func(e *Event) { e.End = EndCompleted; e.Status = 101 })
			s.End(func(e *Event) { e.End = "twice" })
			time.Sleep(time.Hour)
			shut(t, l)
			var stages []string
			for i, e := range out.lines(t) {
				stages = append(stages, e.Stage)
				if e.SessionID == "" || e.SessionID != s.ID() || e.RequestID != "r" || e.User.Name != "alice" || e.Path != "/x" || e.Sent != int64(100*i) {
					t.Errorf("%+v", e)
				}
				if e.Stage == "session-end" && (e.End != "completed" || e.Status != 101 || e.Duration != 150) {
					t.Errorf("%+v", e)
				}
			}
			if got := strings.Join(stages, " "); got != "session-start session-interval session-interval session-end" {
				t.Error(got)
			}
		})
	})
	t.Run("N11: no line of an interval comes after the end, whoever races", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			out := &pipe{}
			l := open(t, Config{Stdout: &StdoutConfig{}, Interval: interval}, Options{Stdout: out})
			for range 200 {
				s := l.Begin(&Event{}, nil)
				go s.End(nil)
				go s.tick()
			}
			synctest.Wait()
			shut(t, l)
			ended := map[string]bool{}
			for _, e := range out.lines(t) {
				if ended[e.SessionID] {
					t.Errorf("%s of a session that has ended", e.Stage)
				}
				ended[e.SessionID] = e.Stage == "session-end"
			}
			if len(ended) != 200 {
				t.Errorf("%d sessions", len(ended))
			}
		})
	})
	t.Run("N11: a session that its caller named keeps that, and holds no more of long texts than it shows", func(t *testing.T) {
		l := open(t, Config{Stdout: &StdoutConfig{}}, Options{Stdout: io.Discard})
		defer shut(t, l)
		s := l.Begin(&Event{SessionID: "mine", Path: "/" + strings.Repeat("x", 1<<20)}, nil)
		if s.ID() != "mine" || len(s.event.Path) > 3*maxPath {
			t.Errorf("%q, a path of %d bytes", s.ID(), len(s.event.Path))
		}
		s.End(nil)
	})
}
