package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	modeDir  = 0o700
	modeFile = 0o600
)

// lockTimeout covers a hub that is just ending when the next one starts.
const lockTimeout = time.Second

// layout is the format of the database as a whole: which buckets there are. The
// second one has revocations, which a version that does not know them must not
// pass over.
const layout = 2

const (
	bucketMeta         = "meta"
	bucketClusters     = "clusters"
	bucketTokens       = "tokens"
	bucketCertificates = "certificates"
	bucketRevocations  = "revocations"
	bucketPending      = "pending"
	keyLayout          = "layout"
)

// ErrInUse says that another process has the file open.
var ErrInUse = errors.New("in use by another hub")

// Store is the durable state of a hub. It is safe for concurrent use; the zero
// value is not usable. The owner calls Close.
type Store struct {
	db *bbolt.DB
}

// Open opens the file at path, and makes it with mode 0600, and its folder with
// mode 0700, where they are missing. It waits a second for another process that
// has the file open, and then fails with [ErrInUse].
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), modeDir); err != nil {
		return nil, fmt.Errorf("open hub state: %w", err)
	}
	s, err := openWhole(path)
	if err != nil {
		return nil, fmt.Errorf("open hub state: %w", err)
	}
	return s, nil
}

// openWhole also turns what bbolt does at damaged pages into an error: it panics,
// or it touches memory behind the end of a truncated file. Its memory map then
// stays, and the lock with it, until the process ends.
func openWhole(path string) (s *Store, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if problem := recover(); problem != nil {
			s, err = nil, damaged(path, fmt.Errorf("%v", problem))
		}
	}()
	db, err := bbolt.Open(path, modeFile, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, openError(path, err)
	}
	s = &Store{db: db}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(err, db.Close()))
	}
	return s, nil
}

func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s: %w: stop that one, or give this one a state folder of its own", path, ErrInUse)
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err // names the file
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("%s: %w", path, err)
	}
	return damaged(path, err)
}

func damaged(path string, err error) error {
	return fmt.Errorf("%s: not the state of a hub, or damaged: %w: restore a backup, or move the file away to start anew", path, err)
}

// prepare makes the buckets that are missing and refuses the file of a newer version.
func (s *Store) prepare() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists([]byte(bucketMeta))
		if err != nil {
			return err
		}
		if written := meta.Get([]byte(keyLayout)); written != nil {
			number, err := strconv.Atoi(string(written))
			if err != nil {
				return fmt.Errorf("layout: %w", err)
			}
			if err := checkFormat(number, layout); err != nil {
				return fmt.Errorf("layout: %w", err)
			}
		}
		if err := meta.Put([]byte(keyLayout), []byte(strconv.Itoa(layout))); err != nil {
			return err
		}
		for _, name := range []string{bucketClusters, bucketTokens, bucketCertificates, bucketRevocations, bucketPending} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkFormat compares a format number that was read with the newest known one.
func checkFormat(number, known int) error {
	switch {
	case number > known:
		return fmt.Errorf("written by a newer Culvert: format %d, this version knows up to %d: run the newer version, "+
			"or restore a backup of this one", number, known)
	case number < 1:
		return fmt.Errorf("format %d, want 1 to %d: the record is damaged", number, known)
	}
	return nil
}

// Close waits for calls that are under way and lets go of the file. Calls after
// it fail. Closing again does nothing.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close hub state: %w", err)
	}
	return nil
}
