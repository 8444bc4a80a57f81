package netem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// lineRole is that of the process between two TUN devices.
const lineRole = "line"

// From linux/if_tun.h.
const (
	tunSetIff     = 0x400454ca
	tunSetOffload = 0x400454d0
	iffTun        = 0x0001
	iffNoPI       = 0x1000
	iffVnetHdr    = 0x4000
	tunFCsum      = 0x01
	tunFTSO4      = 0x02
)

// vnetHeader is the length of struct virtio_net_hdr before every packet.
const vnetHeader = 10

// linkHeader is what an Ethernet line adds to every segment.
const linkHeader = 14

// openTUN makes a TUN device. With whole set, the kernel leaves large segments in
// one piece.
func openTUN(name string, whole bool) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	var request [40]byte // struct ifreq
	copy(request[:15], name)
	binary.NativeEndian.PutUint16(request[16:], iffTun|iffNoPI|iffVnetHdr)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&request))); errno != 0 { //nolint:gosec // the way an ioctl takes a struct
		return nil, errors.Join(fmt.Errorf("TUN device %s: %w", name, errno), syscall.Close(fd))
	}
	offload := uintptr(0)
	if whole {
		offload = tunFCsum | tunFTSO4
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetOffload, offload); errno != 0 {
		return nil, errors.Join(fmt.Errorf("TUN device %s: offload: %w", name, errno), syscall.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// runLine plays the line until ctx ends.
func runLine(ctx context.Context, c Condition, ready func(any) error) error {
	whole := c.Loss == 0
	near, err := openTUN(nearDevice, whole)
	if err != nil {
		return err
	}
	far, err := openTUN(farDevice, whole)
	if err != nil {
		return errors.Join(err, near.Close())
	}
	there, back := newDirection(c, near, far), newDirection(c, far, near)
	var loops sync.WaitGroup
	errs := make([]error, 2)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, d := range []*direction{there, back} {
		loops.Go(func() { defer cancel(); errs[i] = d.receive() })
		loops.Go(d.deliver)
	}
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(near.Close(), far.Close()) })
	defer stop()
	if err := ready(true); err != nil {
		cancel()
		loops.Wait()
		return err
	}
	loops.Wait()
	return errors.Join(errs...)
}

// flight is a packet on its way.
type flight struct {
	packet []byte
	due    time.Time
}

// direction is one direction of the line.
type direction struct {
	c        Condition
	from, to *os.File
	way      chan flight

	free time.Time // when the sending end has sent what came before
}

func newDirection(c Condition, from, to *os.File) *direction {
	return &direction{c: c, from: from, to: to, way: make(chan flight, queueBytes/1500)}
}

// receive takes packets from the device until it is closed, and gives each the
// time at which it arrives.
func (d *direction) receive() error {
	defer close(d.way)
	buf := make([]byte, 1<<16+vnetHeader)
	for {
		n, err := d.from.Read(buf)
		if err != nil {
			if errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("line: %w", err)
		}
		if n <= vnetHeader {
			continue
		}
		due, lost := d.send(time.Now(), wireSize(buf[:n]))
		if lost {
			continue
		}
		select {
		case d.way <- flight{append([]byte(nil), buf[:n]...), due}:
		default: // the queue is full, as a router's may be
		}
	}
}

// send puts a packet of size bytes on the line at now, and returns when it
// arrives. What is lost takes its time on the line too.
func (d *direction) send(now time.Time, size int) (due time.Time, lost bool) {
	if d.free.Before(now) {
		d.free = now
	}
	d.free = d.free.Add(time.Duration(int64(size) * 8 * int64(time.Second) / d.c.Rate))
	return d.free.Add(d.c.RTT / 2), d.c.Loss > 0 && rand.Float64() < d.c.Loss //nolint:gosec // a line is no adversary
}

// early is how much before its time a packet may arrive: timers are no finer.
const early = 100 * time.Microsecond

// deliver writes packets when their time has come, until receive ends.
func (d *direction) deliver() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for f := range d.way {
		if wait := time.Until(f.due); wait > early {
			timer.Reset(wait)
			<-timer.C
		}
		_, _ = d.to.Write(f.packet) // a device that is down takes none
	}
}

// wireSize returns what a packet takes on the line: a large segment is cut there
// into packets that each have headers. It has a struct virtio_net_hdr in front.
func wireSize(packet []byte) int {
	size := len(packet) - vnetHeader
	headers := int(binary.NativeEndian.Uint16(packet[2:]))
	segment := int(binary.NativeEndian.Uint16(packet[4:]))
	if packet[1] == 0 || segment == 0 || size <= headers+segment {
		return size + linkHeader
	}
	segments := (size - headers + segment - 1) / segment
	return size - headers + segments*(headers+linkHeader)
}
