package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/internal/forward"
	"github.com/culvertdev/culvert/internal/socks"
)

func TestCarryRefused(t *testing.T) {
	hub := []string{"--hub", "https://127.0.0.1:1", "--token-file", "t"}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"forward"}, "want what to forward"}, {[]string{"forward", "edge-1"}, "want what to forward"},
		{[]string{"forward", "1:db:2"}, "cluster: none is named"}, {[]string{"forward", "edge-1", "x:db:2"}, "local port"},
		{[]string{"forward", "edge-1", "1:db:2", "--"}, "want a command"}, {[]string{"forward", "edge-1", "1:db:2", "-o", "xml"}, "--output"},
		{[]string{"connect", "edge-1"}, "want two arguments"}, {[]string{"connect", "Edge", "db:1"}, "cluster"}, {[]string{"connect", "edge-1", "db"}, "host:port"},
		{[]string{"socks", "edge-1"}, "--cluster"}, {[]string{"socks", "--cluster", "A"}, "--cluster"},
		{[]string{"ping"}, "the cluster"}, {[]string{"ping", "edge-1", "-i", "1ms"}, "--interval"},
		{[]string{"verify", "a", "b"}, "at most one"}, {[]string{"bench", "edge-1", "--duration", "1h"}, "--duration"},
		{[]string{"bench", "edge-1", "--discard"}, "--discard"}, {[]string{"bench", "edge-1", "--parallel", "0"}, "--parallel"},
	} {
		args := slices.Concat(c.args[:1], hub, c.args[1:])
		got := clitest.Run(t, t.TempDir(), args...)
		if got.Code == 0 || got.Stdout != "" || !strings.Contains(got.Stderr, c.says) || !strings.Contains(got.Stderr, "--help") {
			t.Errorf("%q: %+v, want %q", c.args, got, c.says)
		}
	}
}

func TestForwardArgs(t *testing.T) {
	specs, command, err := forwardArgs([]string{"edge-1", "5432:db:5432", "edge-2/unix:/a/b:db:1", "psql", "-h", "x"}, 3)
	want := []forward.Spec{
		{Network: "tcp", Listen: "127.0.0.1:5432", To: forward.Destination{Cluster: "edge-1", Address: "db:5432"}},
		{Network: "unix", Listen: "/a/b", To: forward.Destination{Cluster: "edge-2", Address: "db:1"}},
	}
	if err != nil || !slices.Equal(specs, want) || !slices.Equal(command, []string{"psql", "-h", "x"}) {
		t.Errorf("%+v %q %v", specs, command, err)
	}
	// A socket and a cluster before a slash are told from a cluster alone.
	if specs, _, err = forwardArgs([]string{"edge-2/db:1"}, -1); err != nil || len(specs) != 1 || specs[0].To.Cluster != "edge-2" {
		t.Errorf("%+v %v", specs, err)
	}
}

func TestSocksReply(t *testing.T) {
	for _, c := range []struct {
		code client.Code
		hop  client.Hop
		want socks.Reply
	}{
		{client.PermissionDenied, client.HopAgent, socks.NotAllowed}, {client.Unauthenticated, client.HopHub, socks.NotAllowed},
		{client.NotFound, client.HopTarget, socks.HostUnreachable}, {client.ConnectionRefused, client.HopTarget, socks.ConnectionRefused},
		{client.DeadlineExceeded, client.HopAgent, socks.TTLExpired}, {client.Unreachable, client.HopTarget, socks.HostUnreachable},
		{client.Unreachable, client.HopTunnel, socks.NetworkUnreachable}, {client.Unavailable, client.HopHub, socks.NetworkUnreachable},
		{client.LinkLost, client.HopTunnel, socks.NetworkUnreachable}, {client.Internal, client.HopHub, socks.GeneralFailure},
	} {
		if got := socksReply(&client.Error{Code: c.code, Hop: c.hop, Err: errors.New("x")}); got != c.want {
			t.Errorf("%s at %s: reply %d, want %d", c.code, c.hop, got, c.want)
		}
	}
	if socksReply(errors.New("x")) != socks.GeneralFailure {
		t.Error("another error")
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &lines{w: &out}, err: &lines{w: &out}}
	to := forward.Destination{Cluster: "edge-1", Address: "db:1"}
	failed := forward.Event{Kind: forward.Refused, ID: 1, Listen: "l", From: "f", To: to, Err: errors.New("no\x1b such host")}
	r.observe(failed)
	failed.ID = 2
	r.observe(failed)
	failed.Err = errors.New("another")
	r.observe(failed)
	r.observe(forward.Event{Kind: forward.Opened, ID: 3, Listen: "l", From: "f", To: to})
	if got, want := out.String(), "#1 f refused: no? such host\n#2 f refused: another\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	r.verbose = true
	r.observe(forward.Event{Kind: forward.Opened, ID: 3, Listen: "l", From: "@", To: to})
	r.observe(forward.Event{Kind: forward.Closed, ID: 3, Listen: "l", To: to, Sent: 1, Received: 3 << 20, Took: 1500 * time.Millisecond})
	if got, want := out.String(), "#3 l -> edge-1 db:1 opened\n#3 -> edge-1 db:1 closed after 1.5s, 1 B sent, 3.0 MiB received\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	log := slog.New(r.log())
	log.Warn("lost the connection to the hub", "hub", "h:1", "reason", errors.New("reset"))
	log.Debug("nothing")
	if got, want := out.String(), "culvert: lost the connection to the hub (hub h:1): reset\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	r.json = true
	r.observe(failed)
	slog.New(r.log()).InfoContext(context.Background(), "back")
	text := strings.Split(out.String(), "\n")
	if len(text) != 3 || text[0] != `{"type":"refused","connection":2,"listen":"l","from":"f","cluster":"edge-1","target":"db:1","error":"another"}` ||
		!strings.Contains(text[1], `"message":"back"`) || !strings.Contains(text[1], `"type":"log"`) {
		t.Errorf("%q", text)
	}
}

func TestPingSummary(t *testing.T) {
	ms := time.Millisecond
	hops := sumUp([]client.Ping{
		{Hub: 1 * ms, Agent: 4 * ms, Target: 2 * ms, HubVersion: "1"}, {Hub: 3 * ms, Agent: 2 * ms, TargetError: "away", HubVersion: "2"},
	})
	if len(hops) != 3 || hops[0] != (pingHop{Hop: "hub", Version: "2", Min: ms, Avg: 2 * ms, Max: 3 * ms}) ||
		hops[1] != (pingHop{Hop: "agent", Min: 2 * ms, Avg: 3 * ms, Max: 4 * ms}) || hops[2] != (pingHop{Hop: "target", Error: "away", Min: 2 * ms, Avg: 2 * ms, Max: 2 * ms}) {
		t.Errorf("%+v", hops)
	}
	if sumUp(nil) != nil {
		t.Error("of nothing")
	}
}
