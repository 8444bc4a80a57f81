package identity

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// askerAccount is the account of a hub that asks who may do what, and what the
// hub's cluster says.
const askerAccount = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: asker, namespace: team}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: asker}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
  subjects: [{kind: ServiceAccount, name: asker, namespace: team}]
`

// TestReview is about a hub that asks its own cluster who may do what, and that
// bounds what callers ask for.
func TestReview(t *testing.T) {
	ctx := within(t, 4*time.Minute) // an API server starts again meanwhile
	must(t, the.hubCluster.Apply(ctx, askerAccount))
	token, err := the.hubCluster.CreateToken(ctx, "team", "asker")
	must(t, err)
	the.plant("asker's token", token)
	kubeconfig := filepath.Join(t.TempDir(), "asker.kubeconfig")
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig(the.hubCluster.URL, the.hubCluster.AdminContext().CA, token), 0o600))
	h, err := newHub(ctx, "review", fmt.Sprintf(`tokenFile: %s
policy: {subjectAccessReview: {kubeconfig: %s, allowedTTL: 1s, deniedTTL: 1s}}
audit: {file: {path: %s}}
limits: {user: {requestsPerSecond: 20, burst: 20}, body: 64Ki}
headerBytes: 16384
`, filepath.Join(testbed.Dir(), "tokens.csv"), kubeconfig, filepath.Join(testbed.Dir(), "audit-review.jsonl")))
	must(t, err)
	t.Cleanup(func() { must(t, h.stop()) })
	agent, err := h.startAgent(ctx, "recorder", "{}\n", "--kubeconfig", the.recorder.kubeconfig)
	must(t, err)
	t.Cleanup(func() { must(t, agent.Stop(context.Background())) })
	path := "/recorder/api/v1/namespaces/work/configmaps/first"
	await := func(want int) {
		t.Helper()
		must(t, testbed.Poll(ctx, fmt.Sprint("status ", want), func(ctx context.Context) error {
			got, err := h.ask(ctx, call{path: path, token: the.ada})
			if err == nil && got.status != want {
				err = fmt.Errorf("%d %s", got.status, got.body)
			}
			return err
		}))
	}
	t.Run("N8: the hub's own cluster decides by SubjectAccessReview, and a new role counts soon", func(t *testing.T) {
		await(403)
		if _, err := the.hubCluster.Kubectl(ctx, "create", "clusterrolebinding", "ada", "--clusterrole=cluster-admin", "--user=ada"); err != nil {
			t.Fatal(err)
		}
		await(200)
		if got, err := h.ask(ctx, call{path: path, token: the.eve}); err != nil || got.status != 403 {
			t.Errorf("eve: %v %d %s", err, got.status, got.body)
		}
	})
	t.Run("N10: more than the bound of a user is 429 with Retry-After, and others are served", func(t *testing.T) {
		// boss, whom the cluster refuses: limits come before policy.
		statuses := map[int]int{}
		var refused reply
		var mu sync.Mutex
		var done sync.WaitGroup
		asked := 0
		// Where the machine is held up for a while the bucket is filled again meanwhile.
		for statuses[429] == 0 && asked < 600 {
			for range 60 {
				asked++
				done.Go(func() {
					got, err := h.ask(ctx, call{path: path, token: the.boss})
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.Error(err)
					}
					statuses[got.status]++
					if got.status == http.StatusTooManyRequests {
						refused = got
					}
				})
			}
			done.Wait()
		}
		if statuses[429] == 0 || statuses[403] == 0 || statuses[429]+statuses[403] != asked {
			t.Fatalf("%v", statuses)
		}
		s, err := statusIn(refused)
		seconds, bad := strconv.Atoi(refused.header.Get("Retry-After"))
		if err != nil || bad != nil || seconds < 1 || s.Reason != "TooManyRequests" || refused.header.Get("X-Culvert-Error") != "too-many-requests" {
			t.Errorf("%v %v %+v %v", err, bad, s, refused.header)
		}
		await(200)
	})
	t.Run("N10: a body beyond the bound is 413", func(t *testing.T) {
		large := call{method: http.MethodPost, path: "/recorder/x", token: the.ada, body: strings.Repeat("x", 128<<10)}
		got, err := h.ask(ctx, large)
		for err == nil && got.status == http.StatusTooManyRequests { // until the bucket has one more
			got, err = h.ask(ctx, large)
		}
		if err != nil || got.status != http.StatusRequestEntityTooLarge || got.header.Get("X-Culvert-Error") != "request-too-large" {
			t.Errorf("%v %d %s", err, got.status, got.body)
		}
	})
	t.Run("N10: a head beyond the bound is 431, one far beyond it may end the connection, and nothing of either is sent", func(t *testing.T) {
		before := the.recorder.requests.Load()
		server := rawhttp.Server{Addr: h.addr(), Roots: h.roots, Timeout: 20 * time.Second}
		for _, protocol := range rawhttp.Protocols() {
			for size, want := range map[int]int{8 << 10: 200, 24 << 10: 431, 64 << 10: 431} {
				header := []rawhttp.Field{{"authorization", "Bearer " + the.ada}}
				for i := range size >> 10 {
					header = append(header, rawhttp.Field{fmt.Sprint("x-large-", i), strings.Repeat("x", 1<<10)})
				}
				got := protocol.Send(ctx, server, rawhttp.Request{Path: path, Header: header})
				for got.Status == http.StatusTooManyRequests { // until the bucket has one more
					got = protocol.Send(ctx, server, rawhttp.Request{Path: path, Header: header})
				}
				// Over HTTP/2 the server does not decompress what is more than twice the bound.
				if got.Status != want && (got.Status != 0 || size != 64<<10) {
					t.Errorf("%s, %d bytes: %d %.200s %v", protocol.Name, size, got.Status, got.Body, got.Cut)
				}
			}
		}
		if n := the.recorder.requests.Load() - before; n != 2 { // the small ones
			t.Errorf("%d requests reached the server", n)
		}
	})
	t.Run("N10,D18: client-go reads the hub's refusal in protobuf as it reads an API server's", func(t *testing.T) {
		const protobuf = "application/vnd.kubernetes.protobuf"
		config := &rest.Config{
			Host: "https://" + h.addr() + "/recorder", BearerToken: the.eve, TLSClientConfig: rest.TLSClientConfig{CAData: h.ca}, APIPath: "/api",
			ContentConfig: rest.ContentConfig{
				ContentType: protobuf, AcceptContentTypes: protobuf, GroupVersion: &corev1.SchemeGroupVersion,
				NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
			},
		}
		transport, err := rest.HTTPClientFor(config)
		must(t, err)
		defer transport.CloseIdleConnections()
		client, err := rest.RESTClientForConfigAndClient(config, transport)
		must(t, err)
		err = client.Get().Namespace("work").Resource("configmaps").Name("first").Do(ctx).Error()
		var failed *apierrors.StatusError
		if !apierrors.IsForbidden(err) || !errors.As(err, &failed) || !strings.Contains(failed.ErrStatus.Message, "hub: check policy") || len(failed.ErrStatus.Details.Causes) == 0 {
			t.Errorf("%#v", err)
		}
		got, err := h.ask(ctx, call{path: path, token: the.eve, header: []string{"Accept", protobuf}})
		must(t, err)
		if kind := got.header.Get("Content-Type"); got.status != 403 || kind != protobuf || !bytes.HasPrefix(got.body, []byte("k8s\x00")) {
			t.Errorf("%d %s %q", got.status, kind, got.body)
		}
	})
	t.Run("N10,N8: while the cluster that decides is down the answer is 503 that names it, and nothing is sent", func(t *testing.T) {
		must(t, the.hubCluster.APIServer.Kill9())
		t.Cleanup(func() {
			must(t, the.hubCluster.APIServer.Start(ctx))
			await(200)
		})
		await(503) // once its last answer is a second old
		before := the.recorder.requests.Load()
		got, err := h.ask(ctx, call{path: path, token: the.ada})
		for err == nil && got.status == http.StatusTooManyRequests { // until the bucket has one more
			got, err = h.ask(ctx, call{path: path, token: the.ada})
		}
		must(t, err)
		s, err := statusIn(got)
		if err != nil || got.status != 503 || s.Reason != "ServiceUnavailable" || got.header.Get("X-Culvert-Error") != "unavailable" || !strings.Contains(s.Message, strings.TrimPrefix(the.hubCluster.URL, "https://")) {
			t.Errorf("%v %d %s", err, got.status, got.body)
		}
		if n := the.recorder.requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached the server", n)
		}
	})
}

func TestUnverified(t *testing.T) {
	ctx := within(t, time.Minute)
	t.Run("D20,D18: an API server that does not verify gets no request and no credential", func(t *testing.T) {
		stranger, err := newAuthority()
		must(t, err)
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		must(t, os.WriteFile(kubeconfig, testbed.Kubeconfig(the.recorder.server.URL, stranger.pem, the.recorder.agentToken), 0o600))
		agent, err := the.hub.startAgent(ctx, "unverified", "{}\n", "--kubeconfig", kubeconfig)
		must(t, err)
		t.Cleanup(func() { must(t, agent.Stop(context.Background())) })
		before := the.recorder.requests.Load()
		awaitStatus(ctx, t, call{path: "/unverified/version", token: the.ada}, http.StatusBadGateway)
		got, err := the.hub.ask(ctx, call{path: "/unverified/version", token: the.ada})
		must(t, err)
		if s, err := statusIn(got); err != nil || got.header.Get("X-Culvert-Error") != "tls-failure" || !strings.Contains(s.Message, "certificate") {
			t.Errorf("%v %v %s", err, got.header, got.body)
		}
		if n := the.recorder.requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached it", n)
		}
	})
	t.Run("D20: the hub's certificate has the names that it was given, and no other", func(t *testing.T) {
		conn, err := the.hub.raw().Dial(ctx, "http/1.1")
		must(t, err)
		defer conn.Close()
		cert := conn.ConnectionState().PeerCertificates[0]
		if len(cert.DNSNames) != 0 || len(cert.IPAddresses) != 1 || cert.IPAddresses[0].String() != testbed.HubAddress.String() {
			t.Errorf("names %v %v\n%s", cert.DNSNames, cert.IPAddresses, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
		}
	})
	t.Run("D20,D18: what names no cluster that has joined goes to none", func(t *testing.T) {
		before := the.recorder.requests.Load()
		for _, path := range []string{"/", "/version", "/nosuch/version", "/recorderx/version", "/recorder.example/version"} {
			got, err := the.hub.ask(ctx, call{path: path, token: the.ada})
			must(t, err)
			if _, err := statusIn(got); err != nil || got.status != 404 && got.status != 400 {
				t.Errorf("%s: %v %d %s", path, err, got.status, got.body)
			}
		}
		if n := the.recorder.requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached a cluster", n)
		}
	})
}
