package pki

import (
	"context"
	"path/filepath"
	"time"

	"github.com/culvertdev/culvert/internal/filelock"
)

// lockWait is how long one caller waits for another that changes the folder.
const lockWait = 30 * time.Second

// lockFolder keeps other callers, in this process and others, from changing the
// authorities of a folder until unlock is called.
func lockFolder(dir string) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	return filelock.Lock(ctx, filepath.Join(dir, ".lock"))
}
