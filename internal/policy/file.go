package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkInterval is how often a file is looked at, at most.
	checkInterval = time.Second
	// settleTime is how old a file has to be before its times are trusted to change
	// with its content: clocks of file systems tick coarsely.
	settleTime = 2 * time.Second
)

// File is the policy of a file that is followed. There is no goroutine behind it:
// the first request of a second looks at the file, the others get what is in force
// and never wait. A file that is bad in any way, or gone, leaves the policy before
// it in force. It is safe for concurrent use.
type File struct {
	path    string
	options Options
	log     *slog.Logger
	start   time.Time // next counts from here, so that a step of the clock does no harm

	current atomic.Pointer[Policy]
	next    atomic.Int64 // when the file is looked at again, a time.Duration since start

	mu       sync.Mutex // guards what follows; held while the file is read
	seen     fs.FileInfo
	settled  bool // seen is old enough for equal times to mean equal content
	digest   [sha256.Size]byte
	read     time.Time
	problem  error // why the last reading failed; nil when it did not
	failures uint64
}

// Open reads the policy of a file, which has to be good, and follows it. log gets
// a line for each change, and one for each problem; it is required.
func Open(path string, o Options, log *slog.Logger) (*File, error) {
	f := &File{path: path, options: o, log: log, start: time.Now()}
	f.next.Store(int64(checkInterval))
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// Policy returns the policy in force.
func (f *File) Policy() *Policy {
	now := time.Since(f.start)
	if now >= time.Duration(f.next.Load()) && f.mu.TryLock() {
		f.next.Store(int64(now + checkInterval))
		f.refresh()
		f.mu.Unlock()
	}
	return f.current.Load()
}

// Decide decides with the policy in force, see [Policy.Decide].
func (f *File) Decide(r Request) Decision { return f.Policy().Decide(r) }

// Authorize implements [Authorizer]. It never fails.
func (f *File) Authorize(_ context.Context, r Request) (Decision, error) { return f.Decide(r), nil }

// Reload reads the file now, whatever its times say, and returns why its content
// is not in force; nil when it is.
func (f *File) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = false
	f.refresh()
	return f.problem
}

// Status is the state of a [File].
type Status struct {
	File string `json:"file"`
	// Digest is the SHA-256 of the text in force, in lower-case hexadecimal.
	Digest string `json:"digest"`
	Rules  int    `json:"rules"`
	// Default is what happens to requests that no rule matches.
	Default Default `json:"default"`
	// Read is when the text in force was read, in UTC.
	Read time.Time `json:"read"`
	// Err is why the file as it is now cannot be used; empty when it is in force.
	Err string `json:"error,omitempty"`
	// Failures counts how often a text was found that cannot be used, since start.
	// The same problem found again is one failure.
	Failures uint64 `json:"failures"`
}

// Status looks at the file as a request does, so that a bad one is seen also while
// there are none.
func (f *File) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Since(f.start); now >= time.Duration(f.next.Load()) {
		f.next.Store(int64(now + checkInterval))
		f.refresh()
	}
	p := f.current.Load()
	s := Status{
		File: f.path, Digest: hex.EncodeToString(f.digest[:]), Rules: len(p.rules), Default: p.document.Default,
		Read: f.read.UTC(), Failures: f.failures,
	}
	if f.problem != nil {
		s.Err = f.problem.Error()
	}
	return s
}

// refresh is called with mu held, and reports what goes wrong once.
func (f *File) refresh() {
	if f.problem == nil && f.settled {
		if info, err := os.Stat(f.path); err == nil && sameFile(info, f.seen) {
			return
		}
	}
	err := f.load()
	if err != nil && (f.problem == nil || f.problem.Error() != err.Error()) {
		f.failures++
		f.log.Error("changed policy cannot be used, the one loaded before stays in force", "file", f.path, "reason", err)
	}
	f.problem = err
}

// load is called with mu held.
func (f *File) load() error {
	text, info, err := readFile(f.path)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	digest := sha256.Sum256(text)
	if f.current.Load() != nil && digest == f.digest {
		f.note(info)
		return nil
	}
	p, err := Parse(text, f.options)
	if err != nil {
		return fmt.Errorf("policy %s: %w", f.path, err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		f.log.Warn("policy can be written by other users of this machine, give it mode 0644", "file", f.path, "mode", fmt.Sprintf("%04o", mode))
	}
	if f.current.Swap(p) != nil {
		f.log.Info("reloaded from files", "what", "policy", "files", []string{f.path}, "rules", len(p.rules))
	}
	f.digest, f.read = digest, time.Now()
	f.note(info)
	return nil
}

func (f *File) note(info fs.FileInfo) {
	f.seen, f.settled = info, time.Since(info.ModTime()) >= settleTime
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// readFile returns a file's content, and what it was when it was opened.
func readFile(path string) (text []byte, info fs.FileInfo, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	text, readErr := io.ReadAll(io.LimitReader(file, maxFile+1))
	info, statErr := file.Stat()
	if err := errors.Join(readErr, statErr, file.Close()); err != nil {
		return nil, nil, err
	}
	return text, info, nil
}
