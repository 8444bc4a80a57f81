package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// WithReload runs a process, and reload at each SIGHUP until it ends: what
// reload cannot do it reports itself, and nothing ends because of it. A service
// manager is told of both, and of the end; [Ready] tells it of the beginning.
func WithReload(ctx context.Context, reload func() error, run func(context.Context) error) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		reloadLoop(hangups, stop, reload)
	}()
	stopping := sync.OnceFunc(func() { notify(stateStopping) })
	context.AfterFunc(ctx, stopping) // at once, since the end may take its time
	err := run(ctx)
	stopping()
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
			notify(stateReloading)
			if err := reload(); err != nil {
				slog.Error("SIGHUP: not everything could be read", "reason", err)
			}
			Ready()
		}
	}
}
