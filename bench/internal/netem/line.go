package netem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/culvertdev/culvert/bench/internal/process"
)

// Condition is what a line is like, the same in both directions.
type Condition struct {
	// RTT is the round trip of an empty line.
	RTT time.Duration
	// Loss is the share of packets that are lost, 0.01 for 1 %.
	Loss float64
	// Rate is the bandwidth in bits a second.
	Rate int64
}

// String returns the condition as it stands in names of measures, "rtt100_loss0.1".
func (c Condition) String() string {
	return fmt.Sprintf("rtt%d_loss%s", c.RTT.Milliseconds(), strconv.FormatFloat(100*c.Loss, 'g', 3, 64))
}

// queueBytes is what a line holds at most, in one direction: enough that only loss
// loses.
const queueBytes = 64 << 20

// Names of the two ends.
const (
	nearDevice = "near0"
	farDevice  = "far0"
)

// Line is a line between the hosts. Close it.
type Line struct {
	hosts *Hosts
	// player is the process between two TUN devices; nil with a veth pair.
	player *process.Process
}

// Connect makes a line; there can be one at a time. By says how it is made.
func (h *Hosts) Connect(ctx context.Context, c Condition) (l *Line, by string, err error) {
	l = &Line{hosts: h}
	by = "tc netem"
	err = l.veth(ctx, c)
	if unknown(err) {
		by = "a process between TUN devices, since this kernel has no netem"
		if err = command(ctx, nil, "ip", "link", "del", nearDevice); err == nil {
			err = l.tun(ctx, c)
		}
	}
	if err == nil {
		err = l.address(ctx)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("line %s: %w", c, err), l.Close())
	}
	return l, by, nil
}

// unknown tells that the kernel, or the machine, has no netem.
func unknown(err error) bool {
	if err == nil {
		return false
	}
	return strings.Contains(err.Error(), "qdisc kind is unknown") || strings.Contains(err.Error(), "executable file not found")
}

func (l *Line) veth(ctx context.Context, c Condition) error {
	if err := command(ctx, nil, "ip", "link", "add", nearDevice, "type", "veth", "peer", "name", farDevice); err != nil {
		return err
	}
	if err := l.give(ctx); err != nil {
		return err
	}
	// netem counts packets, some of which are many segments in one.
	args := []string{
		"root", "netem", "limit", strconv.Itoa(queueBytes / 1500), "rate", strconv.FormatInt(c.Rate, 10) + "bit",
		"delay", strconv.FormatInt(c.RTT.Microseconds()/2, 10) + "us",
	}
	if c.Loss > 0 {
		args = append(args, "loss", strconv.FormatFloat(100*c.Loss, 'f', -1, 64)+"%")
	}
	near := append([]string{"tc", "qdisc", "add", "dev", nearDevice}, args...)
	if err := command(ctx, nil, near...); err != nil {
		return err
	}
	far := append([]string{"tc", "qdisc", "add", "dev", farDevice}, args...)
	return command(ctx, l.hosts.Far(), far...)
}

// tun starts the process that plays the line.
func (l *Line) tun(ctx context.Context, c Condition) (err error) {
	l.player, err = process.Start(ctx, process.Spec{Name: "line", Role: lineRole, Config: c, Dir: l.hosts.dir})
	if err != nil {
		return err
	}
	return l.give(ctx)
}

// give moves the far device to the far host.
func (l *Line) give(ctx context.Context) error {
	return command(ctx, nil, "ip", "link", "set", farDevice, "netns", strconv.Itoa(l.hosts.holder.PID()))
}

func (l *Line) address(ctx context.Context) error {
	for _, end := range []struct {
		within                []string
		device, address, peer string
	}{
		{nil, nearDevice, NearAddress, FarAddress},
		{l.hosts.Far(), farDevice, FarAddress, NearAddress},
	} {
		err := command(ctx, end.within, "ip", "addr", "add", end.address, "peer", end.peer, "dev", end.device)
		if err != nil {
			return err
		}
		if err := command(ctx, end.within, "ip", "link", "set", end.device, "up"); err != nil {
			return err
		}
	}
	return nil
}

// Close takes the line away.
func (l *Line) Close() error {
	if l.player != nil {
		return l.player.Stop() // its devices go with it
	}
	// Both ends of a pair go together.
	return command(context.Background(), nil, "ip", "link", "del", nearDevice)
}
