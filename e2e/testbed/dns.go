package testbed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
)

// DNSAddress is where a cluster's CoreDNS answers, UDP and TCP, inside the
// cluster's network.
var DNSAddress = netip.MustParseAddrPort("127.0.0.53:53")

// StartDNS starts CoreDNS for the cluster, as a cluster has it: names of
// cluster.local come from the API server. It answers on DNSAddress of the
// cluster's network, so that a network holds one of them; the bed's Close ends
// it. The process must be isolated (see Isolate): port 53 is privileged.
func (b *Bed) StartDNS(ctx context.Context, c *Cluster) (*Process, error) {
	if !Isolated() {
		return nil, fmt.Errorf("cluster %s: dns: the process is not isolated: call testbed.Isolate first in TestMain", c.Name)
	}
	ready, err := ReservePort(c.Namespace, loopback)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: dns: %w", c.Name, err)
	}
	b.onClose(func() error { ready.Close(); return nil })
	corefile := filepath.Join(c.Dir, "Corefile")
	text := fmt.Sprintf(`.:%d {
	bind %s
	errors
	ready %s
	kubernetes cluster.local {
		kubeconfig %s
		ttl 1
	}
}
`, DNSAddress.Port(), DNSAddress.Addr(), ready.Addr(), c.AdminKubeconfig)
	if err := writeFile(corefile, []byte(text)); err != nil {
		return nil, fmt.Errorf("cluster %s: dns: %w", c.Name, err)
	}
	p, err := StartProcess(ctx, ProcessConfig{
		Name:      "coredns",
		Path:      b.cfg.Servers.CoreDNS,
		Args:      []string{"-conf", corefile},
		LogDir:    c.Dir,
		Namespace: c.Namespace,
		Ready: func(ctx context.Context) error {
			transport := &http.Transport{DialContext: c.Namespace.Dial}
			defer transport.CloseIdleConnections()
			return expectOK(ctx, &http.Client{Transport: transport}, "http://"+ready.Addr()+"/ready", "")
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cluster %s: dns: %w", c.Name, err)
	}
	b.onClose(p.Kill9)
	return p, nil
}

// Resolver looks names up in the cluster's DNS, from the cluster's network.
func (c *Cluster) Resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return c.Namespace.Dial(ctx, network, DNSAddress.String())
		},
	}
}
