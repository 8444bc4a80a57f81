// Package netem makes two hosts on one machine, as network namespaces, with a line
// between them that has a bandwidth, a round trip and loss.
//
// [Enter] moves the whole program into a namespace of its own, which is the near
// host; the machine's network is never changed. [NewHosts] adds the far one, and
// [Hosts.Connect] a line. Namespaces have no name and vanish with their last
// process.
//
// The line is a veth pair with the kernel's netem (tc-netem(8)) where the kernel
// has that. Where it has not, a process between two TUN devices plays the line:
// it passes packets on, segments that the kernel left together included, as late
// and as slowly as asked. Without loss, large segments cross it whole; with loss
// the kernel cuts them first, so that single packets are lost.
//
// Needs root, and ip, nsenter and unshare (Debian: iproute2, util-linux); tc too
// for the kernel's netem.
package netem
