package forward

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// socketMode keeps a Unix socket to its owner.
const socketMode = 0o600

// probeTime bounds the look whether somebody serves a socket.
const probeTime = time.Second

// ListenAll opens the listeners of all specs, or none. The connections of each go where
// its spec says, by dial. A Unix socket is its owner's alone; one that a process left
// behind, and that nobody serves, is replaced.
func ListenAll(ctx context.Context, specs []Spec, dial Dial) (_ []Listener, err error) {
	var opened []Listener
	defer func() {
		if err != nil {
			for _, l := range opened {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	for _, s := range specs {
		ln, err := Listen(ctx, s.Network, s.Listen)
		if err != nil {
			return nil, err
		}
		opened = append(opened, Listener{Listener: ln, To: s.To, Open: Fixed(dial, s.To)})
	}
	return opened, nil
}

// Listen opens a listener of the network tcp or unix. An error says what to do. The caller
// closes it.
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var config net.ListenConfig
	if network == "unix" {
		if err := removeStale(ctx, address); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
		config.Control = ownSocket
	}
	ln, err := config.Listen(ctx, network, address)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // which does not repeat the address
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: another program has it; port 0 picks one that is free", err)
		}
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if network == "unix" {
		if err := os.Chmod(address, socketMode); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", address, err), ln.Close())
		}
	}
	return ln, nil
}

// removeStale removes a socket that nobody serves.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("there is a file that is no socket: remove it, or take another path")
	}
	conn, err := (&net.Dialer{Timeout: probeTime}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another program serves this socket: take another path"), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}
