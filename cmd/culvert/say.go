package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lines writes whole lines, from many goroutines.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, format+"\n", args...)
}

func (l *lines) object(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		text = strconv.AppendQuote(nil, err.Error())
	}
	l.printf("%s", text)
}

// said is a [slog.Handler] for people: one line with what is said and why, and what else
// there is to know in parentheses.
type said struct {
	to    *lines
	attrs []slog.Attr
}

// Enabled implements [slog.Handler].
func (s *said) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements [slog.Handler].
func (s *said) Handle(_ context.Context, r slog.Record) error {
	reason := ""
	var others []string
	add := func(a slog.Attr) bool {
		switch text := printable(a.Value.String()); a.Key {
		case "reason", "error":
			reason = ": " + text
		default:
			others = append(others, a.Key+" "+text)
		}
		return true
	}
	for _, a := range s.attrs {
		add(a)
	}
	r.Attrs(add)
	more := ""
	if len(others) > 0 {
		more = " (" + strings.Join(others, ", ") + ")"
	}
	s.to.printf("culvert: %s%s%s", printable(r.Message), more, reason)
	return nil
}

// WithAttrs implements [slog.Handler].
func (s *said) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &said{to: s.to, attrs: append(slices.Clip(s.attrs), attrs...)}
}

// WithGroup implements [slog.Handler]; a line for people has none.
func (s *said) WithGroup(string) slog.Handler { return s }

// logEvents makes JSON objects of a log, in the form of the other events of a command.
func logEvents(to *lines) slog.Handler {
	return slog.NewJSONHandler(lockedLines{to}, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.MessageKey {
				a.Key = "message"
			}
			return a
		},
	}).WithAttrs([]slog.Attr{slog.String("type", "log")})
}

// lockedLines writes what is a line already.
type lockedLines struct{ to *lines }

func (l lockedLines) Write(line []byte) (int, error) {
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	return l.to.w.Write(line)
}

// size writes a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for ; value >= unit && i < 4; i++ {
		value /= unit
	}
	return fmt.Sprintf("%.1f %s", value, []string{"KiB", "MiB", "GiB", "TiB", "PiB"}[i])
}

// short writes a duration for people, with three digits or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}
