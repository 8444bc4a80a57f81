package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// colours are those of words that stand for a state.
var colours = map[string]string{
	"connected": green, "joined": green, "ok": green, "ADDED": green, "SYNCED": green,
	"away": red, "revoked": red, "expired": red, "DELETED": red,
	"pending": yellow, "used": yellow, "MODIFIED": yellow,
}

const (
	green  = "\x1b[32m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// coloured tells whether w gets colours: a terminal, and no NO_COLOR
// (https://no-color.org).
func coloured(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

const (
	// progressAfter is how long nothing is said: what is quick needs no word.
	progressAfter = 500 * time.Millisecond
	progressEvery = 120 * time.Millisecond
)

// progress says on a terminal what is waited for, until stop is called, and leaves no
// trace of it. Nobody else gets it.
func progress(w io.Writer, text string) (stop func()) {
	if !isTerminal(w) {
		return func() {}
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go showProgress(w, text, end, ended)
	return func() {
		close(end)
		<-ended
	}
}

// showProgress ends when end is closed.
func showProgress(w io.Writer, text string, end <-chan struct{}, ended chan<- struct{}) {
	defer close(ended)
	started := time.Now()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	shown := false
	for i := 0; ; i++ {
		select {
		case <-end:
			if shown {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		case <-tick.C:
			if took := time.Since(started); took >= progressAfter {
				shown = true
				fmt.Fprintf(w, "\r\x1b[K%c %s (%d s)", `|/-\`[i%4], text, int(took.Seconds()))
			}
		}
	}
}
