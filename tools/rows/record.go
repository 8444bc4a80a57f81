package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	return record(in, file, out, live)
}

// record copies every line of in to store at once, so that a run which is cut
// short leaves what it had, and shows the run on out.
func record(in io.Reader, store, out io.Writer, live bool) error {
	show := newPrinter(out, live)
	lines := bufio.NewReader(in)
	for {
		line, readErr := lines.ReadBytes('\n')
		if len(line) > 0 {
			e, ok, err := parseEvent(line)
			switch {
			case err != nil:
				return fmt.Errorf("rows record: %w", err)
			case !ok:
				show.text(string(line))
			default:
				if _, err := store.Write(line); err != nil {
					return fmt.Errorf("rows record: %w", err)
				}
				show.event(e)
			}
		}
		if readErr != nil {
			if errors.Is(readErr, io.EOF) {
				readErr = nil
				show.end()
			}
			return errors.Join(readErr, show.err)
		}
	}
}
