package identity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// exposed is Open Cluster Management's list of services.
const exposed = `apiVersion: v1
kind: ConfigMap
metadata: {name: cluster-proxy-exposed-services, namespace: open-cluster-management-addon}
data:
  services.yaml: |
    - namespace: shop
      service: web
      port: 8443
      protocol: https
`

func servicePath(service string) string {
	return "/managed/api/v1/namespaces/shop/services/" + service + "/proxy-service/x?y=z"
}

func TestServicesByPolicy(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	want := func(t *testing.T, c call, status int, code string, says ...string) line {
		t.Helper()
		got, err := the.hub.ask(ctx, c)
		must(t, err)
		if got.status != status || got.header.Get("X-Culvert-Error") != code {
			t.Errorf("%s: %d %q %s, want %d %q", c.path, got.status, got.header.Get("X-Culvert-Error"), got.body, status, code)
		}
		for _, words := range says {
			if !strings.Contains(string(got.body), words) {
				t.Errorf("%s: the answer does not say %q: %s", c.path, words, got.body)
			}
		}
		l, err := lineOf(ctx, got)
		must(t, err)
		return l
	}
	t.Run("V20,N8: a service is reached where a rule of the hub and one of the agent allow it, and no other", func(t *testing.T) {
		l := want(t, call{path: servicePath("web:8443"), token: the.ada}, 200, "")
		if l.Decision != "allow" || l.Rule != "shop" || !strings.Contains(l.Target, "shop/web") {
			t.Errorf("%+v", l)
		}
		// Nobody's rule at the hub.
		l = want(t, call{path: servicePath("web:8443"), token: the.boss}, 403, "permission-denied", "policy")
		if l.Decision != "deny" || l.Rule != "(default)" {
			t.Errorf("%+v", l)
		}
		// A rule at the hub, and none at the agent.
		l = want(t, call{path: servicePath("hidden:8443"), token: the.ada}, 403, "permission-denied", "agent")
		if l.Decision != "allow" || l.Hop != "agent" || l.Code != "permission-denied" {
			t.Errorf("%+v", l)
		}
		// And the agent's word alone is not enough on another cluster.
		want(t, call{path: strings.Replace(servicePath("web:8443"), "managed", "open", 1), token: the.ada}, 403, "permission-denied")
	})
	t.Run("K8: Open Cluster Management's list becomes a policy, and the agent follows its file", func(t *testing.T) {
		list := filepath.Join(t.TempDir(), "exposed.yaml")
		must(t, os.WriteFile(list, []byte(exposed), 0o600))
		imported, err := run(ctx, "culvert", "policy", "import-ocm", list)
		must(t, err)
		t.Cleanup(func() {
			must(t, os.WriteFile(agentPolicyFile(), []byte(agentPolicy), 0o600))
			awaitStatus(afterwards(t), t, call{path: servicePath("web:8443"), token: the.ada}, 200)
		})
		must(t, os.WriteFile(agentPolicyFile(), []byte("apiVersion: policy.culvert.dev/v1\nkind: Policy\n"), 0o600))
		awaitStatus(ctx, t, call{path: servicePath("web:8443"), token: the.ada}, 403)
		must(t, os.WriteFile(agentPolicyFile(), []byte(imported), 0o600))
		awaitStatus(ctx, t, call{path: servicePath("web:8443"), token: the.ada}, 200)
		want(t, call{path: servicePath("web:9443"), token: the.ada}, 403, "permission-denied")
		want(t, call{path: "/managed" + firstPath, token: the.ada}, 200, "")
	})
	t.Run("N8: the owner of a cluster can take the Kubernetes API away too, whatever the hub allows", func(t *testing.T) {
		t.Cleanup(func() {
			must(t, os.WriteFile(agentPolicyFile(), []byte(agentPolicy), 0o600))
			awaitStatus(afterwards(t), t, call{path: "/managed" + firstPath, token: the.ada}, 200)
		})
		must(t, os.WriteFile(agentPolicyFile(), []byte(agentPolicy+"- {name: no-maps, effect: deny, kubernetes: [{resources: [configmaps]}]}\n"), 0o600))
		awaitStatus(ctx, t, call{path: "/managed" + firstPath, token: the.ada}, 403)
		l := want(t, call{path: "/managed" + firstPath, token: the.ada}, 403, "permission-denied", "agent", "no-maps")
		if l.Decision != "allow" || l.Hop != "agent" {
			t.Errorf("%+v", l)
		}
		want(t, call{path: "/managed/api/v1/namespaces/work/pods/worker", token: the.ada}, 200, "")
	})
	t.Run("N8: culvert policy test tells what the hub decides, and by which rule", func(t *testing.T) {
		for _, c := range []struct {
			args, says string
			code       int
		}{
			{"--user ada --group dev --path " + firstPath, "default", 0},
			{"--user ada --group dev --path " + secretsPath, "no-secrets", 6},
			{"--user eve --path " + firstPath, "not-eve", 6},
			{"--user ada --service shop/web:8443", "shop", 0},
			{"--user boss --service shop/web:8443", "default", 6},
			{"--user boss --group bosses --as ada --as-group dev", "bosses-act", 0},
			{"--user boss --group bosses --as root", "default", 6},
		} {
			args := append([]string{"policy", "test", "--policy", policyFile(), "--cluster", "managed"}, strings.Fields(c.args)...)
			out, err := exec.CommandContext(ctx, bin("culvert"), args...).CombinedOutput()
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			}
			if code != c.code || !strings.Contains(string(out), c.says) {
				t.Errorf("%s: exit code %d, want %d: %s", c.args, code, c.code, out)
			}
		}
	})
}

