package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// WithReload runs a process, and reload at each SIGHUP until it ends: what
// reload cannot do it reports itself, and nothing ends because of it.
func WithReload(ctx context.Context, reload func() error, run func(context.Context) error) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		reloadLoop(hangups, stop, reload)
	}()
	err := run(ctx)
	signal.Stop(hangups)
	close(stop)
	<-done
	return err
}

// reloadLoop ends when stop is closed.
func reloadLoop(hangups <-chan os.Signal, stop <-chan struct{}, reload func() error) {
	for {
		select {
		case <-stop:
			return
		case <-hangups:
			slog.Info("SIGHUP: reading certificates and token files again")
			if err := reload(); err != nil {
				slog.Error("SIGHUP: not everything could be read", "reason", err)
			}
		}
	}
}
