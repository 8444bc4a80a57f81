package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// recordFile copies the events of in to the file at path and shows them on out.
func recordFile(in io.Reader, out io.Writer, path string, live bool) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("rows record: %w", err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("rows record: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return (&recorder{store: file, out: out, progress: os.Stderr, live: live, silence: silence}).run(in)
}

// silence is after how long without an event the run says that it goes on: the
// first run compiles everything, and go test says nothing while it does.
const silence = 15 * time.Second

// line is what one read gave.
type line struct {
	text []byte
	err  error
}

// readLines sends the lines of in, the last one with the error that ended it. It
// ends with in, or when done is closed.
func readLines(in io.Reader, lines chan<- line, done <-chan struct{}) {
	r := bufio.NewReader(in)
	for {
		text, err := r.ReadBytes('\n')
		select {
		case lines <- line{text, err}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// recorder stores a run and shows it.
type recorder struct {
	store, out io.Writer
	// progress hears that the run goes on after silence without an event.
	progress io.Writer
	silence  time.Duration
	live     bool
}

// run copies every line of in to the store at once, so that a run which is cut
// short leaves what it had.
func (r *recorder) run(in io.Reader) error {
	show := newPrinter(r.out, r.live)
	lines, done := make(chan line), make(chan struct{})
	defer close(done)
	go readLines(in, lines, done)
	start := time.Now()
	quiet := time.NewTicker(r.silence)
	defer quiet.Stop()
	for {
		var l line
		select {
		case l = <-lines:
			quiet.Reset(r.silence)
		case <-quiet.C:
			if _, err := fmt.Fprintf(r.progress, "… building or running, %v so far (the first run compiles everything)\n",
				time.Since(start).Round(time.Second)); err != nil {
				return fmt.Errorf("rows record: %w", err)
			}
			continue
		}
		if err := r.take(l.text, show); err != nil {
			return err
		}
		if l.err != nil {
			if errors.Is(l.err, io.EOF) {
				l.err = nil
				show.end()
			}
			return errors.Join(l.err, show.err)
		}
	}
}

// take stores and shows one line, which may be empty.
func (r *recorder) take(text []byte, show *printer) error {
	if len(text) == 0 {
		return nil
	}
	e, ok, err := parseEvent(text)
	if err != nil {
		return fmt.Errorf("rows record: %w", err)
	}
	if !ok {
		show.text(string(text))
		return nil
	}
	if _, err := r.store.Write(text); err != nil {
		return fmt.Errorf("rows record: %w", err)
	}
	show.event(e)
	return nil
}
