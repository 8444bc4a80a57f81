package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// backupTime is in the names of rotated files: it sorts, and holds on file
// systems that know no colon.
const backupTime = "2006-01-02T15-04-05.000000"

// sweepEvery is how often the age of rotated files is looked at.
const sweepEvery = time.Hour

// file is a file that rotates itself. One goroutine uses it.
type file struct {
	path       string
	maxSize    int64
	maxAge     time.Duration
	maxBackups int

	f    *os.File
	size int64
	// torn means that the last write ended within a line, whose rest is to follow
	// in the same file.
	torn  bool
	swept time.Time
	// rotated is the time in the name of the last rotated file. Names go on from
	// it even if the clock does not: the oldest are deleted first.
	rotated time.Time
}

func openFile(cfg FileConfig) (*file, error) {
	f := &file{
		path: cfg.Path, maxSize: orSize(cfg.MaxSize, DefaultMaxSize), maxAge: cfg.MaxAge.Duration, maxBackups: cfg.MaxBackups,
	}
	if f.maxBackups == 0 {
		f.maxBackups = DefaultMaxBackups
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return nil, err
	}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// open opens or creates the file and sees that it ends with a whole line.
func (f *file) open() error {
	opened, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := opened.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", f.path)
	}
	if err == nil {
		f.f, f.size, f.torn = opened, info.Size(), false
		err = f.mend()
	}
	if err != nil {
		f.f = nil
		return errors.Join(err, opened.Close())
	}
	return nil
}

// mend ends the line that a process left unfinished when it was killed, so that
// the next one is a line of its own.
func (f *file) mend() error {
	if f.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.f.ReadAt(last[:], f.size-1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	n, err := f.f.Write([]byte{'\n'})
	f.size += int64(n)
	return err
}

// write implements sink: it takes what fits into this file, and at least a line.
func (f *file) write(_ context.Context, p []byte) (int, error) {
	if !f.torn {
		if err := f.prepare(p); err != nil {
			return 0, err
		}
	}
	p = fitting(p, f.maxSize-f.size)
	n, err := f.f.Write(p)
	f.size += int64(n)
	if n > 0 {
		f.torn = p[n-1] != '\n'
	}
	return n, err
}

// fitting returns the lines at the start of p that have room, at least one.
func fitting(p []byte, room int64) []byte {
	if int64(len(p)) <= room {
		return p
	}
	if end := bytes.LastIndexByte(p[:max(room, 0)], '\n'); end >= 0 {
		return p[:end+1]
	}
	return p[:bytes.IndexByte(p, '\n')+1]
}

// prepare sees that the file is open, is the one at its path, and has room for
// the first line of p.
func (f *file) prepare(p []byte) error {
	if f.f != nil {
		gone, err := f.gone()
		if err != nil {
			return err
		}
		if gone {
			if err := f.shut(); err != nil {
				return err
			}
		}
	}
	if f.f == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	first := int64(bytes.IndexByte(p, '\n') + 1)
	if f.size > 0 && f.size+first > f.maxSize {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	if now := time.Now(); now.Sub(f.swept) >= sweepEvery {
		f.swept = now
		return f.sweep(now)
	}
	return nil
}

// gone reports whether somebody else moved the file away or deleted it.
func (f *file) gone() (bool, error) {
	at, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := f.f.Stat()
	if err != nil {
		return false, err
	}
	return !os.SameFile(at, mine), nil
}

// rotate gives the file its own name and begins a new one.
func (f *file) rotate() error {
	if err := f.shut(); err != nil {
		return err
	}
	at := time.Now().UTC().Truncate(time.Microsecond)
	if !at.After(f.rotated) {
		at = f.rotated.Add(time.Microsecond)
	}
	backup := f.backup(at)
	for {
		if _, err := os.Lstat(backup); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		at = at.Add(time.Microsecond)
		backup = f.backup(at)
	}
	f.rotated = at
	if err := os.Rename(f.path, backup); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// There is one more: the next look at their number and age is now.
	f.swept = time.Time{}
	return f.open()
}

// shut writes the file to disk and closes it.
func (f *file) shut() error {
	closing := f.f
	f.f = nil
	return errors.Join(closing.Sync(), closing.Close())
}

// backup returns the name of the file that is rotated at a time.
func (f *file) backup(at time.Time) string {
	ext := filepath.Ext(f.path)
	return strings.TrimSuffix(f.path, ext) + "-" + at.Format(backupTime) + ext
}

// backupOf returns when the file of that name was rotated, if it is one of ours.
func (f *file) backupOf(name string) (time.Time, bool) {
	ext := filepath.Ext(f.path)
	prefix := strings.TrimSuffix(filepath.Base(f.path), ext) + "-"
	if !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, ext) || len(name) != len(prefix)+len(backupTime)+len(ext) {
		return time.Time{}, false
	}
	at, err := time.Parse(backupTime, name[len(prefix):len(prefix)+len(backupTime)])
	return at, err == nil
}

// sweep deletes rotated files that are too many or too old.
func (f *file) sweep(now time.Time) error {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	type backup struct {
		name string
		at   time.Time
	}
	var found []backup
	for _, entry := range entries {
		if at, ok := f.backupOf(entry.Name()); ok && entry.Type().IsRegular() {
			found = append(found, backup{entry.Name(), at})
		}
	}
	slices.SortFunc(found, func(a, b backup) int { return b.at.Compare(a.at) })
	var failed []error
	for i, b := range found {
		tooMany := f.maxBackups >= 0 && i >= f.maxBackups
		tooOld := f.maxAge > 0 && now.Sub(b.at) > f.maxAge
		if !tooMany && !tooOld {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(f.path), b.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	return f.shut()
}
