package charts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// hubNamespace and agentNamespace are where the charts are installed.
const (
	hubNamespace   = "culvert-hub"
	agentNamespace = "culvert-agent"
)

// grant lets a caller of the hub list namespaces.
const grant = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: namespaces}
rules:
- {apiGroups: [""], resources: [namespaces], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: caller}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: namespaces}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:system:serviceaccount:culvert-hub:caller"}
`

// world is what the tests share: the hub's cluster with a hub that was installed by
// its chart, and a managed cluster in a private network.
type world struct {
	bed         *testbed.Bed
	private     *testbed.PrivateNetwork
	management  *testbed.Cluster
	managed     *testbed.Cluster
	hub         *pod
	authority   *authority
	caller      string // token
	administers string // file with a token

	mu      sync.Mutex
	secrets []string // which no log may have
}

// plant registers what must be in no log at the end.
func (w *world) plant(secrets ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = append(w.secrets, secrets...)
}

// leaked looks through the logs of hub and agents.
func (w *world) leaked() error {
	logs, err := filepath.Glob(filepath.Join(testbed.Dir(), "*.log"))
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return errors.New("there are no logs: they are elsewhere")
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		for i, secret := range w.secrets {
			if strings.Contains(string(text), secret) {
				return fmt.Errorf("%s has secret number %d in it", log, i)
			}
		}
	}
	return nil
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(testbed.Dir(), "k")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: dir, Servers: servers}); err != nil {
		return nil, err
	}
	if w.private, err = testbed.NewPrivateNetwork(); err != nil {
		return nil, err
	}
	clusters, err := w.bed.StartClusters(ctx, testbed.ClusterConfig{Name: "management"},
		testbed.ClusterConfig{Name: "managed", Namespace: w.private.Inside})
	if err != nil {
		return nil, err
	}
	w.management, w.managed = clusters[0], clusters[1]
	if w.authority, err = newAuthority(); err != nil {
		return nil, err
	}
	return w, w.startHub(ctx)
}

// hubValues are those of the hub: a block of Palette, and a certificate in it.
func (w *world) hubValues(certificate, key string, further ...string) string {
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	return fmt.Sprintf(`frps:
  frps:
    enabled: true
    frpHostURL: %q
    server: {crt: %s, key: %s}
    ca: {crt: %s}
service: {port: 8443} # nothing leads from a Service to the pod here
admins: {users: ["system:serviceaccount:culvert-hub:admin"]}
enrolment:
  serviceAccounts:
  - {audience: culvert, namespace: cluster-local, name: culvert-agent, cluster: local}
`, testbed.HubAddress, encode(certificate), encode(key), encode(w.authority.pem)) + strings.Join(further, "")
}

const openPolicy = "policy: {document: {apiVersion: policy.culvert.dev/v1, kind: Policy, default: kubernetes}}\n"

func (w *world) startHub(ctx context.Context) error {
	certificate, key, err := w.authority.issue(testbed.HubAddress)
	if err != nil {
		return err
	}
	objects, err := manifests(ctx, "hub", w.hubValues(certificate, key, openPolicy), "--namespace", hubNamespace)
	if err != nil {
		return err
	}
	if err := restricted(ctx, w.management, hubNamespace); err != nil {
		return err
	}
	if err := apply(ctx, w.management, objects); err != nil {
		return err
	}
	if err := errors.Join(w.management.Apply(ctx, grant), w.managed.Apply(ctx, grant)); err != nil {
		return err
	}
	for _, account := range []string{"caller", "admin"} {
		if _, err := w.management.Kubectl(ctx, "-n", hubNamespace, "create", "serviceaccount", account); err != nil {
			return err
		}
	}
	if w.caller, err = w.management.CreateToken(ctx, hubNamespace, "caller"); err != nil {
		return err
	}
	admin, err := w.management.CreateToken(ctx, hubNamespace, "admin")
	if err != nil {
		return err
	}
	w.plant(w.caller, admin)
	w.administers = filepath.Join(testbed.Dir(), "admin.token")
	if err := errors.Join(os.WriteFile(w.administers, []byte(admin), 0o600), os.WriteFile(w.caFile(), []byte(w.authority.pem), 0o600)); err != nil {
		return err
	}
	w.hub, err = startPod(ctx, podConfig{
		name: "hub", cluster: w.management, namespace: hubNamespace, workload: "statefulset/culvert-hub", binary: "culvert-hub",
	})
	return err
}

func (w *world) caFile() string { return filepath.Join(testbed.Dir(), "hub-ca.crt") }

func (w *world) address() string { return testbed.HubAddress.String() + ":8443" }

// joinLine has the hub make a join token, as an administrator over HTTPS.
func (w *world) joinLine(ctx context.Context, cluster string) (string, error) {
	cmd := w.cli(ctx, "token", "create", "--hub", "https://"+w.address(), "--hub-ca", w.caFile(), "--token-file", w.administers, "--cluster", cluster)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("culvert token create: %w", err)
	}
	fields := strings.Fields(string(out))
	w.plant(fields[len(fields)-1])
	return string(out), nil
}

func (w *world) stop() error {
	var errs []error
	if w.hub != nil {
		errs = append(errs, w.hub.stop())
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	if w.private != nil {
		errs = append(errs, w.private.Close())
	}
	return errors.Join(errs...)
}

// get asks the hub as the caller, on a connection of its own.
func (w *world) get(ctx context.Context, path string) (status int, body string, err error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(w.authority.pem))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+w.address()+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+w.caller)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// await waits until namespaces of a cluster are answered with a status.
func (w *world) await(ctx context.Context, cluster string, want int) error {
	return testbed.Poll(ctx, fmt.Sprintf("%d from %s", want, cluster), func(ctx context.Context) error {
		status, body, err := w.get(ctx, "/"+cluster+"/api/v1/namespaces")
		if err == nil && status != want {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
}
