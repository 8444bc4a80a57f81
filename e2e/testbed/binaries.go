package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Servers are the paths of the real servers of the test bed.
type Servers struct {
	Etcd, KubeAPIServer, Kubectl, CoreDNS string
}

// ServerBinaries returns the servers, and builds those that the cache does not
// hold, which takes about five minutes in all. Progress lines go to progress.
// The cache is ${CULVERT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}/bin.
func ServerBinaries(ctx context.Context, progress io.Writer) (Servers, error) {
	out, err := built(ctx, progress, "etcd", "kube-apiserver", "kubectl", "coredns")
	if err != nil {
		return Servers{}, err
	}
	var s Servers
	to := map[string]*string{
		"etcd": &s.Etcd, "kube-apiserver": &s.KubeAPIServer, "kubectl": &s.Kubectl, "coredns": &s.CoreDNS,
	}
	for line := range strings.Lines(out) {
		name, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		if to[name] != nil {
			*to[name] = path
		}
	}
	for name, path := range to {
		if *path == "" {
			return Servers{}, fmt.Errorf("server binaries: e2e/bin/build.sh gave no path of %s", name)
		}
	}
	return s, nil
}

// OIDCProvider returns the path of an OpenID Connect provider, and builds it where the
// cache does not hold it.
func OIDCProvider(ctx context.Context, progress io.Writer) (string, error) {
	out, err := built(ctx, progress, "oidc")
	if err != nil {
		return "", err
	}
	_, path, ok := strings.Cut(strings.TrimSpace(out), " ")
	if !ok {
		return "", errors.New("server binaries: e2e/bin/build.sh gave no path of oidc")
	}
	return path, nil
}

// OCMAddonManager returns the addon manager of Open Cluster Management, and builds it
// like the servers.
func OCMAddonManager(ctx context.Context, progress io.Writer) (string, error) {
	const name = "ocm-addon-manager"
	out, err := built(ctx, progress, name)
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(strings.TrimSpace(out), name+" ")
	if !ok {
		return "", fmt.Errorf("server binaries: e2e/bin/build.sh gave no path: %q", out)
	}
	return path, nil
}

// built runs e2e/bin/build.sh, and returns its lines "NAME PATH".
func built(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", fmt.Errorf("server binaries: %w", err)
	}
	out, err := command(ctx, progress, filepath.Join(root, "e2e", "bin", "build.sh"), append([]string{"--paths"}, names...)...).Output()
	if err != nil {
		return "", fmt.Errorf("server binaries: e2e/bin/build.sh: %w", err)
	}
	return string(out), nil
}

// OCMResourceDefinitions returns the folder of the CustomResourceDefinitions of Open
// Cluster Management that its addon manager is built with: those of the module
// open-cluster-management.io/api.
func OCMResourceDefinitions(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", fmt.Errorf("CRDs of OCM: %w", err)
	}
	const module = "open-cluster-management.io/api"
	folder := filepath.Join(root, "e2e", "bin", "ocm")
	cmd := command(ctx, progress, "go", "-C", folder, "mod", "download", "-json", module)
	var got struct{ Dir string }
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil || got.Dir == "" {
		return "", fmt.Errorf("CRDs of OCM: go mod download %s in %s: %w: %s", module, folder, err, out)
	}
	return got.Dir, nil
}

// Culvert are the paths of Culvert's own binaries.
type Culvert struct {
	Hub, Agent, CLI string
}

// binariesVariable names the folder of Culvert's binaries that one build has made for all
// packages of a run, as make e2e does.
const binariesVariable = "CULVERT_E2E_BINARIES"

// CulvertBinaries builds Culvert's binaries from the repository into dir, which
// it creates. Flags are added to go build, for example -race. A run has its own, so that an
// edit while it lasts cannot change what a restarted process runs; without flags they are
// those of the folder that $CULVERT_E2E_BINARIES names, where it is set.
func CulvertBinaries(ctx context.Context, dir string, progress io.Writer, flags ...string) (Culvert, error) {
	root, err := Root()
	if err != nil {
		return Culvert{}, fmt.Errorf("culvert binaries: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Culvert{}, fmt.Errorf("culvert binaries: %w", err)
	}
	c := Culvert{
		Hub:   filepath.Join(dir, "culvert-hub"),
		Agent: filepath.Join(dir, "culvert-agent"),
		CLI:   filepath.Join(dir, "culvert"),
	}
	if made := os.Getenv(binariesVariable); made != "" && len(flags) == 0 {
		for _, path := range []string{c.Hub, c.Agent, c.CLI} {
			if err := duplicate(filepath.Join(made, filepath.Base(path)), path); err != nil {
				return Culvert{}, fmt.Errorf("culvert binaries: %s: %w", binariesVariable, err)
			}
		}
		return c, nil
	}
	started := time.Now()
	fmt.Fprintln(progress, "testbed: building culvert-hub, culvert-agent and culvert")
	args := append([]string{"build", "-C", root, "-trimpath", "-o", dir + string(filepath.Separator)}, flags...)
	cmd := command(ctx, progress, "go", append(args, "./cmd/culvert-hub", "./cmd/culvert-agent", "./cmd/culvert")...)
	cmd.Stdout = progress
	if !slices.Contains(flags, "-race") { // static, as they are released: the compiler's cache is shared with that
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if err := cmd.Run(); err != nil {
		return Culvert{}, fmt.Errorf("culvert binaries: go build: %w", err)
	}
	fmt.Fprintf(progress, "testbed: built culvert in %.0f s\n", time.Since(started).Seconds())
	return c, nil
}

// duplicate makes to another name of the program from, or a copy where that cannot be, as
// on another file system.
func duplicate(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, program, 0o700)
}

// Need makes sure that commands from Debian packages are installed, each given as
// COMMAND or COMMAND:PACKAGE. Root gets what is missing; for others the error
// names the packages.
func Need(ctx context.Context, progress io.Writer, commands ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	cmd := command(ctx, progress, filepath.Join(root, "e2e", "bin", "packages.sh"), commands...)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("needed commands %s: %w", strings.Join(commands, " "), err)
	}
	return nil
}

// command is one that reports to progress and ends, with its children, with ctx.
func command(ctx context.Context, progress io.Writer, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = progress
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// Root finds the repository: the nearest folder at or above the working folder
// that holds e2e/go.mod. Tests and go run -C start inside of it.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("repository root: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(dir, "e2e", "go.mod"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("repository root: %w", err)
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("repository root: no folder above %s holds e2e/go.mod: run from inside the repository", start)
		}
	}
}
