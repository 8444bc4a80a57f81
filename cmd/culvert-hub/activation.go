package main

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// handedOver returns the sockets that a systemd socket unit has opened for the hub
// (sd_listen_fds(3)); none where there is no such unit. While the hub is restarted they
// stay open, and clients wait in their backlogs.
func handedOver() ([]net.Listener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of the service manager: %w", err)
	}
	for i, ln := range listeners {
		if _, ok := ln.(*net.TCPListener); !ok {
			return nil, fmt.Errorf("sockets of the service manager: number %d is no TCP socket: remove it from the socket unit", i+1)
		}
	}
	return listeners, nil
}
