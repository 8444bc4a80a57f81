// Package install tests what people install: the images, unpacked and run as a
// container runtime runs them, the archives, and the units of systemd, whose command
// lines are run as the units say.
package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestMain(m *testing.M) {
	if os.Getenv(jailVariable) != "" {
		fmt.Fprintln(os.Stderr, "jail:", enterJail()) // it returns only to say why not
		os.Exit(1)
	}
	testbed.Isolate(prepare)
	goleak.VerifyTestMain(inWorld{m})
}

const (
	// What the builds are told: a version that nothing else has.
	version  = "v9.8.7-rc.1"
	revision = "0123456789abcdef0123456789abcdef01234567"
	epoch    = "1700000000"
)

// platforms are those that images and archives are built for: the machine's own,
// whose packages the other tests have compiled already. At full length it is all of
// them, each compiled twice.
func platforms(all ...string) []string {
	if testbed.Slow() {
		return all
	}
	return []string{"linux/" + runtime.GOARCH}
}

var (
	imagePlatforms   = platforms("linux/amd64", "linux/arm64")
	archivePlatforms = platforms("linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64")
)

// prepare builds what the tests look at, twice, in two folders, outside of the
// isolated network.
func prepare(ctx context.Context, dir string) error {
	if err := testbed.Need(ctx, os.Stderr, "systemd-analyze:systemd", "unshare:util-linux", "mount:mount"); err != nil {
		return err
	}
	if _, err := testbed.ServerBinaries(ctx, os.Stderr); err != nil {
		return err
	}
	root, err := testbed.Root()
	if err != nil {
		return err
	}
	tool := filepath.Join(dir, "tool")
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, "tools", "release"), "-o", tool, ".")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build tools/release: %w", err)
	}
	elsewhere := filepath.Join(dir, "a", "quite", "different", "folder")
	if err := copyTree(root, elsewhere); err != nil {
		return err
	}
	if err := errors.Join(
		runTool(ctx, tool, root, "", "images", filepath.Join(dir, "first", "images"), imagePlatforms),
		runTool(ctx, tool, root, "", "archives", filepath.Join(dir, "first", "archives"), archivePlatforms),
	); err != nil {
		return err
	}
	cache := ""
	if testbed.Slow() {
		cache = filepath.Join(dir, "gocache") // everything is compiled anew
	}
	if err := runTool(ctx, tool, elsewhere, cache, "images", filepath.Join(dir, "second", "images"), imagePlatforms); err != nil || !testbed.Slow() {
		return err
	}
	return runTool(ctx, tool, elsewhere, cache, "archives", filepath.Join(dir, "second", "archives"), archivePlatforms)
}

// copyTree copies what the programs are built from.
func copyTree(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case name[0] == '.' || name == "bin" || name == "e2e" || name == "tools":
		case entry.IsDir():
			if err := os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name))); err != nil {
				return err
			}
		default:
			text, err := os.ReadFile(filepath.Join(from, name))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(to, name), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// runTool runs tools/release in a tree, with a cache of its own where one is given.
func runTool(ctx context.Context, tool, tree, cache, what, out string, platforms []string) error {
	cmd := exec.CommandContext(ctx, tool, what, "--out", out, "--platform", strings.Join(platforms, ","))
	cmd.Dir, cmd.Stdout, cmd.Stderr = tree, os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(), "VERSION="+version, "REVISION="+revision, "SOURCE_DATE_EPOCH="+epoch)
	if cache != "" {
		cmd.Env = append(cmd.Env, "GOCACHE="+cache)
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("release %s: %w", what, err)
	}
	return nil
}

// inWorld runs the tests between the start and the end of the world.
type inWorld struct{ *testing.M }

func (m inWorld) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	if the, err = newWorld(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		return 1
	}
	code := m.M.Run()
	if err := the.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "end:", err)
		return 1
	}
	return code
}

// within is a context for one test that ends after d, so that a failure says what
// was waited for.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}
