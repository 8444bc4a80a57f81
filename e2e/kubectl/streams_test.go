package kubectl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// execute runs a command with input, both outputs and an exit code.
func execute(ctx context.Context, c *client) error {
	input := bytes.Repeat([]byte(c.id+"\n"), 10_000)
	cmd := c.command(ctx, "exec", "-i", "worker", "--", "sh", "-c", "cat; echo complaint of $0 >&2; exit 7", c.id)
	var out, problems bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &problems
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		return fmt.Errorf("exit code 7 became %w: %s", err, withoutFrames(problems.String()))
	}
	if !bytes.Equal(out.Bytes(), input) {
		return fmt.Errorf("%d bytes of input came back as %d", len(input), out.Len())
	}
	if want := "complaint of " + c.id; !bytes.Contains(problems.Bytes(), []byte(want)) {
		return fmt.Errorf("no %q in standard error: %s", want, withoutFrames(problems.String()))
	}
	return c.spoke(problems.String(), true)
}

// terminal runs a shell in a terminal whose size changes.
func terminal(ctx context.Context, c *client) error {
	k := c.kubectl()
	t, err := k.Terminal(ctx, 31, 97, c.environment(), c.arguments([]string{"exec", "-it", "worker", "--", "sh"})...)
	if err != nil {
		return err
	}
	for _, size := range [][2]uint16{{31, 97}, {44, 133}, {20, 60}} {
		if err := errors.Join(t.Resize(size[0], size[1]), t.AwaitSize(ctx, size[0], size[1])); err != nil {
			_, ended := t.Wait(canceled(ctx))
			return errors.Join(err, ended)
		}
	}
	if err := t.Type("exit\r"); err != nil {
		return err
	}
	log, err := t.Wait(ctx)
	return errors.Join(err, c.spoke(log, true))
}

// canceled is a context that has ended.
func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// attach speaks with the command of a container.
func attach(ctx context.Context, c *client) error {
	s, err := c.start(ctx, "attach", "-i", "talker")
	if err != nil {
		return err
	}
	out := newSyncBuffer()
	copied := make(chan struct{})
	go copyOut(out, s.out, copied)
	// Others are attached too, and see what this one says.
	for i := range 3 {
		word := fmt.Sprintf("%s-%d", c.id, i)
		if _, err = io.WriteString(s.in, word+"\n"); err == nil {
			err = out.await(ctx, "heard "+word+"\n")
		}
		if err != nil {
			break
		}
	}
	killed := s.kill(true)
	<-copied
	return errors.Join(err, killed)
}

// copyOut ends with the process whose output it copies, and closes done.
func copyOut(to io.Writer, from io.Reader, done chan<- struct{}) {
	defer close(done)
	_, _ = io.Copy(to, from) // the process is killed
}

// bigSize is that of the file which is copied.
const bigSize = 50 << 20

// makeBig makes a file that does not compress, for both directions.
func (w *world) makeBig(t *testing.T) {
	t.Helper()
	w.big = filepath.Join(w.dir, "big")
	data := make([]byte, bigSize)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // it has no errors
	sum := sha256.Sum256(data)
	w.bigSum = hex.EncodeToString(sum[:])
	must(t, errors.Join(os.WriteFile(w.big, data, 0o600), os.WriteFile(filepath.Join(w.podDir, "big"), data, 0o600)))
}

// sumOf is the hash of a file, which is removed.
func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, f.Close(), os.Remove(path))
}

// copyIn copies a file of 50 MiB into a pod.
func copyIn(ctx context.Context, c *client) error {
	if _, err := c.run(ctx, "", "cp", c.w.big, "worker:"+c.id); err != nil {
		return err
	}
	return c.sameSum(filepath.Join(c.w.podDir, c.id))
}

// copyFrom copies it out of the pod.
func copyFrom(ctx context.Context, c *client) error {
	to := filepath.Join(c.w.dir, c.id)
	if _, err := c.run(ctx, "", "cp", "worker:big", to); err != nil {
		return err
	}
	return c.sameSum(to)
}

func (c *client) sameSum(path string) error {
	sum, err := sumOf(path)
	if err == nil && sum != c.w.bigSum {
		err = fmt.Errorf("the copy has hash %s, want %s", sum, c.w.bigSum)
	}
	return err
}
