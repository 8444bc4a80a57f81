package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// source is what a build is made from.
type source struct {
	// version is that of a tag, v1.2.3, or else a pseudo-version of Go's form
	// (https://go.dev/ref/mod#pseudo-versions).
	version string
	// revision is the commit.
	revision string
	// time is that of the commit: nothing in the result is younger
	// (https://reproducible-builds.org/specs/source-date-epoch/).
	time time.Time
}

var (
	// versionForm is SemVer with a v, without metadata but for "+dirty": it becomes
	// part of file names and of an image's tag.
	versionForm  = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+dirty)?$`)
	revisionForm = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// readSource takes VERSION, REVISION and SOURCE_DATE_EPOCH of the environment, and
// asks git for what is not set.
func readSource(ctx context.Context, root string, env func(string) string) (source, error) {
	git := func(args ...string) (string, error) { return runGit(ctx, root, args...) }
	s := source{version: env("VERSION"), revision: env("REVISION")}
	var err error
	if s.revision == "" {
		if s.revision, err = git("rev-parse", "HEAD"); err != nil {
			return source{}, fmt.Errorf("REVISION: not set, and %w", err)
		}
	}
	if !revisionForm.MatchString(s.revision) {
		return source{}, fmt.Errorf("REVISION: %q is no commit id", s.revision)
	}
	epoch := env("SOURCE_DATE_EPOCH")
	if epoch == "" {
		if epoch, err = git("log", "-1", "--format=%ct", s.revision); err != nil {
			return source{}, fmt.Errorf("SOURCE_DATE_EPOCH: not set, and %w", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds <= 0 {
		return source{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds since 1970", epoch)
	}
	s.time = time.Unix(seconds, 0).UTC()
	if s.version == "" {
		if s.version, err = s.describe(git); err != nil {
			return source{}, fmt.Errorf("VERSION: not set, and %w", err)
		}
	}
	if !versionForm.MatchString(s.version) {
		return source{}, fmt.Errorf("VERSION: %q is not of the form v1.2.3 or v1.2.3-rc.1", s.version)
	}
	return s, nil
}

// describe says which version the working tree has.
func (s source) describe(git func(...string) (string, error)) (string, error) {
	version := fmt.Sprintf("v0.0.0-%s-%s", s.time.Format("20060102150405"), s.revision[:12])
	tags, err := git("tag", "--points-at", s.revision, "--list", "v*", "--sort=-version:refname")
	if err != nil {
		return "", err
	}
	if newest, _, _ := strings.Cut(tags, "\n"); newest != "" {
		version = newest
	}
	changed, err := git("status", "--porcelain")
	if err != nil {
		return "", err
	}
	if changed != "" {
		version += "+dirty"
	}
	return version, nil
}

// tag is the version as a registry takes it, which knows no "+".
func (s source) tag() string { return strings.ReplaceAll(s.version, "+", "-") }

func runGit(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...) //nolint:gosec // the arguments are this program's own
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("git %s: %w", args[0], err)
		if said := strings.TrimSpace(complaint.String()); said != "" {
			err = errors.Join(err, errors.New(said))
		}
		return "", err
	}
	return strings.TrimSpace(string(out)), nil
}
