package testbed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestPrivateNetwork(t *testing.T) {
	ctx := within(t, 6*time.Minute)
	private, err := NewPrivateNetwork()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := private.Close(); err != nil {
			t.Errorf("close the private network: %v", err)
		}
	})
	hub, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(HubAddress, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	greeted := make(chan error, 1)
	go greetEach(hub, greeted)
	t.Cleanup(func() {
		if err := errors.Join(hub.Close(), <-greeted); err != nil {
			t.Error(err)
		}
	})

	t.Run("a host inside reaches the hub, which sees the router's address only", func(t *testing.T) {
		conn, err := private.Inside.Dial(ctx, "tcp", hub.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		seen, err := io.ReadAll(conn)
		if err != nil || string(seen) != private.Outside.String() {
			t.Errorf("the hub saw %q, %v; want %s", seen, err, private.Outside)
		}
	})

	inside, err := private.Inside.Listen(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	greetedInside := make(chan error, 1)
	go greetEach(inside, greetedInside)
	t.Cleanup(func() {
		if err := errors.Join(inside.Close(), <-greetedInside); err != nil {
			t.Error(err)
		}
	})
	port := netip.MustParseAddrPort(inside.Addr().String()).Port()

	t.Run("a listener inside answers inside", func(t *testing.T) {
		conn, err := private.Inside.Dial(ctx, "tcp", netip.AddrPortFrom(InsideAddress, port).String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	refused := func(t *testing.T, to netip.Addr) {
		t.Helper()
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", netip.AddrPortFrom(to, port).String())
		if err == nil {
			conn.Close()
			t.Errorf("%s:%d can be reached from outside", to, port)
		}
		t.Logf("from outside: %v", err)
	}
	t.Run("nothing outside reaches a listener inside", func(t *testing.T) {
		refused(t, InsideAddress)
		refused(t, private.Outside)
	})
	t.Run("the router keeps callers out even when they have a route to the inside", func(t *testing.T) {
		if err := private.RouteInto(); err != nil {
			t.Fatal(err)
		}
		refused(t, InsideAddress)
	})

	bed := startBed(ctx, t)
	cluster, err := bed.StartCluster(ctx, ClusterConfig{Name: "managed", Namespace: private.Inside})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("an API server inside answers inside and not outside", func(t *testing.T) {
		if out, err := cluster.Kubectl(ctx, "get", "--raw", "/readyz"); err != nil || out != "ok" {
			t.Errorf("readyz inside = %q, %v", out, err)
		}
		if out, err := cluster.KubectlAs(cluster.AdminKubeconfig).Run(ctx, "get", "--raw", "/readyz"); err == nil {
			t.Errorf("readyz outside = %q", out)
		}
	})

	if _, err := bed.StartDNS(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	clusterIP := netip.MustParseAddr("10.96.7.7")
	t.Run("the cluster's DNS knows a Service as soon as the API server does", func(t *testing.T) {
		if err := cluster.Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  clusterIP: %s
  ports: [{name: http, port: 80}]
`, clusterIP)); err != nil {
			t.Fatal(err)
		}
		err := Poll(within(t, 30*time.Second), "the name of the service", func(ctx context.Context) error {
			got, err := cluster.Resolver().LookupNetIP(ctx, "ip4", "web.default.svc.cluster.local")
			if err == nil && !slices.Contains(got, clusterIP) {
				err = fmt.Errorf("resolves to %v, want %s", got, clusterIP)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("a server on a cluster IP stands in for kube-proxy", func(t *testing.T) {
		if err := private.Inside.AddAddress(clusterIP); err != nil {
			t.Fatal(err)
		}
		conn, err := private.Inside.Dial(ctx, "tcp", netip.AddrPortFrom(clusterIP, port).String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
}

// greetEach tells each caller the address it comes from. It ends when the
// listener is closed, and sends one result.
func greetEach(l net.Listener, result chan<- error) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			result <- nil
			return
		}
		if err != nil {
			result <- err
			return
		}
		from := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr()
		_, err = io.WriteString(conn, from.String())
		// A caller that only probes may be gone before it is greeted.
		if err := errors.Join(err, conn.Close()); err != nil && !isReset(err) {
			result <- err
			return
		}
	}
}
