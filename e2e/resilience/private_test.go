package resilience

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func testPrivateNetwork(t *testing.T, l *lab) {
	h := l.startHub(t, "private")
	agent := h.startAgent(t, "agent")
	h.awaitServing(t, h.caller(t, true))

	t.Run("P1,D3: nothing can be dialled into the agent's network, and its agent listens on nothing", func(t *testing.T) {
		listener := l.listen(t, netip.IPv4Unspecified())
		open := netip.MustParseAddrPort(listener.Addr().String()).Port()
		conn, err := l.private.Inside.Dial(t.Context(), "tcp", netip.AddrPortFrom(testbed.InsideAddress, open).String())
		if err != nil {
			t.Fatalf("inside, where it must work: %v", err)
		}
		check(t, conn.Close())
		unreachable := func(address netip.Addr, port uint16) {
			conn, err := (&net.Dialer{Timeout: 300 * time.Millisecond}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(address, port).String())
			if err == nil {
				check(t, conn.Close())
				t.Errorf("%s:%d can be dialled from outside", address, port)
			}
		}
		api := apiPort(t, l.managed)
		for _, port := range []uint16{open, api} {
			unreachable(testbed.InsideAddress, port)
			unreachable(l.private.Outside, port)
		}
		// Not for want of a route: the router refuses what has one.
		must(t, l.private.RouteInto())
		for _, port := range []uint16{open, api} {
			unreachable(testbed.InsideAddress, port)
		}
		sockets, err := listening(agent)
		must(t, err)
		if len(sockets) > 0 {
			t.Errorf("the agent listens: %v", sockets)
		}
	})

	t.Run("D1,D3: the API server's address exists inside of the network only", func(t *testing.T) {
		if out, err := l.managed.Kubectl(t.Context(), "get", "--raw", "/readyz"); err != nil || out != "ok" {
			t.Errorf("inside: %q, %v", out, err)
		}
		if out, err := l.managed.KubectlAs(l.managed.AdminKubeconfig).Run(t.Context(), "get", "--raw", "/readyz"); err == nil {
			t.Errorf("outside, the same kubeconfig answers %q", out)
		}
	})

	t.Run("P1,D1,S1: plain kubectl reaches that API server through the hub", func(t *testing.T) {
		kubectl := h.kubectl(t)
		ctx := within(t, 2*time.Minute)
		out, err := kubectl.Run(ctx, "get", "configmap", "first", "-o", "name")
		if err != nil || strings.TrimSpace(out) != "configmap/first" {
			t.Errorf("kubectl get configmap = %q, %v", out, err)
		}
		out, err = kubectl.Run(ctx, "get", "services", "--all-namespaces")
		if err != nil || !strings.Contains(out, serviceAddress.String()) {
			t.Errorf("kubectl get services = %q, %v", out, err)
		}
	})
	must(t, agent.Kill9())
}

// kubectl returns kubectl as the user, by way of the hub.
func (h *hub) kubectl(t *testing.T) testbed.Kubectl {
	t.Helper()
	path := filepath.Join(h.dir, "ada.kubeconfig")
	must(t, os.WriteFile(path, testbed.Kubeconfig(h.url()+"/"+clusterName, h.ca, userToken), 0o600))
	return h.lab.managed.KubectlAs(path)
}

func apiPort(t *testing.T, c *testbed.Cluster) uint16 {
	t.Helper()
	u, err := url.Parse(c.URL)
	must(t, err)
	address, err := netip.ParseAddrPort(u.Host)
	must(t, err)
	return address.Port()
}

// The states of /proc/net/tcp, as in the kernel's enum of TCP states.
const (
	stateSynSent = "02"
	stateListen  = "0A"
)

// listening returns the listening TCP sockets that a process has open.
func listening(p *testbed.Process) ([]string, error) {
	proc := fmt.Sprintf("/proc/%d", p.PID())
	entries, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, err
	}
	own := make(map[string]bool)
	for _, entry := range entries {
		link, err := os.Readlink(filepath.Join(proc, "fd", entry.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	if len(own) == 0 {
		return nil, errors.New("the process has no sockets at all")
	}
	var found []string
	for _, table := range []string{"tcp", "tcp6"} {
		sockets, err := socketTable(proc, table, stateListen)
		if err != nil {
			return nil, err
		}
		for _, s := range sockets {
			if own[s.inode] {
				found = append(found, s.local)
			}
		}
	}
	return found, nil
}

// socket is one line of /proc/PID/net/tcp, with addresses as there.
type socket struct{ local, remote, inode string }

// socketTable reads the sockets in a state from a table of a process's network.
func socketTable(proc, table, state string) ([]socket, error) {
	text, err := os.ReadFile(filepath.Join(proc, "net", table))
	if err != nil {
		return nil, err
	}
	var out []socket
	for line := range strings.Lines(string(text)) {
		// sl local rem st queues tr:when retrnsmt uid timeout inode
		f := strings.Fields(line)
		if len(f) > 9 && f[3] == state {
			out = append(out, socket{local: f[1], remote: f[2], inode: f[9]})
		}
	}
	return out, nil
}
