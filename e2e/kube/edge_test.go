package kube

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/server"
)

// databaseName is resolved in the private network only.
const databaseName = "database.shop.svc.cluster.local"

// inCluster runs a program as a pod finds its machine: with the files of the
// service account $1 in their place, in a file system of its own.
const inCluster = `run=$(readlink -f /var/run)
mount -t tmpfs tmpfs "$run"
mkdir -p "$run/secrets/kubernetes.io"
cp -r "$1" "$run/secrets/kubernetes.io/serviceaccount"
shift
exec "$@"`

// edgePrefix marks this hub's users, unlike the other hub's.
const edgePrefix = "edge:"

// edge is a hub inside of this process, with an agent that runs as a pod does.
type edge struct {
	hub *server.Server
	url string
	ca  []byte
}

func startEdge(ctx context.Context, t *testing.T, w *world) *edge {
	t.Helper()
	dir := filepath.Join(w.dir, "edge")
	must(t, os.Mkdir(dir, 0o700))
	log, err := os.Create(filepath.Join(dir, "hub.log"))
	must(t, err)
	t.Cleanup(func() { must(t, log.Close()) })
	state := filepath.Join(dir, "state")
	hub, err := server.New(ctx, server.Config{
		Listen: []string{testbed.HubAddress.String() + ":0", testbed.HubAddress.String() + ":6443", "[::1]:0"},
		State:  state, TLSNames: []string{testbed.HubAddress.String()}, IdentityPrefix: edgePrefix,
		TokenReview: &server.TokenReview{Kubeconfig: w.hub.AdminKubeconfig, Audiences: []string{"culvert"}},
		Logger:      slog.New(slog.NewTextHandler(log, nil)),
	})
	must(t, err)
	run, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go runHub(run, hub, ended)
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the hub ended with %v", err)
		}
	})
	account := filepath.Join(dir, "serviceaccount")
	must(t, os.Mkdir(account, 0o700))
	token, err := w.managed.CreateToken(ctx, "culvert-agent", "culvert-agent")
	must(t, err)
	for name, text := range map[string][]byte{"token": []byte(token), "ca.crt": w.managed.AdminContext().CA, "namespace": []byte("culvert-agent")} {
		must(t, os.WriteFile(filepath.Join(account, name), text, 0o600))
	}
	// The agent acts for users of this hub's prefix alone.
	config := filepath.Join(dir, "agent.yaml")
	must(t, os.WriteFile(config, []byte(`impersonation: {prefixes: ["`+edgePrefix+`"]}`), 0o600))
	args := []string{"--mount", "--propagation=private", "bash", "-euc", inCluster, "bash", account, w.culvert.Agent}
	args = append(args, w.agentCertificate(ctx, t, state, "edge")...)
	args = append(args, "--config", config, "--hub", hub.Addr().String(), "--dns-server", testbed.DNSAddress.String(), "--allow-address", databaseName+":5432",
		"--allow-address", "lost.shop.svc.cluster.local:*", "--allow-address", "nowhere.shop.svc.cluster.local:*")
	w.process(ctx, t, testbed.ProcessConfig{
		Name: "culvert-agent-edge", Path: "unshare", Args: args, Namespace: w.private.Inside,
		Env: []string{"KUBERNETES_SERVICE_HOST=" + apiAddress.String(), "KUBERNETES_SERVICE_PORT=" + w.apiPort},
	})
	must(t, testbed.Poll(ctx, "the agent of cluster edge", func(context.Context) error {
		if len(hub.Agents()) != 1 {
			return fmt.Errorf("%d agents", len(hub.Agents()))
		}
		return nil
	}))
	return &edge{hub: hub, url: "https://" + hub.Addr().String() + "/edge", ca: hub.ServingCA()}
}

// runHub ends with ctx and sends one result.
func runHub(ctx context.Context, hub *server.Server, ended chan<- error) { ended <- hub.Run(ctx) }

