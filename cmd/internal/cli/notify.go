package cli

import (
	"log/slog"
	"net"
	"os"
)

// notifySocket is the variable by which a service manager says where it wants to
// be told how a service fares (sd_notify(3)).
const notifySocket = "NOTIFY_SOCKET"

// What it is told. There is no WATCHDOG=1: a timer that beats beside the work would
// say that the process is there, which the manager knows.
const (
	stateReady     = "READY=1"
	stateReloading = "RELOADING=1"
	stateStopping  = "STOPPING=1"
)

// Ready tells the service manager that the process works, after its start and
// after a reload. Without a manager it does nothing.
func Ready() { notify(stateReady) }

// notify sends one state. A manager that cannot be told is a warning: it acts on
// its own then, and the process goes on.
func notify(state string) {
	address := os.Getenv(notifySocket)
	if address == "" {
		return
	}
	// A name that begins with "@" is one of the abstract namespace, for net too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		if closed := conn.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		slog.Warn("the service manager cannot be told", "state", state, "socket", address, "reason", err)
	}
}
