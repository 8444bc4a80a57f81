package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespace is a Linux network namespace: a host of its own as far as the
// network goes. It has no name in the file system and ends with its last process
// and the handle kept here. A nil *Namespace is the network of the calling
// process; every method but Close works on it.
type Namespace struct {
	handle netns.NsHandle
}

// newNamespace makes an empty namespace with its loopback up.
func newNamespace() (*Namespace, error) {
	var made *Namespace
	err := onThread(func() error {
		// Creating one also enters it; onThread goes back.
		handle, err := netns.New()
		if err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		made = &Namespace{handle: handle}
		return setUp("lo")
	})
	if err != nil {
		if made != nil {
			err = errors.Join(err, made.Close())
		}
		return nil, err
	}
	return made, nil
}

// Close gives up the handle. Processes that still run in the namespace keep it.
func (n *Namespace) Close() error {
	if !n.handle.IsOpen() {
		return nil
	}
	return n.handle.Close()
}

// Do calls f on a thread that is in the namespace. What f opens there (sockets,
// child processes) stays there; goroutines that f starts do not.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread calls f with the goroutine wired to its thread and puts the thread
// back into the namespace it came from.
func onThread(f func() error) (err error) {
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("current network namespace: %w", err)
	}
	defer func() {
		if back := netns.Set(before); back != nil {
			// The goroutine stays locked, so the runtime ends the thread instead
			// of giving it to code which expects the first namespace.
			err = errors.Join(err, fmt.Errorf("leave network namespace: %w", back))
		} else {
			runtime.UnlockOSThread()
		}
		err = errors.Join(err, before.Close())
	}()
	return f()
}

// Start starts cmd in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error {
	return n.Do(cmd.Start)
}

// Run runs cmd in the namespace and waits for it.
func (n *Namespace) Run(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Listen listens on a TCP address of the namespace. The listener works from any
// goroutine.
func (n *Namespace) Listen(ctx context.Context, address string) (net.Listener, error) {
	var listener net.Listener
	err := n.Do(func() error {
		var err error
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address)
		return err
	})
	return listener, err
}

// Dial connects from inside the namespace. The address must be an IP and a port:
// a name would be looked up on another thread, outside of the namespace. Its
// signature is that of http.Transport.DialContext.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial in network namespace: want IP:PORT: %w", err)
	}
	var conn net.Conn
	err := n.Do(func() error {
		var err error
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// AddAddress gives the namespace one more local address. With the cluster IP of
// a Service it stands in for kube-proxy: a server on that address answers for
// the Service. On the nil namespace the process must be isolated (see Isolate).
func (n *Namespace) AddAddress(ip netip.Addr) error {
	if n == nil && !Isolated() {
		return errors.New("add address: the process is not isolated: call testbed.Isolate first in TestMain")
	}
	return n.Do(func() error { return addAddress("lo", netip.PrefixFrom(ip, ip.BitLen())) })
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: set up: %w", name, err)
	}
	return nil
}

func addAddress(name string, prefix netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("link %s: add address %s: %w", name, prefix, err)
	}
	return nil
}
