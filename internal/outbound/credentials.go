package outbound

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/culvertdev/culvert/internal/pki"
)

// maxCredentials bounds the file: a line with a user and a password is shorter.
const maxCredentials = 4 << 10

// basicOf checks what Basic authentication can carry (RFC 7617 section 2) and
// returns user:password.
func basicOf(user, password string) (string, error) {
	switch {
	case user == "":
		return "", errors.New("credentials without a user, want user:password")
	case strings.Contains(user, ":"):
		return "", errors.New("the user in the credentials has a colon, which Basic authentication cannot carry")
	case strings.ContainsFunc(user+password, unicode.IsControl):
		return "", errors.New("the credentials have a control character or a second line, want one line user:password")
	}
	return user + ":" + password, nil
}

// credentials are read from a file for each connection. A file that became bad
// leaves what was read before in force. It is a [pki.Watched].
type credentials struct {
	file string
	log  *slog.Logger

	mu       sync.Mutex
	last     string
	read     time.Time
	warnings []string
	problem  string // why the last reading failed; "" when it did not
	failures int64
}

func loadCredentials(file string, log *slog.Logger) (*credentials, error) {
	c := &credentials{file: file, log: log}
	basic, mode, err := readCredentials(file)
	if err != nil {
		return nil, err
	}
	c.take(basic, mode)
	for _, warning := range c.warnings {
		log.Warn("credentials for the proxy are not as they should be", "file", file, "warning", warning)
	}
	return c, nil
}

// take is called with mu held, or before c is shared.
func (c *credentials) take(basic string, mode os.FileMode) {
	if basic != c.last {
		c.last, c.read = basic, time.Now().UTC()
	}
	c.problem, c.warnings = "", nil
	if mode.Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		c.warnings = []string{fmt.Sprintf("mode %04o lets every user of this machine read it: chmod 600 %s", mode.Perm(), c.file)}
	}
}

// get returns user:password.
func (c *credentials) get() string {
	_ = c.Reload() // reported there; what was read before is good
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Reload implements [pki.Watched].
func (c *credentials) Reload() error {
	basic, mode, err := readCredentials(c.file)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.take(basic, mode)
		return nil
	}
	if c.problem != err.Error() {
		c.problem = err.Error()
		c.failures++
		c.log.Error("changed file cannot be used, the credentials for the proxy that were read before stay in force", "err", err)
	}
	return fmt.Errorf("credentials for the proxy: %w", err)
}

// Status implements [pki.Watched]. There is no certificate, so it has neither
// subject nor expiry.
func (c *credentials) Status() pki.Status {
	_ = c.Reload() // it is in the status
	c.mu.Lock()
	defer c.mu.Unlock()
	return pki.Status{
		Name: "proxy credentials", Files: []string{c.file}, Err: c.problem,
		Read: c.read, Failures: c.failures, Warnings: slices.Clone(c.warnings),
	}
}

// readCredentials returns the file's user:password. No error has a part of them.
func readCredentials(file string) (basic string, mode os.FileMode, err error) {
	// Opening a pipe would block.
	info, err := os.Stat(file)
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s: not a regular file", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCredentials+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", 0, err
	}
	if len(text) > maxCredentials {
		return "", 0, fmt.Errorf("%s: larger than %d bytes, want one line user:password", file, maxCredentials)
	}
	line := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	user, password, ok := strings.Cut(line, ":")
	if !ok {
		return "", 0, fmt.Errorf("%s: no colon in it, want one line user:password", file)
	}
	if basic, err = basicOf(user, password); err != nil {
		return "", 0, fmt.Errorf("%s: %w", file, err)
	}
	return basic, info.Mode(), nil
}
