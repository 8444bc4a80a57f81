package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"go/version"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// programs are the folders of cmd/.
var programs = []string{"culvert-hub", "culvert-agent", "culvert"}

const (
	modulePath = "github.com/culvertdev/culvert"
	// stamp is the variable that says which version a binary is.
	stamp = modulePath + "/internal/version.release"
)

// leastGo is the first release of Go without GO-2026-6617, in the HTTP/2 server.
const leastGo = "go1.26.9"

// warning tells what is wrong with a compiler, "" where nothing is.
func warning(goVersion string) string {
	if version.Compare(goVersion, leastGo) >= 0 {
		return ""
	}
	return fmt.Sprintf("built with %s, whose HTTP/2 server has GO-2026-6617: do not publish this; build with GOTOOLCHAIN=%s or a later Go", goVersion, leastGo)
}

// builder compiles the programs.
type builder struct {
	root     string // the repository
	work     string // a folder for what is in between
	source   source
	progress io.Writer
}

// binary is one program for one platform.
type binary struct {
	program  string
	platform platform
	content  []byte
	info     *buildinfo.BuildInfo
}

func (b binary) sha256() string {
	sum := sha256.Sum256(b.content)
	return hex.EncodeToString(sum[:])
}

// environment has everything that could change what the compiler makes set to what
// a machine without settings has, and C switched off, so that the binaries are
// static and need nothing of the machine that they run on.
func environment(p platform) []string {
	return append(os.Environ(),
		"GOOS="+p.os, "GOARCH="+p.arch, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off",
		"GOAMD64=v1", "GOARM64=v8.0",
	)
}

// build makes the programs for a platform. No path, build id, time or state of the
// repository gets into them; the version does, by the linker.
func (b builder) build(ctx context.Context, p platform, names []string) ([]binary, error) {
	dir := filepath.Join(b.work, p.os+"-"+p.arch)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := []string{
		"build", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -buildid= -X " + stamp + "=" + b.source.version, "-o", dir + string(filepath.Separator),
	}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	started := time.Now()
	fmt.Fprintf(b.progress, "release: building %s for %v, the first time takes some minutes\n", strings.Join(names, ", "), p)
	if _, err := b.golang(ctx, p, args...); err != nil {
		return nil, fmt.Errorf("build for %v: %w", p, err)
	}
	fmt.Fprintf(b.progress, "release: built for %v in %.0f s\n", p, time.Since(started).Seconds())
	var made []binary
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, p.executable(name)))
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.Read(bytes.NewReader(content))
		if err != nil {
			return nil, fmt.Errorf("build information of %s for %v: %w", name, p, err)
		}
		if text := warning(info.GoVersion); text != "" && len(made) == 0 {
			fmt.Fprintln(b.progress, "release: warning:", text)
		}
		made = append(made, binary{program: name, platform: p, content: content, info: info})
	}
	return made, nil
}

// golang runs the go command in the repository and returns what it prints.
func (b builder) golang(ctx context.Context, p platform, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the arguments are this program's own
	cmd.Dir, cmd.Env, cmd.Stderr = b.root, environment(p), b.progress
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", args[0], err)
	}
	return out, nil
}
