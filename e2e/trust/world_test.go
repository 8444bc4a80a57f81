package trust

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// grant lets ada of the hub list namespaces in the managed cluster.
const grant = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: namespaces}
rules:
- {apiGroups: [""], resources: [namespaces], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ada}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: namespaces}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:ada"}
`

// world is what the tests share: a real cluster in a private network, a server
// that stands in the place of an API server and sends as fast as it is read, and
// a hub for what is refused.
type world struct {
	bed     *testbed.Bed
	private *testbed.PrivateNetwork
	managed *testbed.Cluster
	// kubeconfig is that of the managed cluster's agents.
	kubeconfig string
	source     *source
	hub        *hub

	// ada is a user's token, at all hubs; tokens the file with it.
	ada, tokens string

	mu      sync.Mutex
	secrets map[string]string // by a name for messages
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{ada: rand.Text(), tokens: filepath.Join(testbed.Dir(), "tokens.csv"), secrets: map[string]string{}}
	w.plant("ada's token", w.ada)
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	if err := os.WriteFile(w.tokens, fmt.Appendf(nil, "%s,ada,1,\"dev\"\n", w.ada), 0o600); err != nil {
		return nil, err
	}
	if err := w.startCluster(ctx); err != nil {
		return nil, err
	}
	if w.source, err = startSource(filepath.Join(testbed.Dir(), "source.kubeconfig")); err != nil {
		return nil, err
	}
	w.plant("the source's agent's token", w.source.token)
	w.hub, err = w.newHub(ctx, "shared", hubConfig{})
	return w, err
}

func (w *world) startCluster(ctx context.Context) error {
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	dir := filepath.Join(testbed.Dir(), "k")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: dir, Servers: servers}); err != nil {
		return err
	}
	if w.private, err = testbed.NewPrivateNetwork(); err != nil {
		return err
	}
	if w.managed, err = w.bed.StartCluster(ctx, testbed.ClusterConfig{Name: "managed", Namespace: w.private.Inside}); err != nil {
		return err
	}
	if err := w.managed.Apply(ctx, grant); err != nil {
		return err
	}
	if w.kubeconfig, err = w.managed.AgentKubeconfig(ctx); err != nil {
		return err
	}
	token, err := tokenOf(w.kubeconfig)
	w.plant("the managed cluster's agent's token", token)
	return err
}

// plant registers what must be in no log at the end.
func (w *world) plant(name, secret string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if secret != "" {
		w.secrets[name] = secret
	}
}

// close ends everything and looks through all logs.
func (w *world) close() error {
	if err := w.stop(); err != nil {
		return err
	}
	if err := w.plantKeys(); err != nil {
		return err
	}
	logs, err := readLogs()
	if err != nil {
		return err
	}
	return errors.Join(w.leaked(logs), racesIn(logs))
}

func (w *world) stop() error {
	var errs []error
	if w.hub != nil {
		errs = append(errs, w.hub.stop())
	}
	if w.source != nil {
		w.source.server.Close()
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	if w.private != nil {
		errs = append(errs, w.private.Close())
	}
	return errors.Join(errs...)
}

// tokenOf returns the token in a kubeconfig of the test bed.
func tokenOf(kubeconfig string) (string, error) {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(text), `token: "`)
	token, _, ended := strings.Cut(rest, `"`)
	if !ok || !ended {
		return "", fmt.Errorf("%s holds no token", kubeconfig)
	}
	return token, nil
}
