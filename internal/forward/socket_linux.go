package forward

import "syscall"

// ownSocket gives a socket its mode before it has a name: Linux takes that over, and nobody
// else gets in before the mode of the file is set.
func ownSocket(_, _ string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), socketMode) })
	if err == nil {
		err = failed
	}
	return err
}
