package resilience

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// noticedWithin is how soon callers of a cluster whose agent is dead must be told.
const noticedWithin = 10 * time.Second

// testDeadAgent makes two agents dead at the same time, each in its own way, and
// neither in a way that ends a connection.
func testDeadAgent(t *testing.T, l *lab) {
	frozen, cut := l.startHub(t, "frozen"), l.startHub(t, "cut")
	agent := frozen.startAgent(t, "agent")
	cut.startAgent(t, "agent")

	thaw := func() error { return syscall.Kill(agent.PID(), syscall.SIGCONT) }
	begun := make(map[*hub]*death)
	for _, h := range []*hub{frozen, cut} {
		c := h.caller(t, true)
		h.awaitServing(t, c)
		begun[h] = &death{lab: l, caller: c, pending: startPending(within(t, 3*time.Minute), t, l, h)}
	}
	must(t, syscall.Kill(agent.PID(), syscall.SIGSTOP))
	begun[frozen].start(t)
	heal := cutOff(t, l, cut)
	begun[cut].start(t)
	// Both are judged at once, while it is known what else the machine did meanwhile.
	for _, h := range []*hub{frozen, cut} {
		begun[h].await(within(t, 2*time.Minute))
	}

	t.Run("N12: a frozen agent is noticed within 10 s, and it recovers by itself", func(t *testing.T) {
		begun[frozen].check(t, thaw)
	})
	t.Run("N12: an agent whose packets are lost is noticed within 10 s, and it recovers by itself", func(t *testing.T) {
		begun[cut].check(t, heal)
	})
}

// death is an agent that no longer answers, seen from a caller.
type death struct {
	lab     *lab
	caller  *caller
	pending *pending // under way since before
	since   time.Time
	told    chan told

	// What await has found: both answers, and whether they came too late.
	first told
	under told
	late  error
}

// told is a 503, and when it came.
type told struct {
	answer answer
	after  time.Duration
	err    error
}

func (d *death) start(t *testing.T) {
	t.Helper()
	d.since, d.told = time.Now(), make(chan told, 1)
	go d.ask(within(t, 2*time.Minute))
}

// ask sends one request to the dead agent, which must not hang, and sends one
// result.
func (d *death) ask(ctx context.Context) {
	a, err := d.caller.get(ctx, versionPath)
	d.told <- told{a, time.Since(d.since), err}
}

// await waits until callers are told.
func (d *death) await(ctx context.Context) {
	d.first = <-d.told
	d.under.answer, d.under.err = d.pending.wait(ctx)
	if d.first.err != nil || d.under.err != nil {
		return
	}
	d.under.after = d.pending.at.Sub(d.since)
	for what, took := range map[string]time.Duration{"the first request": d.first.after, "the request that was under way": d.under.after} {
		if err := testbed.InTime(ctx, d.lab.culvert.CLI, took, noticedWithin); err != nil {
			d.late = errors.Join(d.late, fmt.Errorf("%s: %w", what, err))
		}
	}
}

// check looks at what callers were told, revives the agent, and waits for it.
func (d *death) check(t *testing.T, revive func() error) {
	t.Helper()
	must(t, errors.Join(d.first.err, d.under.err))
	check(t, d.first.answer.wantAway("hub", "tunnel"))
	check(t, d.under.answer.wantAway("tunnel"))
	check(t, d.late)
	ctx := within(t, 2*time.Minute)
	a, err := d.caller.get(ctx, versionPath)
	must(t, err)
	check(t, a.wantAway("hub"))
	d.lab.inTime(t, "the next request", a.took, away)
	revived := time.Now()
	must(t, revive())
	back := d.caller.firstSuccess(ctx, t).Sub(revived)
	t.Logf("a request that was under way was told after %v, a new one after %v, the next after %v more; back %v after the revival",
		d.under.after.Round(time.Millisecond), d.first.after.Round(time.Millisecond), a.took.Round(time.Millisecond), back.Round(time.Millisecond))
}

// cutOff drops the packets between a hub and the private network, inside of it,
// in both directions: nobody's connection is closed. heal lets them pass again.
func cutOff(t *testing.T, l *lab, h *hub) (heal func() error) {
	t.Helper()
	port := netip.MustParseAddrPort(h.port.Addr()).Port()
	name := fmt.Sprintf("cut-%d", port)
	must(t, l.private.Inside.Do(func() error { return dropPort(name, port) }))
	heal = func() error { return l.private.Inside.Do(func() error { return deleteTable(name) }) }
	return heal
}

// dropPort drops TCP packets from and to a port of a peer of the current
// namespace. As a ruleset of nft(8):
//
//	chain input  { type filter hook input  priority filter; tcp sport PORT drop; }
//	chain output { type filter hook output priority filter; tcp dport PORT drop; }
func dropPort(name string, port uint16) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("drop packets: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
	for _, chain := range []struct {
		name   string
		hook   *nftables.ChainHook
		offset uint32 // of the peer's port in the TCP header
	}{{"input", nftables.ChainHookInput, 0}, {"output", nftables.ChainHookOutput, 2}} {
		conn.AddRule(&nftables.Rule{
			Table: table,
			Chain: conn.AddChain(&nftables.Chain{
				Name: chain.name, Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: chain.hook, Priority: nftables.ChainPriorityFilter,
			}),
			Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{syscall.IPPROTO_TCP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: chain.offset, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
				&expr.Verdict{Kind: expr.VerdictDrop},
			},
		})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("drop packets: %w", err)
	}
	return nil
}

func deleteTable(name string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("pass packets: %w", err)
	}
	conn.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("pass packets: %w", err)
	}
	return nil
}
