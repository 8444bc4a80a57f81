// Command release builds what people install: images in an OCI layout, and
// archives of binaries with the charts, both without a container engine and the same bytes for the
// same commit and Go release.
//
//	release images   --out DIR [--platform linux/amd64,…] [--name culvert-agent,…]
//	release archives --out DIR [--platform linux/amd64,…]
//
// VERSION, REVISION and SOURCE_DATE_EPOCH of the environment stand for what git
// would say; outside of a clone all three are needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run is the program; lines for people and for scripts go to out.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || args[0] != "images" && args[0] != "archives" {
		return errors.New("want a command, images or archives")
	}
	flags := flag.NewFlagSet("release "+args[0], flag.ContinueOnError)
	dir := flags.String("out", "", "folder for the result, which is replaced (required)")
	names := flags.String("name", strings.Join(programs, ","), "images to build")
	defaults := imagePlatforms
	if args[0] == "archives" {
		defaults = archivePlatforms
	}
	wanted := flags.String("platform", strings.Join(defaults, ","), "platforms to build for")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *dir == "" || flags.NArg() > 0 {
		return errors.New("--out: required, and no arguments")
	}
	platforms, err := parsePlatforms(*wanted, defaults)
	if err != nil {
		return err
	}
	root, err := repository()
	if err != nil {
		return err
	}
	src, err := readSource(ctx, root, os.Getenv)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "culvert-release-")
	if err != nil {
		return err
	}
	b := builder{root: root, work: work, source: src, progress: os.Stderr}
	if args[0] == "images" {
		err = writeImages(ctx, b, *dir, strings.Split(*names, ","), platforms, out)
	} else {
		err = writeArchives(ctx, b, *dir, platforms, out)
	}
	return errors.Join(err, os.RemoveAll(work))
}

// platform is a pair of GOOS and GOARCH.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// executable is what a program's file is called there.
func (p platform) executable(program string) string {
	if p.os == "windows" {
		return program + ".exe"
	}
	return program
}

// parsePlatforms takes those of known alone: others were never built.
func parsePlatforms(text string, known []string) ([]platform, error) {
	var found []platform
	for name := range strings.SplitSeq(text, ",") {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--platform: %q is not one of %s", name, strings.Join(known, ", "))
		}
		system, arch, _ := strings.Cut(name, "/")
		found = append(found, platform{system, arch})
	}
	return found, nil
}

// repository is the nearest folder at or above the working folder that has the
// programs.
func repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", programs[0])); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("repository: no folder above %s has cmd/%s: run it inside of a clone", start, programs[0])
		}
	}
}
