package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

const (
	// defaultProfile and maxProfile are how long a CPU profile or a trace takes.
	defaultProfile = 30 * time.Second
	maxProfile     = 5 * time.Minute
)

// profile answers with a profile of the process in the form of go tool pprof, or
// with an execution trace. It does not use net/http/pprof, whose import alone
// would show the profiles on the default server of a program that embeds Culvert.
func (d *debugger) profile(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("profile")
	switch name {
	case "profile":
		d.timed(w, r, pprof.StartCPUProfile, pprof.StopCPUProfile)
		return
	case "trace":
		d.timed(w, r, trace.Start, trace.Stop)
		return
	}
	p := pprof.Lookup(name)
	if p == nil {
		http.Error(w, "there is no such profile", http.StatusNotFound)
		return
	}
	level, err := strconv.Atoi(r.URL.Query().Get("debug"))
	if err != nil || level < 0 || level > 2 {
		level = 0 // the binary form
	}
	var out bytes.Buffer
	if err := p.WriteTo(&out, level); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if level > 0 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	d.wrote(w.Write(out.Bytes()))
}

// timed records for as long as the request says, or until the asker goes.
func (d *debugger) timed(w http.ResponseWriter, r *http.Request, start func(io.Writer) error, stop func()) {
	long := defaultProfile
	if text := r.URL.Query().Get("seconds"); text != "" {
		n, err := strconv.ParseFloat(text, 64)
		if long = time.Duration(n * float64(time.Second)); err != nil || !(n > 0) || n > maxProfile.Seconds() {
			http.Error(w, fmt.Sprintf("seconds: give a number up to %v", maxProfile.Seconds()), http.StatusBadRequest)
			return
		}
	}
	// The read deadline as well: it would count as the asker's going.
	control, until := http.NewResponseController(w), time.Now().Add(long+answerTime)
	if err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until)); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var out bytes.Buffer
	if err := start(&out); err != nil {
		http.Error(w, err.Error(), http.StatusConflict) // another one is under way
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), long)
	<-ctx.Done()
	cancel()
	stop()
	w.Header().Set("Content-Type", "application/octet-stream")
	d.wrote(w.Write(out.Bytes()))
}