// awaitStatus waits for an answer of the hub "main".
func awaitStatus(ctx context.Context, t *testing.T, c call, want int) {
	t.Helper()
	the.hub.await(ctx, t, c, want)
}

// await waits for an answer with a status, and returns it.
func (h *hub) await(ctx context.Context, t *testing.T, c call, want int) (got reply) {
	t.Helper()
	must(t, testbed.Poll(ctx, fmt.Sprintf("status %d of %s", want, c.path), func(ctx context.Context) (err error) {
		got, err = h.ask(ctx, c)
		if err == nil && got.status != want {
			err = fmt.Errorf("%d %s", got.status, got.body)
		}
		return err
	}))
	return got
}

func TestImpersonation(t *testing.T) {
	ctx := within(t, time.Minute)
	t.Run("N9,O15: kubectl --as is who the hub's policy lets a caller be, with the real one in extra", func(t *testing.T) {
		boss := the.kubectl(t, "managed", the.boss)
		out, err := boss.Run(ctx, "--as=ada", "--as-group=dev", "-n", "work", "get", "configmap", "first", "-o", "name")
		if err != nil || out != "configmap/first\n" {
			t.Errorf("%q %v", out, err)
		}
		u := whoami(t, "managed", call{token: the.boss, header: []string{"Impersonate-User", "ada", "Impersonate-Group", "dev"}})
		if u.Username != "cluster:hub:ada" || !slices.Contains(u.Groups, "cluster:hub:dev") || slices.Contains(u.Groups, "cluster:hub:bosses") || u.UID != "" {
			t.Errorf("%+v", u)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(u.Extra)), func(key string) bool {
			return strings.HasPrefix(key, "culvert.dev/") && slices.Contains(u.Extra[key], "boss")
		}) {
			t.Errorf("the real user is not in extra: %+v", u)
		}
		if _, err := boss.Run(ctx, "--as=root", "get", "ns"); err == nil || !strings.Contains(err.Error(), "impersonate") {
			t.Errorf("as root: %v", err)
		}
		if _, err := boss.Run(ctx, "-n", "work", "get", "configmap", "first"); err == nil {
			t.Error("boss alone may read it")
		}
	})
	t.Run("N9,O15: kubectl --as-uid is followed where a rule has the UID, and refused otherwise", func(t *testing.T) {
		boss := the.kubectl(t, "managed", the.boss)
		out, err := boss.Run(ctx, "--as=ada", "--as-uid=lent-uid", "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.uid}")
		if err != nil || out != "cluster:hub:ada lent-uid" {
			t.Errorf("%q %v", out, err)
		}
		if out, err := boss.Run(ctx, "--as=ada", "--as-uid=ada-uid", "get", "--raw", "/version"); err == nil || !strings.Contains(err.Error(), "impersonate") {
			t.Errorf("with another UID: %q %v", out, err)
		}
	})
	t.Run("N9,O15: UID and extra are carried, and no group becomes one of the cluster's own", func(t *testing.T) {
		u := whoami(t, "managed", call{token: the.root})
		if u.Username != "cluster:hub:root" || u.UID != "root-uid" || !slices.Contains(u.Groups, "cluster:hub:ops") {
			t.Errorf("%+v", u)
		}
		for _, group := range u.Groups {
			if strings.Contains(group, "masters") {
				t.Errorf("group %s", group)
			}
		}
		token, err := the.good.token(ctx, "", claims{"teams": []string{"system:masters", "system:nodes", "dev"}})
		must(t, err)
		u = whoami(t, "managed", call{token: token})
		if !slices.Contains(u.Groups, "cluster:hub:dev") || slices.Contains(u.Groups, "system:nodes") || strings.Contains(strings.Join(u.Groups, " "), "masters") {
			t.Errorf("%+v", u)
		}
		if u.UID != "olga-sub" || !slices.Contains(u.Extra["example.com/subject"], "olga-sub") {
			t.Errorf("UID and extra: %+v", u)
		}
	})
	t.Run("N9: the agent's account can impersonate, and nothing else", func(t *testing.T) {
		kubeconfig, err := the.managed.AgentKubeconfig(ctx)
		must(t, err)
		out, err := the.managed.KubectlAs(kubeconfig).Run(ctx, "auth", "can-i", "--list", "--no-headers")
		must(t, err)
		for l := range strings.Lines(out) {
			verbs := l[strings.LastIndex(l, "[")+1:]
			resource, _, _ := strings.Cut(l, " ")
			switch {
			case strings.HasPrefix(verbs, "impersonate]"):
			case strings.HasPrefix(resource, "self"), strings.Contains(l, "[/"): // what everybody may: discovery and reviews of oneself
			default:
				t.Errorf("also %s", l)
			}
		}
	})
}

