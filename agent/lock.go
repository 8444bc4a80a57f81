package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/culvertdev/culvert/internal/filelock"
)

// lockWait is how long one process waits for another that writes to the state folder.
const lockWait = 30 * time.Second

// lockFolder keeps other processes from changing a state folder until unlock is
// called. The lock goes with the process that holds it.
func lockFolder(dir string) (unlock func() error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	return filelock.Lock(ctx, filepath.Join(dir, ".lock"))
}
