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

// input is one of the files that a value is made of. info is nil when it is
// optional and not there.
type input struct {
	path string
	data []byte
	info fs.FileInfo
}

// file is one that is followed.
type file struct {
	path     string
	optional bool // it need not be there
}

func required(paths ...string) []file {
	files := make([]file, 0, len(paths))
	for _, path := range paths {
		files = append(files, file{path: path})
	}
	return files
}

// followed is a value made of files, and made again when they change. get may be
// called by any number of goroutines.
type followed[T any] struct {
	what  string // for log lines
	files []file
	parse func([]input) (T, error)
	log   *slog.Logger
	start time.Time // next counts from here, so that a step of the clock does no harm

	current atomic.Pointer[T]
	next    atomic.Int64 // when files are looked at again, a time.Duration since start

	mu       sync.Mutex // guards what follows; held while files are read
	seen     []fs.FileInfo
	settled  bool     // seen is older than settleTime, so equal times mean equal content
	digest   [32]byte // of the content of current
	problem  error    // why the last reading failed; nil when it did not
	failures int64    // different problems so far
	read     time.Time
}

// follow reads the files for the first time.
func follow[T any](o options, parse func([]input) (T, error), files ...file) (*followed[T], error) {
	f := &followed[T]{what: o.name, files: files, parse: parse, log: o.log, start: time.Now()}
	inputs, err := f.readAll()
	if err != nil {
		return nil, err
	}
	value, err := parse(inputs)
	if err != nil {
		return nil, err
	}
	f.put(value, digestOf(inputs))
	f.next.Store(int64(checkInterval))
	return f, nil
}

// followLater starts with a value that is not from the files, because problem
// keeps them from being read.
func followLater[T any](o options, parse func([]input) (T, error), value T, problem error, files ...file) *followed[T] {
	f := &followed[T]{what: o.name, files: files, parse: parse, log: o.log, start: time.Now(), problem: problem, failures: 1}
	f.current.Store(&value)
	f.next.Store(int64(checkInterval))
	return f
}

func (f *followed[T]) put(value T, digest [32]byte) {
	f.current.Store(&value)
	f.digest, f.problem, f.read = digest, nil, time.Now()
}

func (f *followed[T]) paths() []string {
	paths := make([]string, 0, len(f.files))
	for _, file := range f.files {
		paths = append(paths, file.path)
	}
	return paths
}

// get returns the value. One caller a second looks at the files; the others get
// what is in force and never wait.
func (f *followed[T]) get() T {
	now := time.Since(f.start)
	if now >= time.Duration(f.next.Load()) && f.mu.TryLock() {
		f.next.Store(int64(now + checkInterval))
		f.refresh(false)
		f.mu.Unlock()
	}
	return *f.current.Load()
}

// reload reads the files at once, and returns why they cannot be used.
func (f *followed[T]) reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next.Store(int64(time.Since(f.start) + checkInterval))
	f.refresh(true)
	return f.problem
}

// status fills in what it knows.
func (f *followed[T]) status(s Status) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Name, s.Failures, s.Read = f.what, f.failures, f.read.UTC()
	for i, file := range f.files {
		if !file.optional || i < len(f.seen) && f.seen[i] != nil {
			s.Files = append(s.Files, file.path)
		}
	}
	if f.problem != nil {
		s.Err = f.problem.Error()
	}
	return s
}

// refresh is called with mu held.
func (f *followed[T]) refresh(force bool) {
	// While there is a problem it is not only a change of the files that may end
	// it: a certificate may become valid, a folder readable.
	if f.problem == nil && f.settled && !force {
		if infos, err := f.stat(); err == nil && sameFiles(infos, f.seen) {
			return
		}
	}
	inputs, err := f.readAll()
	if err != nil {
		f.report(err)
		return
	}
	digest := digestOf(inputs)
	if digest == f.digest && !f.read.IsZero() {
		// Touched, or put back to what is in force.
		f.problem = nil
		return
	}
	value, err := f.parse(inputs)
	if err != nil {
		f.report(err)
		return
	}
	f.put(value, digest)
	f.log.Info("reloaded from files", "what", f.what, "files", f.paths())
}

func (f *followed[T]) report(err error) {
	known := f.problem != nil && f.problem.Error() == err.Error()
	f.problem = err
	if known {
		return
	}
	f.failures++
	f.log.Error("changed files cannot be used, what was loaded before stays in force", "what", f.what, "files", f.paths(), "err", err)
}

// readAll returns the content of all files as they were at one time, as far as
// their times can tell: what was swapped in between is read again.
func (f *followed[T]) readAll() ([]input, error) {
	const attempts = 5
	var gone error
	for range attempts {
		before, err := f.stat()
		if err != nil {
			return nil, err
		}
		inputs := make([]input, len(f.files))
		infos := make([]fs.FileInfo, len(f.files))
		var failed error
		for i, file := range f.files {
			data, info, err := readFile(file.path)
			if file.optional && errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			failed = errors.Join(failed, err)
			inputs[i], infos[i] = input{file.path, data, info}, info
		}
		after, err := f.stat()
		if failed = errors.Join(failed, err); errors.Is(failed, fs.ErrNotExist) {
			gone = failed
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
	return nil, errors.Join(fmt.Errorf("%s: changing while they are read", strings.Join(f.paths(), ", ")), gone)
}

// stat has nil for an optional file that is not there.
func (f *followed[T]) stat() ([]fs.FileInfo, error) {
	infos := make([]fs.FileInfo, len(f.files))
	for i, file := range f.files {
		info, err := os.Stat(file.path)
		if file.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
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
		if a[i] == nil || b[i] == nil {
			if a[i] != b[i] {
				return false
			}
			continue
		}
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

func settled(infos []fs.FileInfo, now time.Time) bool {
	for _, info := range infos {
		if info != nil && now.Sub(info.ModTime()) < settleTime {
			return false
		}
	}
	return true
}

func digestOf(inputs []input) [32]byte {
	h := sha256.New()
	for _, in := range inputs {
		// A file that is not there is not an empty one, and the mode of a key counts.
		if in.info != nil {
			fmt.Fprintf(h, "%o ", in.info.Mode().Perm())
		}
		sum := sha256.Sum256(in.data)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}
