package testbed

import (
	"os"
	"syscall"
)

// ordinaryUser is the id that a process with [ProcessConfig.Unprivileged] has in
// its own eyes.
const ordinaryUser = 65534

// unprivileged makes the child an ordinary user with the files of the caller: in
// a user namespace of its own the caller's id has another number. It needs no
// account on the machine, and works for the root of a user namespace too, which
// has no other ids to give.
func unprivileged(attr *syscall.SysProcAttr) {
	if os.Geteuid() != 0 {
		return
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: ordinaryUser, HostID: 0, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: ordinaryUser, HostID: 0, Size: 1}}
}
