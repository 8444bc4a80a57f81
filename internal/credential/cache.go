package credential

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/culvertdev/culvert/internal/filelock"
)

// lockWait is how long one process waits for another that gets a token.
const lockWait = commandTime + 10*time.Second

// Cache keeps tokens on the disk. It is safe for concurrent use, by processes too.
type Cache struct {
	// Dir is the folder, which is made where it is missing; empty keeps nothing.
	Dir string
	// Scope is for whom the tokens are, such as the hub's URL: a token of one scope is
	// never handed out in another.
	Scope string
}

// DefaultDir is where tokens are kept: the folder culvert/credentials in the user's
// cache ($XDG_CACHE_HOME).
func DefaultDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "culvert", "credentials"), nil
}

// stored is a token on the disk.
type stored struct {
	Format  int       `json:"format"`
	Token   string    `json:"token"`
	Got     time.Time `json:"got"`
	Expires time.Time `json:"expires,omitzero"`
}

const storedFormat = 1

// Token returns a token of the source that is good for a while, from the disk where
// one is there. Calls at the same time ask the source once.
func (c Cache) Token(ctx context.Context, source Source) (Token, error) {
	key := source.Key()
	if key == "" || c.Dir == "" {
		return source.Fetch(ctx)
	}
	path := c.path(key)
	if token, ok := load(path); ok {
		return token, nil
	}
	if err := os.MkdirAll(c.Dir, ModeDir); err != nil {
		return Token{}, fmt.Errorf("cache of tokens: %w: another folder can be given (--cache-dir, XDG_CACHE_HOME)", err)
	}
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := filelock.Lock(wait, path+".lock")
	if err != nil {
		return Token{}, fmt.Errorf("cache of tokens: %w", err)
	}
	token, err := c.refresh(ctx, path, source)
	return token, errors.Join(err, unlock())
}

// Forget removes the token of a source from the disk.
func (c Cache) Forget(source Source) error {
	key := source.Key()
	if key == "" || c.Dir == "" {
		return nil
	}
	if err := os.Remove(c.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cache of tokens: %w", err)
	}
	return nil
}

// Refused removes a token that was refused from the disk, so that the source is asked for
// another. It leaves one there that somebody else got meanwhile.
func (c Cache) Refused(source Source, refused Token) {
	key := source.Key()
	if key == "" || c.Dir == "" {
		return
	}
	path := c.path(key)
	if token, ok := load(path); ok && token.Value == refused.Value {
		_ = os.Remove(path) // one that stays is refused, and said to be, again
	}
}

// refresh gets a token, unless somebody else just did. The caller has the lock.
func (c Cache) refresh(ctx context.Context, path string, source Source) (Token, error) {
	if token, ok := load(path); ok {
		return token, nil
	}
	token, err := source.Fetch(ctx)
	if err != nil {
		return Token{}, err
	}
	if !token.Expires.IsZero() && !time.Now().Before(token.Expires) {
		return Token{}, fmt.Errorf("the token that the source gave expired at %s", token.Expires.Format(time.RFC3339))
	}
	if err := save(path, token); err != nil {
		return Token{}, fmt.Errorf("cache of tokens: %w", err)
	}
	return token, nil
}

// path names the file of a source. Nothing can be learnt from the name.
func (c Cache) path(key string) string {
	sum := sha256.Sum256([]byte(c.Scope + "\x00" + key))
	return filepath.Join(c.Dir, hex.EncodeToString(sum[:16])+".json")
}

// load returns the token of a file while it is good. Whatever is wrong with the file
// makes it as good as none: it is written anew.
func load(path string) (Token, bool) {
	info, err := os.Lstat(path)
	if err != nil || !Private(info) || info.Size() > 4*maxToken {
		return Token{}, false
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Token{}, false
	}
	var s stored
	if json.Unmarshal(text, &s) != nil || s.Format != storedFormat || s.Token == "" {
		return Token{}, false
	}
	token := Token{Value: s.Token, Got: s.Got, Expires: s.Expires}
	now := time.Now()
	// A clock that was set back must not make a token last.
	return token, now.Before(token.Fresh()) && !now.Before(s.Got.Add(-time.Minute))
}

// save replaces the file of a token by a rename.
func save(path string, token Token) error {
	text, err := json.Marshal(stored{Format: storedFormat, Token: token.Value, Got: token.Got.UTC().Round(0), Expires: token.Expires})
	if err != nil {
		return err
	}
	return WriteFile(path, text)
}
