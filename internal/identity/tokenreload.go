package identity

import (
	"context"
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

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"

	"github.com/culvertdev/culvert/internal/telemetry"
)

const (
	// tokenFileInterval is how often the file is looked at, at most.
	tokenFileInterval = time.Second
	// tokenFileSettled is how old a file has to be before its times are trusted to
	// change with its content: clocks of file systems tick coarsely.
	tokenFileSettled = 2 * time.Second
	// maxTokenFile bounds the file, in bytes: some hundred thousand tokens.
	maxTokenFile = 64 << 20
)

// tokenFile is the static tokens of a file that is followed. There is no
// goroutine behind it: the first caller of a second looks at the file, the
// others get what is in force and never wait. It is safe for concurrent use.
type tokenFile struct {
	path  string
	log   *slog.Logger
	start time.Time // next counts from here, so that a step of the clock does no harm

	current atomic.Pointer[staticTokens]
	next    atomic.Int64 // when the file is looked at again, a time.Duration since start

	mu       sync.Mutex // guards what follows; held while the file is read
	seen     fs.FileInfo
	settled  bool // seen is old enough for equal times to mean equal content
	digest   [sha256.Size]byte
	problem  error // why the last reading failed; nil when it did not
	failures uint64
}

func newTokenFile(path string, log *slog.Logger) (*tokenFile, error) {
	f := &tokenFile{path: path, log: log, start: time.Now()}
	f.next.Store(int64(tokenFileInterval))
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// AuthenticateToken implements authenticator.Token. It never returns an error.
func (f *tokenFile) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	now := time.Since(f.start)
	if now >= time.Duration(f.next.Load()) && f.mu.TryLock() {
		f.next.Store(int64(now + tokenFileInterval))
		f.refresh()
		f.mu.Unlock()
	}
	return f.current.Load().AuthenticateToken(ctx, token)
}

// reload reads the file now, whatever its times say, and returns why its content
// is not in force.
func (f *tokenFile) reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = false
	f.refresh()
	return f.problem
}

// refresh is called with mu held, and reports what goes wrong once.
func (f *tokenFile) refresh() {
	if f.problem == nil && f.settled {
		if info, err := os.Stat(f.path); err == nil && sameFile(info, f.seen) {
			return
		}
	}
	err := f.load()
	if err != nil && (f.problem == nil || f.problem.Error() != err.Error()) {
		f.failures++
		f.log.Error("changed token file cannot be used, the tokens loaded before stay in force", "file", f.path, "reason", err)
	}
	f.problem = err
}

// load is called with mu held.
func (f *tokenFile) load() error {
	data, info, err := readWhole(f.path)
	if err != nil {
		return fmt.Errorf("tokenFile: %w", err)
	}
	digest := sha256.Sum256(data)
	if f.current.Load() != nil && digest == f.digest {
		f.note(info)
		return nil
	}
	users, err := parseTokenFile(data)
	if err != nil {
		return fmt.Errorf("tokenFile: %s: %w", f.path, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		f.log.Warn("token file can be read by other users of this machine, give it mode 0600",
			"file", f.path, "mode", fmt.Sprintf("%04o", mode))
	}
	if f.current.Swap(&staticTokens{table: tokenfile.New(users)}) != nil {
		f.log.Info("reloaded from files", "what", "token file", "files", []string{f.path}, "tokens", len(users))
	}
	f.digest = digest
	f.note(info)
	return nil
}

func (f *tokenFile) note(info fs.FileInfo) {
	f.seen, f.settled = info, time.Since(info.ModTime()) >= tokenFileSettled
}

// health looks at the file like a caller does: a bad one is reported also while
// nobody calls.
func (f *tokenFile) health() telemetry.Health {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Since(f.start); now >= time.Duration(f.next.Load()) {
		f.next.Store(int64(now + tokenFileInterval))
		f.refresh()
	}
	h := telemetry.Health{Name: "token file", File: f.path, Failures: f.failures}
	if f.problem != nil {
		h.LastError = f.problem.Error()
	}
	return h
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// readWhole returns a file's content, and what it was when it was opened.
func readWhole(path string) (data []byte, info fs.FileInfo, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	data, readErr := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	info, statErr := file.Stat()
	if err := errors.Join(readErr, statErr, file.Close()); err != nil {
		return nil, nil, err
	}
	if len(data) > maxTokenFile {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes", path, maxTokenFile)
	}
	return data, info, nil
}
