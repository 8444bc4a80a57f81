package pki

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// checkInterval is how often files are looked at, at most.
const checkInterval = time.Second

// settleTime is how old a file has to be before its times are trusted to change
// with its content. Clocks of file systems tick coarsely, and a file may be
// written twice within a tick.
const settleTime = 2 * time.Second

// Option changes how certificates are loaded and followed.
type Option func(*options)

type options struct {
	log *slog.Logger
}

// WithLogger sets where reloads and bad files are reported. Default:
// slog.Default() at the time of loading.
func WithLogger(log *slog.Logger) Option {
	return func(o *options) { o.log = log }
}

func newOptions(opts []Option) options {
	o := options{log: slog.Default()}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// input is one of the files that a value is made of.
type input struct {
	path string
	data []byte
	info fs.FileInfo
}

// followed is a value made of files, and made again when they change. get may be
// called by any number of goroutines.
type followed[T any] struct {
	what  string // for log lines
	paths []string
	parse func([]input) (T, error)
	log   *slog.Logger
	start time.Time // next counts from here, so that a step of the clock does no harm

	current atomic.Pointer[T]
	next    atomic.Int64 // when files are looked at again, a time.Duration since start

	mu      sync.Mutex // guards what follows; held while files are read
	seen    []fs.FileInfo
	settled bool     // seen is older than settleTime, so equal times mean equal content
	digest  [32]byte // of the content of current
	problem string   // why the last reading failed; "" when it did not
}

// follow reads the files for the first time.
func follow[T any](what string, log *slog.Logger, parse func([]input) (T, error), paths ...string) (*followed[T], error) {
	f := &followed[T]{what: what, paths: paths, parse: parse, log: log, start: time.Now()}
	inputs, err := f.read()
	if err != nil {
		return nil, err
	}
	value, err := parse(inputs)
	if err != nil {
		return nil, err
	}
	f.current.Store(&value)
	f.digest = digestOf(inputs)
	f.next.Store(int64(checkInterval))
	return f, nil
}

// get returns the value. One caller a second looks at the files; the others get
// what is in force and never wait.
func (f *followed[T]) get() T {
	now := time.Since(f.start)
	if now >= time.Duration(f.next.Load()) && f.mu.TryLock() {
		f.next.Store(int64(now + checkInterval))
		f.refreshAndUnlock()
	}
	return *f.current.Load()
}

// refreshAndUnlock is called with mu held.
func (f *followed[T]) refreshAndUnlock() {
	defer f.mu.Unlock()
	// While there is a problem it is not only a change of the files that may end
	// it: a certificate may become valid, a folder readable.
	if f.problem == "" && f.settled {
		if infos, err := f.stat(); err == nil && sameFiles(infos, f.seen) {
			return
		}
	}
	inputs, err := f.read()
	if err != nil {
		f.report(err)
		return
	}
	digest := digestOf(inputs)
	if digest == f.digest {
		// Touched, or put back to what is in force.
		f.problem = ""
		return
	}
	value, err := f.parse(inputs)
	if err != nil {
		f.report(err)
		return
	}
	f.current.Store(&value)
	f.digest, f.problem = digest, ""
	f.log.Info("reloaded from files", "what", f.what, "files", f.paths)
}

func (f *followed[T]) report(err error) {
	if f.problem == err.Error() {
		return
	}
	f.problem = err.Error()
	f.log.Error("changed files cannot be used, what was loaded before stays in force", "what", f.what, "files", f.paths, "err", err)
}

// read returns the content of all files as they were at one time, as far as
// their times can tell: what was swapped in between is read again.
func (f *followed[T]) read() ([]input, error) {
	const attempts = 5
	for range attempts {
		before, err := f.stat()
		if err != nil {
			return nil, err
		}
		inputs := make([]input, len(f.paths))
		infos := make([]fs.FileInfo, len(f.paths))
		var failed error
		for i, path := range f.paths {
			data, info, err := readFile(path)
			failed = errors.Join(failed, err)
			inputs[i], infos[i] = input{path, data, info}, info
		}
		after, err := f.stat()
		if failed = errors.Join(failed, err); errors.Is(failed, fs.ErrNotExist) {
			continue // what stat saw a moment ago is gone: a swap
		}
		if failed != nil {
			return nil, failed
		}
		if sameFiles(before, infos) && sameFiles(infos, after) {
			f.seen, f.settled = after, settled(after, time.Now())
			return inputs, nil
		}
	}
	return nil, fmt.Errorf("%s: changing while they are read", strings.Join(f.paths, ", "))
}

func (f *followed[T]) stat() ([]fs.FileInfo, error) {
	infos := make([]fs.FileInfo, len(f.paths))
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		infos[i] = info
	}
	return infos, nil
}

func sameFiles(a, b []fs.FileInfo) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

func settled(infos []fs.FileInfo, now time.Time) bool {
	for _, info := range infos {
		if now.Sub(info.ModTime()) < settleTime {
			return false
		}
	}
	return true
}

func digestOf(inputs []input) [32]byte {
	h := sha256.New()
	for _, in := range inputs {
		sum := sha256.Sum256(in.data)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}
