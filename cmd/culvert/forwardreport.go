package main

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/forward"
)

// repeatAfter is when a failure is said again that was the last one said.
const repeatAfter = 10 * time.Second

// reportFlags say what a command with listeners tells of them.
type reportFlags struct {
	form    string
	verbose bool
}

func (f *reportFlags) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.form, "output", "o", "text", "form of what is printed: text, or json for an object a line")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print each connection; without it only what fails")
	completeWords(cmd, "output", "text", formJSON)
}

// report tells what listeners do. Its methods are safe for concurrent use.
type report struct {
	json, verbose, person bool
	out, err              *lines
	started               time.Time

	mu             sync.Mutex // guards what follows
	connections    int
	sent, received int64
	failure        string    // the last that was said
	failed         time.Time // when
}

func (f *reportFlags) check() error {
	if f.form != "text" && f.form != formJSON {
		return fmt.Errorf("--output: %q is not text or json", f.form)
	}
	return nil
}

// open returns the report. Where standard output is taken, by a command, everything goes
// to standard error.
func (f *reportFlags) open(cmd *cobra.Command, taken bool) *report {
	r := &report{
		json: f.form == formJSON, verbose: f.verbose, person: isTerminal(cmd.ErrOrStderr()),
		err: &lines{w: cmd.ErrOrStderr()}, started: time.Now(),
	}
	if r.out = r.err; !taken {
		r.out = &lines{w: cmd.OutOrStdout()}
	}
	return r
}

// log is where the client says that the connection is lost, and that it is back.
func (r *report) log() slog.Handler {
	if r.json {
		return logEvents(r.out)
	}
	return &said{to: r.err}
}

func (r *report) warn(text string) {
	r.err.printf("warning: %s", text)
}

// ready prints a line for each listener.
func (r *report) ready(listeners []forward.Listener) {
	warnExposed(r, listeners)
	for _, l := range listeners {
		if r.json {
			r.out.object(struct {
				Type   string `json:"type"`
				Listen string `json:"listen"`
				forward.Destination
			}{"listening", l.Addr().String(), l.To})
			continue
		}
		r.out.printf("%s -> %s", l.Addr(), printable(l.To.String()))
	}
}

// connectionEvent is an event in JSON.
type connectionEvent struct {
	Type       string `json:"type"`
	Connection uint64 `json:"connection,omitempty"`
	Listen     string `json:"listen"`
	From       string `json:"from,omitempty"`
	forward.Destination
	Sent     int64   `json:"sent,omitempty"`
	Received int64   `json:"received,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// observe is told of connections.
func (r *report) observe(e forward.Event) {
	r.count(e)
	if r.json {
		out := connectionEvent{
			Type: string(e.Kind), Connection: e.ID, Listen: e.Listen, From: e.From, Destination: e.To,
			Sent: e.Sent, Received: e.Received, Seconds: e.Took.Seconds(),
		}
		if e.Err != nil {
			out.Error = e.Err.Error()
		}
		r.out.object(out)
		return
	}
	text := ""
	switch e.Kind {
	case forward.Broken:
		text = fmt.Sprintf("%s cannot accept a connection, trying again", e.Listen)
	case forward.Opened:
		text = fmt.Sprintf("#%d %s -> %s opened", e.ID, from(e), printable(e.To.String()))
	case forward.Closed:
		text = fmt.Sprintf("#%d -> %s closed after %s, %s sent, %s received", e.ID, printable(e.To.String()), short(e.Took), size(e.Sent), size(e.Received))
	case forward.Refused:
		text = fmt.Sprintf("#%d %s refused", e.ID, from(e))
	}
	switch {
	case e.Err != nil && (r.verbose || r.news(e.Err.Error())):
		r.err.printf("%s: %s", text, printable(exitcode.Text(e.Err)))
	case e.Err == nil && r.verbose:
		r.out.printf("%s", text)
	}
}

// from is the peer's address; that of a Unix socket has none.
func from(e forward.Event) string {
	if e.From == "" || e.From == "@" {
		return e.Listen
	}
	return e.From
}

func (r *report) count(e forward.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == forward.Opened {
		r.connections++
	}
	r.sent, r.received = r.sent+e.Sent, r.received+e.Received
}

// news tells whether a failure has to be said: a program that tries again and again
// gets one line.
func (r *report) news(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text == r.failure && time.Since(r.failed) < repeatAfter {
		return false
	}
	r.failure, r.failed = text, time.Now()
	return true
}

// summary says at the end what was carried, to a person.
func (r *report) summary() {
	if !r.person || r.json {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err.printf("carried %s in %s: %s sent, %s received", counted(r.connections, "connection"), span(time.Since(r.started)), size(r.sent), size(r.received))
}
