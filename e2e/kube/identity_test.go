package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	seedHubNamespace = "open-cluster-management-hub"
	seedNamespace    = "open-cluster-management-agent"
	seedUser         = "system:serviceaccount:" + seedHubNamespace + ":test-sa"
)

// seedObjects are those of OCM's walkthrough, to the letter, and a pod to see.
const seedObjects = `apiVersion: v1
kind: Namespace
metadata:
  name: open-cluster-management-agent
---
apiVersion: v1
kind: Pod
metadata:
  name: klusterlet-agent
  namespace: open-cluster-management-agent
spec:
  containers: [{name: agent, image: registration}]
---
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
`

// testWalkthrough repeats the calls of OCM's walkthrough, with the hub's CA in
// place of -k: same port, same name, same path, same identity, same RBAC.
func testWalkthrough(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	must(t, w.managed.Apply(ctx, seedObjects))
	testSA := w.serviceAccount(ctx, t, seedHubNamespace, "test-sa")
	call := func(t *testing.T, from *testbed.Namespace, namespace string, flags ...string) reply {
		t.Helper()
		res, err := w.curl(ctx, from, append(flags, "-H", "Authorization: Bearer "+testSA.token,
			"--resolve", seedName+":"+clientPort+":"+testbed.HubAddress.String(),
			"https://"+seedName+":"+clientPort+"/managed/api/v1/namespaces/"+namespace+"/pods")...)
		must(t, err)
		return res
	}
	isPodList := func(t *testing.T, res reply) {
		t.Helper()
		var list struct {
			Kind  string
			Items []struct{ Metadata struct{ Name string } }
		}
		if err := json.Unmarshal(res.body, &list); err != nil || res.status != 200 || list.Kind != "PodList" ||
			len(list.Items) != 1 || list.Items[0].Metadata.Name != "klusterlet-agent" {
			t.Errorf("got %d %s, %v", res.status, res.body, err)
		}
	}
	t.Run("O3,O4,O14,O15,O16,O18,O19: a service account of the hub, with a token by kubectl create token, lists pods by curl", func(t *testing.T) {
		// A binding counts once the API server has seen it, a moment after it was made.
		must(t, testbed.Poll(ctx, "the binding to count", func(context.Context) error {
			if res := call(t, nil, seedNamespace); res.status == http.StatusForbidden {
				return fmt.Errorf("%s", res.body)
			}
			return nil
		}))
		isPodList(t, call(t, nil, seedNamespace))
	})
	t.Run("O15,O16: another namespace is refused by the managed cluster's own RBAC, under the mapped name", func(t *testing.T) {
		res := call(t, nil, "kube-system")
		s := statusOf(t, res)
		want := fmt.Sprintf(`pods is forbidden: User "%s%s" cannot list resource "pods" in API group "" in the namespace "kube-system"`, hubPrefix, seedUser)
		if res.status != 403 || s.Reason != "Forbidden" || s.Message != want {
			t.Errorf("got %d %+v", res.status, s)
		}
	})
	t.Run("O16: other verbs in the same namespace are refused, and a new right counts at once", func(t *testing.T) {
		pod := managedURL + "/api/v1/namespaces/" + seedNamespace + "/pods/klusterlet-agent"
		authorization := "Authorization: Bearer " + testSA.token
		res, err := w.curl(ctx, nil, "-X", "DELETE", "-H", authorization, pod)
		must(t, err)
		if s := statusOf(t, res); res.status != 403 || !strings.Contains(s.Message, `cannot delete resource "pods"`) {
			t.Errorf("got %d %s", res.status, res.body)
		}
		_, err = w.managed.Kubectl(ctx, "-n", seedNamespace, "patch", "role", "test-sa-role", "--type=json",
			"-p", `[{"op":"add","path":"/rules/0/verbs/-","value":"delete"}]`)
		must(t, err)
		must(t, testbed.Poll(ctx, "the new right", func(ctx context.Context) error {
			res, err := w.curl(ctx, nil, "-X", "DELETE", "-H", authorization, pod+"?dryRun=All")
			if err == nil && res.status != 200 {
				err = fmt.Errorf("%d %s", res.status, res.body)
			}
			return err
		}))
	})
	t.Run("O19,O20: the same call over HTTP/1.1 and HTTP/2", func(t *testing.T) {
		for flag, proto := range map[string]string{"--http1.1": "HTTP/1.1", "--http2": "HTTP/2"} {
			res := call(t, nil, seedNamespace, flag)
			if isPodList(t, res); res.proto != proto {
				t.Errorf("curl %s spoke %s", flag, res.proto)
			}
		}
	})
	t.Run("O23: the same call from another private network, verified with the hub's CA", func(t *testing.T) {
		isPodList(t, call(t, w.office.Inside, seedNamespace))
	})
	t.Run("O23: the hub hands out its CA, and without it curl refuses", func(t *testing.T) {
		res, err := w.curl(ctx, w.office.Inside, hubURL+"/-/ca.crt")
		if err != nil || string(res.body) != string(w.ca) {
			t.Errorf("got %s, %v", res.body, err)
		}
		if _, err := curl(ctx, w.office.Inside, hubURL+"/-/ca.crt"); err == nil || !strings.Contains(err.Error(), "exit status 60") {
			t.Errorf("without the CA: %v, want curl's error 60", err)
		}
	})
	t.Run("O4: the hub's token is worth nothing at the managed cluster itself", func(t *testing.T) {
		client, err := w.managed.HTTPClient()
		must(t, err)
		defer client.CloseIdleConnections()
		res, err := send(ctx, client, "GET", w.managed.URL+"/api", nil, "Authorization", "Bearer "+testSA.token)
		if err != nil || res.status != 401 {
			t.Errorf("got %d %s, %v; want 401", res.status, res.body, err)
		}
	})
}

