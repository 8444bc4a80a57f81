//go:build unix

package audit

import (
	"errors"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFullDisk(t *testing.T) {
	t.Run("N11: a disk that is full loses nothing that fits into the queue, and tears no line", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		f, err := openFile(FileConfig{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		text := numbered(0, 100)
		// The process' own bound on files stands for the disk's.
		limitFiles(t, 10_500, func() {
			for p := []byte(text); len(p) > 0; {
				n, err := f.write(t.Context(), p)
				p = p[n:]
				if err != nil {
					if !errors.Is(err, syscall.EFBIG) {
						t.Error(err)
					}
					text = string(p)
					return
				}
			}
			t.Error("the bound had no effect")
		})
		if !f.torn {
			t.Error("it ended between two lines by accident")
		}
		put(t, f, text)
		if err := f.close(); err != nil {
			t.Error(err)
		}
		if _, texts := folder(t, path); texts["audit.log"] != numbered(0, 100) {
			t.Error("the file is not what was written")
		}
	})
}

// limitFiles lets no file of this process grow beyond size while run runs.
func limitFiles(t *testing.T, size uint64, run func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
	}()
	run()
}
