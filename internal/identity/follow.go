package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/telemetry"
)

const (
	// followInterval is how often a file is looked at, at most.
	followInterval = time.Second
	// followSettled is how old a file has to be before its times are trusted to
	// change with its content: clocks of file systems tick coarsely.
	followSettled = 2 * time.Second
)

// follower keeps what was made of a file up to date. There is no goroutine behind
// it: the first caller of a second looks at the file, the others get what is in
// force and never wait. It is safe for concurrent use.
type follower struct {
	// field and what are for errors and logs: the field that names the file, and
	// what it is.
	field, what string
	path        string
	limit       int64 // of the file, in bytes
	log         *slog.Logger
	// apply puts new content in force, or says why it cannot. It is called with mu
	// held, and returns what the log says of the content.
	apply func(data []byte, info fs.FileInfo) ([]any, error)
	start time.Time // next counts from here, so that a step of the clock does no harm

	next atomic.Int64 // when the file is looked at again, a time.Duration since start

	mu       sync.Mutex // guards what follows; held while the file is read
	loaded   bool
	seen     fs.FileInfo
	settled  bool // seen is old enough for equal times to mean equal content
	digest   [sha256.Size]byte
	problem  error // why the last reading failed; nil when it did not
	failures uint64
}

// open reads the file for the first time. Everything above start in f is set.
func (f *follower) open() error {
	f.start = time.Now()
	f.next.Store(int64(followInterval))
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.load()
}

// follow looks at the file when its time has come.
func (f *follower) follow() {
	now := time.Since(f.start)
	if now >= time.Duration(f.next.Load()) && f.mu.TryLock() {
		f.next.Store(int64(now + followInterval))
		f.refresh()
		f.mu.Unlock()
	}
}

// look looks at the file now, unless it was found bad within the interval, and
// returns why its content is not in force.
func (f *follower) look() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Since(f.start)
	if f.problem != nil && now < time.Duration(f.next.Load()) {
		return f.problem
	}
	f.next.Store(int64(now + followInterval))
	f.refresh()
	return f.problem
}

// reload reads the file now, whatever its times say, and returns why its content
// is not in force.
func (f *follower) reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = false
	f.refresh()
	return f.problem
}

// refresh is called with mu held, and reports what goes wrong once.
func (f *follower) refresh() {
	if f.problem == nil && f.settled {
		if info, err := os.Stat(f.path); err == nil && sameFile(info, f.seen) {
			return
		}
	}
	err := f.load()
	if err != nil && (f.problem == nil || f.problem.Error() != err.Error()) {
		f.failures++
		f.log.Error("changed file cannot be used, what was loaded before stays in force", "what", f.what, "file", f.path, "reason", err)
	}
	f.problem = err
}

// load is called with mu held.
func (f *follower) load() error {
	data, info, err := readWhole(f.path, f.limit)
	if err != nil {
		return fmt.Errorf("%s: %w", f.field, err)
	}
	digest := sha256.Sum256(data)
	if !f.loaded || digest != f.digest {
		said, err := f.apply(data, info)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", f.field, f.path, err)
		}
		if f.loaded {
			f.log.Info("reloaded from files", append([]any{"what", f.what, "files", []string{f.path}}, said...)...)
		}
	}
	f.loaded, f.digest = true, digest
	f.seen, f.settled = info, time.Since(info.ModTime()) >= followSettled
	return nil
}

// health looks at the file like a caller does: a bad one is reported also while
// nobody calls.
func (f *follower) health() telemetry.Health {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Since(f.start); now >= time.Duration(f.next.Load()) {
		f.next.Store(int64(now + followInterval))
		f.refresh()
	}
	h := telemetry.Health{Name: f.what, File: f.path, Failures: f.failures}
	if f.problem != nil {
		h.LastError = f.problem.Error()
	}
	return h
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// readWhole returns a file's content, and what it was when it was opened.
func readWhole(path string, limit int64) (data []byte, info fs.FileInfo, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	data, readErr := io.ReadAll(io.LimitReader(file, limit+1))
	info, statErr := file.Stat()
	if err := errors.Join(readErr, statErr, file.Close()); err != nil {
		return nil, nil, err
	}
	if int64(len(data)) > limit {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return data, info, nil
}