// self is the answer to a SelfSubjectReview.
type self struct {
	Status struct {
		UserInfo struct {
			Username, UID string
			Groups        []string
			Extra         map[string][]string
		}
	}
}

// whoami asks the managed cluster who u is, by kubectl.
func whoami(t *testing.T, u user, args ...string) self {
	t.Helper()
	out, err := u.kubectl.Run(t.Context(), append([]string{"auth", "whoami", "-o", "json"}, args...)...)
	must(t, err)
	var s self
	must(t, json.Unmarshal([]byte(out), &s))
	slices.Sort(s.Status.UserInfo.Groups)
	return s
}

func testIdentity(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	t.Run("O4,O15: kubectl auth whoami shows a hub service account's name, uid, groups and extra as mapped", func(t *testing.T) {
		got := whoami(t, w.ops).Status.UserInfo
		uid, err := w.hub.Kubectl(ctx, "-n", "operators", "get", "serviceaccount", "ops", "-o", "jsonpath={.metadata.uid}")
		must(t, err)
		groups := []string{
			"cluster:hub:system:authenticated", "cluster:hub:system:serviceaccounts", "cluster:hub:system:serviceaccounts:operators",
			"system:authenticated",
		}
		if got.Username != "cluster:hub:system:serviceaccount:operators:ops" || got.UID != uid || !slices.Equal(got.Groups, groups) {
			t.Errorf("got %+v, want uid %s and groups %q", got, uid, groups)
		}
		if !slices.Equal(got.Extra["culvert.dev/hub-user"], []string{w.ops.name}) ||
			len(got.Extra["authentication.kubernetes.io/credential-id"]) != 1 {
			t.Errorf("got extra %v", got.Extra)
		}
	})
	ada := w.user(t, "ada", adaToken)
	t.Run("O15: a user of the hub's token file is mapped alike, and system:masters is not passed on", func(t *testing.T) {
		got := whoami(t, ada).Status.UserInfo
		if got.Username != "cluster:hub:ada" || got.UID != "ada-uid" || !slices.Equal(got.Groups, []string{"cluster:hub:dev", "system:authenticated"}) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("O15,O16: a binding to a mapped group counts, and nothing beyond it", func(t *testing.T) {
		if out, err := ada.kubectl.Run(ctx, "-n", "work", "get", "configmap", "first", "-o", "name"); err != nil {
			t.Errorf("got %q, %v", out, err)
		}
		if out, err := ada.kubectl.Run(ctx, "-n", "kube-system", "get", "configmaps"); err == nil || !strings.Contains(err.Error(), `User "cluster:hub:ada" cannot list`) {
			t.Errorf("got %q, %v; want Forbidden", out, err)
		}
	})
	t.Run("O4: an identity that the client claims does not count, in any spelling", func(t *testing.T) {
		for _, claim := range []string{
			"Impersonate-User: admin", "impersonate-user: admin", "Impersonate_User: admin", "Impersonate-Group: system:masters",
			"Impersonate-Extra-Culvert.dev%2fhub-User: root", "X-Remote-User: admin", "X-Remote-Group: system:masters",
		} {
			res, err := w.curl(ctx, nil, "-H", "Authorization: Bearer "+adaToken, "-H", claim, "-H", "Content-Type: application/json",
				"-d", `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`, managedURL+"/apis/authentication.k8s.io/v1/selfsubjectreviews")
			must(t, err)
			if strings.HasPrefix(strings.ToLower(claim), "impersonate") {
				// To ask for it is refused, where no rule of the hub allows it.
				if s := statusOf(t, res); res.status != 400 && res.status != 403 || s.Reason != "BadRequest" && s.Reason != "Forbidden" {
					t.Errorf("with %s: %d %s", claim, res.status, res.body)
				}
				continue
			}
			var got self
			must(t, json.Unmarshal(res.body, &got))
			info := got.Status.UserInfo
			if info.Username != "cluster:hub:ada" || slices.Contains(info.Groups, "system:masters") || !slices.Equal(info.Extra["culvert.dev/hub-user"], []string{"ada"}) {
				t.Errorf("with %s: %+v", claim, info)
			}
		}
	})
	t.Run("O18: tokens of other sources work as they are: the hub cluster's token file, a chosen lifetime, kubectl --token", func(t *testing.T) {
		grace := w.user(t, "grace", graceToken)
		if got := whoami(t, grace).Status.UserInfo; got.Username != "cluster:hub:grace" || got.UID != "grace-uid" {
			t.Errorf("got %+v", got)
		}
		token, err := w.hub.CreateToken(ctx, "operators", "ops", "--duration=10m")
		must(t, err)
		nobody := w.user(t, "nobody", "")
		if got := whoami(t, nobody, "--token", token).Status.UserInfo; got.Username != hubPrefix+w.ops.name {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("O14: a token for another audience, of another cluster, or of a service account that is gone is refused", func(t *testing.T) {
		foreign, err := w.hub.CreateToken(ctx, "operators", "ops", "--audience=somebody-else")
		must(t, err)
		other, err := w.managed.CreateToken(ctx, "culvert-agent", "culvert-agent")
		must(t, err)
		leaver := w.serviceAccount(ctx, t, "operators", "leaver")
		_, err = w.hub.Kubectl(ctx, "-n", "operators", "delete", "serviceaccount", "leaver")
		must(t, err)
		// An API server hears of the end of an account a moment later.
		must(t, testbed.Poll(ctx, "the account to be gone", func(ctx context.Context) error {
			res, err := send(ctx, w.caller(t, 2), "GET", managedURL+"/version", nil, "Authorization", "Bearer "+leaver.token)
			if err == nil && res.status != http.StatusUnauthorized {
				err = fmt.Errorf("%d %s", res.status, res.body)
			}
			return err
		}))
		for name, token := range map[string]string{"audience": foreign, "cluster": other, "gone": leaver.token} {
			res := get(t, w.caller(t, 2), managedURL+"/version", token, 401)
			if s := statusOf(t, res); s.Reason != "Unauthorized" {
				t.Errorf("%s: %+v", name, s)
			}
		}
	})
}
