package pki

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	modeDir    = 0o700
	modeKey    = 0o600
	modePublic = 0o644
)

// maxFile bounds what is read of a file: a system's whole CA bundle is a
// quarter of a megabyte.
const maxFile = 4 << 20

// readFile returns the content of a file and what it was when it was opened.
func readFile(path string) ([]byte, fs.FileInfo, error) {
	// Opening a pipe would block, and what cannot be read twice cannot be reloaded.
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	data, readErr := io.ReadAll(io.LimitReader(file, maxFile+1))
	info, statErr := file.Stat()
	if err := errors.Join(readErr, statErr, file.Close()); err != nil {
		return nil, nil, err
	}
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s: larger than %d bytes, want a PEM file", path, maxFile)
	}
	return data, info, nil
}

// readPrivateKey reads a key of the hub's own state, which nobody else may read.
func readPrivateKey(path string) (crypto.Signer, error) {
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && modesCount() {
		return nil, fmt.Errorf("%s: mode %04o opens this private key to other users: chmod 600 %s", path, mode, path)
	}
	key, err := parseKey(data, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// modesCount is false where permission bits are made up by the Go library.
func modesCount() bool { return runtime.GOOS != "windows" }

// placeNew makes a file with all of its content at once, and leaves a file that
// is there already alone: of several processes that try, one wins. It is a
// rename that never replaces.
func placeNew(path string, data []byte, mode fs.FileMode) error {
	return place(path, data, mode, func(temp string) error {
		if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return os.Remove(temp)
	})
}

// replace puts a file in the place of another, so that a reader sees the old or
// the new content and nothing between.
func replace(path string, data []byte, mode fs.FileMode) error {
	return place(path, data, mode, func(temp string) error { return os.Rename(temp, path) })
}

// place writes data to a new file beside path and gives it to move. All is on
// the disk when place returns: a key that signed something must not be lost.
func place(path string, data []byte, mode fs.FileMode, move func(temp string) error) error {
	if err := placeBy(path, data, mode, move); err != nil {
		return fmt.Errorf("write %s: %w", path, withoutPath(err))
	}
	return nil
}

// withoutPath leaves out the name of the temporary file, which is another one at
// every try, so that the same problem has the same words.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}

func placeBy(path string, data []byte, mode fs.FileMode, move func(temp string) error) error {
	dir, base := filepath.Split(path)
	file, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = errors.Join(file.Chmod(mode), file.Sync())
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = move(file.Name())
	}
	if err != nil {
		// After a failed write the file is of no use; after a failed move it may be gone.
		if rmErr := os.Remove(file.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be opened there
	}
	folder, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// WriteKeyPair writes tls.crt, tls.key and ca.crt into dir, the names that
// cert-manager and Kubernetes TLS Secrets use. The folder is made with mode 0700
// where it is missing, the key has mode 0600. Each file is replaced at once, the
// certificate last, so that a reader who follows them ends with a whole pair.
// The three are checked before anything is written.
func WriteKeyPair(dir string, certPEM, keyPEM, caPEM []byte) error {
	if _, err := parsePair("tls.crt", certPEM, "tls.key", keyPEM, nil); err != nil {
		return fmt.Errorf("write key pair: %w", err)
	}
	if _, err := parseCertificates(caPEM); err != nil {
		return fmt.Errorf("write key pair: ca.crt: %w", err)
	}
	if err := os.MkdirAll(dir, modeDir); err != nil {
		return fmt.Errorf("write key pair: %w", err)
	}
	for _, file := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{
		{"tls.key", keyPEM, modeKey},
		{"ca.crt", caPEM, modePublic},
		{"tls.crt", certPEM, modePublic},
	} {
		if err := replace(filepath.Join(dir, file.name), file.data, file.mode); err != nil {
			return fmt.Errorf("write key pair: %w", err)
		}
	}
	return nil
}
