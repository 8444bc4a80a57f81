package refusals

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// auditPolicy lets the managed cluster's API server record who asked for what.
const auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"

// world is what the tests share: a hub with a token file and token review by a
// real cluster, and agents of
//
//	managed    a real cluster
//	recorder   a server that answers with the headers that reached it
//	away       known to the hub, its agent is gone
type world struct {
	bed                 *testbed.Bed
	hubCluster, managed *testbed.Cluster
	auditLog            string
	hub                 *hub
	recorder            *recorder
	agents              []*testbed.Process

	// ada is in the group dev; root is in system:masters and ops, at the hub.
	ada, root string
	// robot is a service account of the hub's cluster.
	robot string
	// secrets are all credentials that were made, by a name for messages.
	secrets map[string]string
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{ada: rand.Text(), root: rand.Text(), auditLog: filepath.Join(testbed.Dir(), "audit.log")}
	w.secrets = map[string]string{"ada's token": w.ada, "root's token": w.root}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	if err := w.startClusters(ctx); err != nil {
		return nil, err
	}
	if w.hub, err = w.startHub(ctx); err != nil {
		return nil, err
	}
	if w.recorder, err = startRecorder(filepath.Join(testbed.Dir(), "recorder.kubeconfig")); err != nil {
		return nil, err
	}
	w.secrets["the recorder's agent's token"] = w.recorder.agentToken
	kubeconfig, err := w.managed.AgentKubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	if w.secrets["the managed cluster's agent's token"], err = tokenOf(kubeconfig); err != nil {
		return nil, err
	}
	for _, a := range []struct{ cluster, kubeconfig string }{
		{"managed", kubeconfig}, {"recorder", w.recorder.kubeconfig}, {"away", w.recorder.kubeconfig},
	} {
		agent, err := w.hub.startAgent(ctx, a.cluster, a.kubeconfig)
		if err != nil {
			return nil, err
		}
		w.agents = append(w.agents, agent)
		if err := w.hub.await(ctx, a.cluster, w.ada); err != nil {
			return nil, err
		}
	}
	if err := w.agents[2].Stop(ctx); err != nil {
		return nil, err
	}
	return w, testbed.Poll(ctx, "the hub to know that away is away", func(ctx context.Context) error {
		status, body, err := w.hub.get(ctx, "/away/version", w.ada)
		if err == nil && (status != http.StatusServiceUnavailable || !strings.Contains(body, "no agent of the cluster is connected")) {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})
}

// startClusters starts the API servers. The managed one knows ada's token of the
// hub as that of another, all-powerful user: a trap, should it ever arrive there.
func (w *world) startClusters(ctx context.Context) error {
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	policy := filepath.Join(testbed.Dir(), "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	dir := filepath.Join(testbed.Dir(), "k")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: dir, Servers: servers}); err != nil {
		return err
	}
	clusters, err := w.bed.StartClusters(ctx, testbed.ClusterConfig{Name: "hub"}, testbed.ClusterConfig{
		Name: "managed",
		Tokens: []testbed.StaticToken{
			{Token: w.ada, User: "trap", UID: "trap", Groups: []string{"system:masters"}},
			{Token: w.root, User: "trap", UID: "trap", Groups: []string{"system:masters"}},
		},
		ExtraArgs: []string{"--audit-policy-file=" + policy, "--audit-log-path=" + w.auditLog, "--audit-log-mode=blocking"},
	})
	if err != nil {
		return err
	}
	w.hubCluster, w.managed = clusters[0], clusters[1]
	for _, c := range clusters {
		if w.secrets["the administrator's token of "+c.Name], err = tokenOf(c.AdminKubeconfig); err != nil {
			return err
		}
	}
	return nil
}

// startHub starts the hub, which logs all that it ever logs.
func (w *world) startHub(ctx context.Context) (*hub, error) {
	reviewer, err := w.hubCluster.ReviewerKubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	if w.secrets["the hub's own token"], err = tokenOf(reviewer); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"create", "namespace", "team"}, {"-n", "team", "create", "serviceaccount", "robot"}} {
		if _, err := w.hubCluster.Kubectl(ctx, args...); err != nil {
			return nil, err
		}
	}
	if w.robot, err = w.hubCluster.CreateToken(ctx, "team", "robot"); err != nil {
		return nil, err
	}
	w.secrets["robot's token"] = w.robot
	tokens := filepath.Join(testbed.Dir(), "tokens.csv")
	text := fmt.Sprintf("%s,ada,1,\"dev\"\n%s,root,0,\"system:masters,ops\"\n", w.ada, w.root)
	if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
		return nil, err
	}
	policy, err := testbed.WriteOpenPolicy(testbed.Dir())
	if err != nil {
		return nil, err
	}
	return startHub(ctx, "hub", "--token-file", tokens, "--token-review-kubeconfig", reviewer, "--policy", policy)
}

// close ends everything and looks through all logs.
func (w *world) close() error {
	if err := w.stop(); err != nil {
		return err
	}
	logs, err := culvertLogs()
	if err != nil {
		return err
	}
	return errors.Join(w.leaked(logs), racesIn(logs))
}

func (w *world) stop() error {
	var errs []error
	for _, p := range w.agents {
		errs = append(errs, p.Stop(context.Background()))
	}
	if w.hub != nil {
		errs = append(errs, w.hub.stop())
	}
	if w.recorder != nil {
		w.recorder.server.Close()
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
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