func testEdge(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	e := startEdge(ctx, t, w)
	token, err := w.hub.CreateToken(ctx, "operators", "ops", "--audience=culvert")
	must(t, err)
	own := &world{ca: e.ca} // what verifies this hub
	client := own.caller(t, 2)

	t.Run("S1,S2: an agent in the cluster, with nothing but its service account, serves its own cluster's API server", func(t *testing.T) {
		get(t, client, e.url+"/api/v1/namespaces/work/configmaps/first", token, 200)
		agents := e.hub.Agents()
		host, _, err := net.SplitHostPort(agents[0].Remote)
		if err != nil || host != w.private.Outside.String() || agents[0].Cluster != "edge" {
			t.Errorf("the hub sees the agent as %+v; want it from the router's address %v", agents, w.private.Outside)
		}
	})
	t.Run("O14: a hub with an audience of its own takes tokens for it, and no others", func(t *testing.T) {
		get(t, client, e.url+"/version", token, 200)
		res := get(t, client, e.url+"/version", w.ops.token, 401)
		if s := statusOf(t, res); s.Reason != "Unauthorized" {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("D9: the same is served on each of several addresses, 6443 among them", func(t *testing.T) {
		get(t, client, "https://"+testbed.HubAddress.String()+":6443/edge/version", token, 200)
	})
	t.Run("O15: the prefix of the mapped identity is a setting", func(t *testing.T) {
		review := strings.NewReader(`{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}`)
		res, err := send(ctx, client, "POST", e.url+"/apis/authentication.k8s.io/v1/selfsubjectreviews", review,
			"Authorization", "Bearer "+token, "Content-Type", "application/json")
		must(t, err)
		if want := `"username":"` + edgePrefix + `system:serviceaccount:operators:ops"`; res.status != 201 || !strings.Contains(string(res.body), want) {
			t.Errorf("got %d %s, want %s", res.status, res.body, want)
		}
	})
	dial := func(t *testing.T, mode string) (closeWriter, *bufio.Reader) {
		t.Helper()
		conn, err := e.hub.DialContext(ctx, "edge", "tcp", databaseName+":5432")
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() }) // mostly closed by then
		must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		from := bufio.NewReader(conn)
		if line, err := from.ReadString('\n'); err != nil || line != greeting {
			t.Fatalf("the database said %q, %v", line, err)
		}
		_, err = io.WriteString(conn, mode+"\n")
		must(t, err)
		return conn.(closeWriter), from
	}
	t.Run("D2,O1: plain TCP to a name of the private network: a server that speaks first, and no HTTP in between", func(t *testing.T) {
		conn, from := dial(t, "echo")
		for _, said := range []string{"GET / HTTP/9\r\n", "\x00\xff\x16\x03\n", "select 1;\n"} {
			_, err := io.WriteString(conn, said)
			must(t, err)
			heard := make([]byte, len(said))
			if _, err := io.ReadFull(from, heard); err != nil || string(heard) != said {
				t.Errorf("heard %q, %v; said %q", heard, err, said)
			}
		}
		must(t, conn.CloseWrite())
		if rest, err := io.ReadAll(from); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q, %v", rest, err)
		}
	})
	t.Run("N2,O1: on plain TCP, a client that sends 1 MiB, ends its side and then receives 1 MiB gets all of it", func(t *testing.T) {
		conn, from := dial(t, "answer")
		own.services = w.services
		own.clientFirst(t, conn, from)
	})
	t.Run("N2,O1: on plain TCP, a server that sends 1 MiB, ends its side and then receives 1 MiB gets all of it", func(t *testing.T) {
		conn, from := dial(t, "ask")
		w.serverFirst(t, conn, from)
	})
	t.Run("O1: an address that the agent does not allow, or that is not there, is an error that says so", func(t *testing.T) {
		for address, want := range map[string]string{
			databaseName + ":1": "permission denied", "web.shop.svc.cluster.local:443": "permission denied",
			testbed.InsideAddress.String() + ":" + relayPort: "permission denied",
			"lost.shop.svc.cluster.local:443":                "connection refused", "nowhere.shop.svc.cluster.local:1": "no such name",
		} {
			conn, err := e.hub.DialContext(ctx, "edge", "tcp", address)
			if err == nil {
				conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", address, err, want)
			}
		}
	})
}
