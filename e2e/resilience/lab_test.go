package resilience

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// clusterName is the managed cluster's name at every hub.
	clusterName = "managed"
	// A user of the hubs, and their token.
	userToken = "ada-token"
	tokenFile = userToken + ",ada,1,\"dev\"\n"
)

// serviceAddress is the cluster IP of the service that stands for all services:
// its servers differ by port.
var serviceAddress = netip.MustParseAddr("10.96.7.7")

// objects are what the tests find in the managed cluster. The user is named as
// the hub maps them.
const objects = `apiVersion: v1
kind: Service
metadata: {name: target, namespace: default}
spec:
  clusterIP: 10.96.7.7
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: first, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [""], resources: [configmaps, services], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ada}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}
`

// lab is what all tests share: one managed cluster in one private network.
type lab struct {
	culvert         testbed.Culvert
	private         *testbed.PrivateNetwork
	managed         *testbed.Cluster
	agentKubeconfig string
	dir             string
	pattern         pattern
}

// startLab starts the private network with its API server and DNS.
func startLab(t *testing.T) *lab {
	t.Helper()
	ctx := within(t, 5*time.Minute)
	servers, err := testbed.ServerBinaries(ctx, t.Output())
	must(t, err)
	bin := binDir(testbed.Dir())
	l := &lab{
		culvert: testbed.Culvert{
			Hub: filepath.Join(bin, "culvert-hub"), Agent: filepath.Join(bin, "culvert-agent"), CLI: filepath.Join(bin, "culvert"),
		},
		pattern: newPattern(),
	}
	l.dir, err = os.MkdirTemp("", "lab-") //nolint:usetesting // t.TempDir would put the test's name into the path of a Unix socket
	must(t, err)
	l.private, err = testbed.NewPrivateNetwork()
	must(t, err)
	t.Cleanup(func() { check(t, l.private.Close()) })
	must(t, l.private.Inside.AddAddress(serviceAddress))
	bed, err := testbed.New(ctx, testbed.Config{Dir: l.dir, Servers: servers})
	must(t, err)
	t.Cleanup(func() { check(t, bed.Close()) })
	l.managed, err = bed.StartCluster(ctx, testbed.ClusterConfig{Name: clusterName, Namespace: l.private.Inside})
	must(t, err)
	must(t, l.managed.Apply(ctx, objects))
	l.agentKubeconfig, err = l.managed.AgentKubeconfig(ctx)
	must(t, err)
	_, err = bed.StartDNS(ctx, l.managed)
	must(t, err)
	return l
}

// check reports an error of a cleanup.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// inTime wants what took so long to have been promised, or the machine to be the reason.
func (l *lab) inTime(t *testing.T, what string, took, promised time.Duration) {
	t.Helper()
	if err := testbed.InTime(within(t, time.Minute), l.culvert.CLI, took, promised); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// middleInTime is inTime for the median of what happened several times: a busy machine may
// hold up a single one.
func (l *lab) middleInTime(t *testing.T, what string, took []time.Duration, promised time.Duration) {
	t.Helper()
	slices.Sort(took)
	l.inTime(t, what, took[len(took)/2], promised)
}

// cli runs the culvert command.
func (l *lab) cli(ctx context.Context, t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, l.culvert.CLI, args...).CombinedOutput(); err != nil {
		t.Fatalf("culvert %v: %v: %s", args, err, out)
	}
}

// listen listens on a free port of an address in the private network, until the
// test ends.
func (l *lab) listen(t *testing.T, address netip.Addr) net.Listener {
	t.Helper()
	ln, err := l.private.Inside.Listen(t.Context(), netip.AddrPortFrom(address, 0).String())
	must(t, err)
	t.Cleanup(func() {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return ln
}

// serve runs an HTTP server behind the service of the managed cluster and returns
// its path at a hub, without a slash at the end. The test's end cuts its requests.
func (l *lab) serve(t *testing.T, handler http.Handler) (path string) {
	t.Helper()
	ln := l.listen(t, serviceAddress)
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go serveHTTP(server, ln, ended)
	t.Cleanup(func() {
		cancel()
		check(t, server.Close())
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	port := netip.MustParseAddrPort(ln.Addr().String()).Port()
	return servicePath(port)
}

// serveHTTP sends one result, when the server is closed.
func serveHTTP(server *http.Server, ln net.Listener, ended chan<- error) { ended <- server.Serve(ln) }
