package testbed

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Debian is a folder with the files of Debian packages, from [Unpack].
type Debian struct {
	root string
}

// Unpack returns the files of Debian packages and of what they need besides, and gets
// them into the cache where they are not there, for which the caller's network must have
// a way out. Nothing is installed, and root is not needed. Progress lines go to
// progress. The packages are as e2e/bin/unpack.sh takes them.
func Unpack(ctx context.Context, progress io.Writer, packages ...string) (Debian, error) {
	root, err := Root()
	if err != nil {
		return Debian{}, err
	}
	out, err := command(ctx, progress, filepath.Join(root, "e2e", "bin", "unpack.sh"), packages...).Output()
	if err != nil {
		return Debian{}, fmt.Errorf("unpack %s: %w", strings.Join(packages, " "), err)
	}
	return Debian{root: strings.TrimSpace(string(out))}, nil
}

// Path returns the one file of a pattern, as of [filepath.Glob], which is relative to /.
func (d Debian) Path(pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(d.root, pattern))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%d files", len(found))
	}
	if err != nil {
		return "", fmt.Errorf("unpacked packages: %s: %w", pattern, err)
	}
	return found[0], nil
}

// Env is what a program of the folder needs in its environment to find its libraries.
func (d Debian) Env() []string {
	var folders []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		// The pattern is well-formed, which is all that Glob judges.
		found, _ := filepath.Glob(filepath.Join(d.root, pattern))
		folders = append(folders, found...)
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(folders, ":")}
}

// Command is a program of the folder; path is a pattern as for [Debian.Path].
func (d Debian) Command(ctx context.Context, path string, args ...string) (*exec.Cmd, error) {
	program, err := d.Path(path)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), d.Env()...)
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// once runs a program of the folder to its end.
func (d Debian) once(ctx context.Context, ordinary bool, path string, args ...string) error {
	cmd, err := d.Command(ctx, path, args...)
	if err != nil {
		return err
	}
	if ordinary {
		unprivileged(cmd.SysProcAttr)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, out)
	}
	return nil
}