func TestOtherIssuers(t *testing.T) {
	ctx := within(t, time.Minute)
	t.Run("O14,K7: the tokens of an API server's service accounts are OIDC tokens, for the audience that is set", func(t *testing.T) {
		token, err := the.managed.CreateToken(ctx, "work", "caller", "--audience=culvert-workloads")
		must(t, err)
		the.plant("a workload's token", token)
		awaitStatus(ctx, t, call{path: "/managed/version", token: token}, 200) // the API server's keys are fetched by now
		if u := whoami(t, "managed", call{token: token}); u.Username != "cluster:hub:managed:system:serviceaccount:work:caller" {
			t.Errorf("%+v", u)
		}
	})
	t.Run("O14,K7: a new issuer counts without a restart, and a bad file leaves the last in force", func(t *testing.T) {
		olga, err := the.good.token(ctx, "", claims{"aud": "another"})
		must(t, err)
		awaitStatus(ctx, t, call{path: "/managed" + firstPath, token: olga}, 401)
		t.Cleanup(func() {
			must(t, os.WriteFile(authenticationFile(), the.authentication(), 0o600))
			awaitStatus(afterwards(t), t, call{path: "/managed" + firstPath, token: olga}, 401)
		})
		must(t, os.WriteFile(authenticationFile(), []byte(strings.Replace(string(the.authentication()), "[culvert]", "[another]", 1)), 0o600))
		awaitStatus(ctx, t, call{path: "/managed" + firstPath, token: olga}, 200)
		must(t, os.WriteFile(authenticationFile(), []byte("jwt: [{}]\n"), 0o600))
		must(t, testbed.Poll(ctx, "the report on the file", func(ctx context.Context) error {
			report, err := the.report(ctx)
			if err == nil && !strings.Contains(report, "uthentication") {
				err = errors.New(report)
			}
			return err
		}))
		awaitStatus(ctx, t, call{path: "/managed" + firstPath, token: olga}, 200)
	})
	t.Run("O17: roles and bindings are made by way of the hub, and count at once", func(t *testing.T) {
		must(t, the.managed.Apply(ctx, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: administrator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:root"}]
`))
		newcomer, err := serviceAccount(ctx, the.hubCluster, "team", "newcomer")
		must(t, err)
		awaitStatus(ctx, t, call{path: "/managed" + firstPath, token: newcomer}, 403)
		if _, err := the.kubectl(t, "managed", the.root).Run(ctx, "-n", "work", "create", "rolebinding", "newcomer", "--role=developers", "--user=cluster:hub:system:serviceaccount:team:newcomer"); err != nil {
			t.Fatal(err)
		}
		awaitStatus(ctx, t, call{path: "/managed" + firstPath, token: newcomer}, 200)
	})
}
