// Command demo shows Culvert at work on two real Kubernetes API servers: it
// repeats the service-proxy walkthrough of OCM's cluster-proxy (a hub user reads
// pods of a managed cluster with the hub's token) and prints every command with
// its real answer.
//
// It needs Go, bash and curl, no root, no container and no cluster. It keeps
// running until Ctrl-C, so that one can try more, and leaves nothing behind.
//
//	make demo          run, then stay
//	make demo ONCE=1   run, then exit 0
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// startLimit bounds the start of all parts once they are built.
const startLimit = 3 * time.Minute

func main() {
	once := flag.Bool("once", onceWanted(), "exit after the walkthrough (also by ONCE=1 in the environment)")
	flag.Parse()
	// The first Ctrl-C ends the demo in order. After it the default is back, so
	// that a second one ends it at once; the kernel then kills the children.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	err := run(ctx, *once)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// onceWanted reads ONCE, which make passes on.
func onceWanted() bool {
	value := os.Getenv("ONCE")
	return value != "" && value != "0"
}

// run plays the demo in a folder of its own, which it removes.
func run(ctx context.Context, once bool) (err error) {
	dir, err := os.MkdirTemp("", "culvert-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	s := screen{out: os.Stdout}
	d, err := build(ctx, dir)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := play(ctx, d, s); err != nil {
		return interrupted(ctx, err)
	}
	if once {
		s.note("The walkthrough gave the expected answers. Stopping everything.")
		return nil
	}
	d.printUsage(s)
	select {
	case <-ctx.Done():
		s.note("Stopping everything.")
		return nil
	case name := <-d.died():
		return fmt.Errorf("%s ended unexpectedly; the end of its log:\n%s", name, d.logTail(name))
	}
}

// play starts the parts and walks through the steps.
func play(ctx context.Context, d *demo, s screen) error {
	starting, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := d.start(starting, s); err != nil {
		return err
	}
	return d.walk(starting, s)
}

// interrupted makes an error of a demo that the user ended while it was still
// starting say just that.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted; everything is stopped and removed")
	}
	return err
}
