package kube

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// testNetwork shows what the private network needs, and what it does not.
func testNetwork(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	t.Run("P1,S1,D1,D3: an API server that nobody outside reaches is used with kubectl through the hub", func(t *testing.T) {
		for _, address := range []string{
			net.JoinHostPort(apiAddress.String(), w.apiPort), net.JoinHostPort(testbed.InsideAddress.String(), w.apiPort),
			net.JoinHostPort(w.private.Outside.String(), w.apiPort), net.JoinHostPort(w.private.Outside.String(), "22"),
		} {
			conn, err := (&net.Dialer{Timeout: 500 * time.Millisecond}).DialContext(ctx, "tcp", address)
			if err == nil {
				conn.Close()
				t.Errorf("%s answers from outside", address)
			}
		}
		out, err := w.ops.kubectl.Run(ctx, "get", "namespace", "work", "-o", "name")
		if err != nil || out != "namespace/work\n" {
			t.Errorf("through the hub: %q, %v", out, err)
		}
	})
	t.Run("D2: the API server's name, as the agent was told it, exists in the private network only", func(t *testing.T) {
		const name = "kubernetes.default.svc.cluster.local"
		if got, err := net.DefaultResolver.LookupHost(ctx, name); err == nil {
			t.Errorf("outside, %s is %v", name, got)
		}
		got, err := w.managed.Resolver().LookupHost(ctx, name)
		if err != nil || len(got) != 1 || got[0] != apiAddress.String() {
			t.Errorf("inside, %s is %v, %v", name, got, err)
		}
		get(t, w.caller(t, 2), managedURL+"/version", w.ops.token, 200)
	})
	t.Run("S2,D3: the agent listens on nothing, and its one connection goes out to the hub", func(t *testing.T) {
		sockets := agentSockets(t, w.agentProcess.PID())
		toHub := 0
		hub := hexAddress(testbed.HubAddress.As4()) + fmt.Sprintf(":%04X", 8091)
		for _, s := range sockets {
			if s.state == tcpListen {
				t.Errorf("the agent listens on %s", s.local)
			}
			if s.remote == hub {
				toHub++
			}
		}
		if toHub != 1 {
			t.Errorf("%d connections to the hub (%s), want 1: %+v", toHub, hub, sockets)
		}
	})
}

// socket is a line of /proc/net/tcp (proc_net_tcp(5)).
type socket struct{ local, remote, state string }

// tcpListen is TCP_LISTEN in that file.
const tcpListen = "0A"

// agentSockets returns the TCP sockets of a process.
func agentSockets(t *testing.T, pid int) []socket {
	t.Helper()
	proc := filepath.Join("/proc", fmt.Sprint(pid))
	descriptors, err := os.ReadDir(filepath.Join(proc, "fd"))
	must(t, err)
	mine := map[string]bool{}
	for _, d := range descriptors {
		// A descriptor may be closed in between.
		if to, err := os.Readlink(filepath.Join(proc, "fd", d.Name())); err == nil {
			mine[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	var sockets []socket
	for _, file := range []string{"tcp", "tcp6"} {
		table, err := os.ReadFile(filepath.Join(proc, "net", file))
		must(t, err)
		for line := range bytes.Lines(table) {
			if f := strings.Fields(string(line)); len(f) > 9 && mine[f[9]] {
				sockets = append(sockets, socket{f[1], f[2], f[3]})
			}
		}
	}
	return sockets
}

// hexAddress is an address as that file has it on a little-endian machine.
func hexAddress(ip [4]byte) string {
	return fmt.Sprintf("%02X%02X%02X%02X", ip[3], ip[2], ip[1], ip[0])
}
