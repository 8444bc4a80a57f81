package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	hubUser        = "system:serviceaccount:open-cluster-management-hub:test-sa"
	agentNamespace = "open-cluster-management-agent"
	otherNamespace = "kube-system"
)

// pods stand in for the agent that OCM would have there. Nothing schedules them,
// so they stay Pending.
const pods = `kubectl --context managed create namespace open-cluster-management-agent
kubectl --context managed apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata:
  name: klusterlet-registration-agent
  namespace: open-cluster-management-agent
spec:
  containers: [{name: agent, image: registration}]
---
apiVersion: v1
kind: Pod
metadata:
  name: klusterlet-work-agent
  namespace: open-cluster-management-agent
spec:
  containers: [{name: agent, image: work}]
EOF`

// permissions are the objects of the OCM walkthrough, to the letter.
const permissions = `kubectl --context managed apply -f - <<EOF
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: test-sa-rolebinding
  namespace: open-cluster-management-agent
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: test-sa-role
subjects:
- kind: User
  name: cluster:hub:system:serviceaccount:open-cluster-management-hub:test-sa
  apiGroup: rbac.authorization.k8s.io
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: test-sa-role
  namespace: open-cluster-management-agent
rules:
- apiGroups: [""]
  resources: ["pods"]
  verbs: ["get", "list"]
EOF`

const createToken = `kubectl --context hub -n open-cluster-management-hub create token test-sa`

// walk plays the walkthrough and fails at the first answer that is not the
// expected one.
func (d *demo) walk(ctx context.Context, s screen) error {
	err := d.steps(ctx, s, []step{
		{"A hub user: a service account in the hub cluster", `kubectl --context hub create namespace open-cluster-management-hub
kubectl --context hub create serviceaccount -n open-cluster-management-hub test-sa`, nil},
		{"Something to look at in the managed cluster", pods, nil},
		{"What the hub user may do there: the managed cluster's own RBAC decides", permissions, nil},
	})
	if err != nil {
		return err
	}
	s.heading("A token of the hub cluster")
	s.command("TOKEN=$(" + createToken + ")")
	token, err := d.shell(ctx, createToken)
	if err != nil {
		return err
	}
	d.token = strings.TrimSpace(token)
	if strings.Count(d.token, ".") != 2 {
		return fmt.Errorf("kubectl create token: the answer is not a signed token (%d bytes)", len(d.token))
	}
	s.answer(fmt.Sprintf("(%d bytes, kept in $TOKEN)", len(d.token)))
	err = testbed.Poll(ctx, "the tunnel to cluster managed", func(ctx context.Context) error {
		return d.get(ctx, "/managed/version")
	})
	if err != nil {
		return fmt.Errorf("%w\nculvert-agent's log:\n%s\nculvert-hub's log:\n%s", err, d.logTail("culvert-agent"), d.logTail("culvert-hub"))
	}
	if err := d.writeUserFiles(ctx); err != nil {
		return err
	}
	return d.steps(ctx, s, []step{
		{"Pods of the managed cluster, through the hub, with the hub user's token", d.curl("$TOKEN", agentNamespace), isPodList},
		{"Another namespace: refused by the managed cluster's RBAC", d.curl("$TOKEN", otherNamespace), isForbidden},
		{"The same with kubectl", "kubectl --kubeconfig " + d.userKubeconfig() + " get pods -n " + agentNamespace,
			contains("klusterlet-registration-agent", "klusterlet-work-agent")},
		{"Who the managed cluster says it is", "kubectl --kubeconfig " + d.userKubeconfig() + " auth whoami",
			contains("cluster:hub:" + hubUser)},
	})
}

// step is one command of the walkthrough.
type step struct {
	title, command string
	// expect judges the answer; nil is content with exit code 0.
	expect func(answer string) error
}

func (d *demo) steps(ctx context.Context, s screen, steps []step) error {
	for _, step := range steps {
		s.heading(step.title)
		s.command(step.command)
		answer, err := d.shell(ctx, step.command)
		if err != nil {
			return err
		}
		s.answer(answer)
		if step.expect == nil {
			continue
		}
		if err := step.expect(answer); err != nil {
			return fmt.Errorf("unexpected answer in step %q: %w\nculvert-hub's log:\n%s", step.title, err, d.logTail("culvert-hub"))
		}
	}
	return nil
}

// shell runs a command exactly as it was printed and returns all its output.
func (d *demo) shell(ctx context.Context, text string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Join(d.dir, "bin")+":"+os.Getenv("PATH"),
		"KUBECONFIG="+d.kubeconfig, "KUBECACHEDIR="+filepath.Join(d.dir, "kubectl-cache"), "KUBERC=off",
		"TOKEN="+d.token)
	// A proxy of the user's environment must not get requests for 127.0.0.1.
	cmd.Env = append(cmd.Env, "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("command failed: %w\n%s\n%s", err, text, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// curl is the call of the OCM walkthrough, with the hub's CA instead of -k.
func (d *demo) curl(token, namespace string) string {
	return fmt.Sprintf(`curl -sS --cacert %s -w '\nHTTP %%{http_code}\n' -H "Authorization: Bearer %s" %s/managed/api/v1/namespaces/%s/pods`,
		d.caFile, token, d.url(), namespace)
}

// status splits an answer of curl into body and HTTP status.
func status(answer string) (body, code string) {
	i := strings.LastIndex(strings.TrimSpace(answer), "\n")
	if i < 0 {
		return "", answer
	}
	return answer[:i], strings.TrimSpace(answer[i:])
}

// isPodList wants 200 and the two pods.
func isPodList(answer string) error {
	body, code := status(answer)
	var list struct {
		Kind  string
		Items []struct{ Metadata struct{ Name string } }
	}
	if code != "HTTP 200" {
		return fmt.Errorf("want HTTP 200, got %s", code)
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return fmt.Errorf("want a PodList: %w", err)
	}
	if list.Kind != "PodList" || len(list.Items) != 2 {
		return fmt.Errorf("want a PodList of 2 pods, got %s of %d", list.Kind, len(list.Items))
	}
	return nil
}

// isForbidden wants 403 in the words of the managed cluster's RBAC, which names
// the impersonated user; an answer of the hub itself would not.
func isForbidden(answer string) error {
	body, code := status(answer)
	var refusal struct{ Kind, Reason, Message string }
	if code != "HTTP 403" {
		return fmt.Errorf("want HTTP 403, got %s", code)
	}
	if err := json.Unmarshal([]byte(body), &refusal); err != nil {
		return fmt.Errorf("want a Status: %w", err)
	}
	want := fmt.Sprintf(`User "cluster:hub:%s" cannot list resource "pods"`, hubUser)
	if refusal.Kind != "Status" || refusal.Reason != "Forbidden" || !strings.Contains(refusal.Message, want) {
		return fmt.Errorf("want a Status Forbidden that says %s, got %s %s: %s", want, refusal.Kind, refusal.Reason, refusal.Message)
	}
	return nil
}

func contains(parts ...string) func(string) error {
	return func(answer string) error {
		for _, part := range parts {
			if !strings.Contains(answer, part) {
				return fmt.Errorf("want %q in the answer", part)
			}
		}
		return nil
	}
}
