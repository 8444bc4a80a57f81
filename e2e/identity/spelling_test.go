package identity

import (
	"strings"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// planted is in a Secret that the hub's policy denies to everybody, and that ada
// could read as far as the cluster is concerned.
const planted = "planted-in-a-secret"

func TestSpelling(t *testing.T) {
	ctx := t.Context()
	must(t, the.managed.Apply(ctx, `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: gold, namespace: work}, stringData: {key: planted-in-a-secret}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: goldfinger}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "cluster:hub:root"}]
`))
	t.Run("N8,V20,O20: no spelling of a path reads what the policy denies", func(t *testing.T) {
		for _, path := range []string{
			"/api/v1/namespaces/work/secrets/gold", "/api/v1/namespaces/work/secrets", "/api/v1/secrets", "/api/v1/secrets?watch=1&timeoutSeconds=1",
			"/api/v1/watch/secrets?timeoutSeconds=1", "/api/v1/watch/namespaces/work/secrets/gold?timeoutSeconds=1", "/api/v1/namespaces/work/secrets/",
			"//api/v1/namespaces/work/secrets/gold", "/api//v1/namespaces/work/secrets/gold", "/api/v1/namespaces/work//secrets/gold", "/api/v1/namespaces//work/secrets/gold",
			"/api/v1/namespaces/work/%73ecrets/gold", "/api/v1/namespaces/work/%2573ecrets/gold", "/api/v1/namespaces/work%2Fsecrets%2Fgold", "/api/v1/namespaces/work/secrets%2Fgold",
			"/api/v1/namespaces/work%2fsecrets/gold", "/api%2Fv1/namespaces/work/secrets/gold", "/%61pi/v1/namespaces/work/secrets/gold",
			"/api/v1/namespaces/work/configmaps/../secrets/gold", "/api/v1/namespaces/work/configmaps/%2e%2e/secrets/gold", "/api/v1/namespaces/work/./secrets/gold",
			"/api/v1/namespaces/work/Secrets/gold", "/API/v1/namespaces/work/secrets/gold", "/api/v1/namespaces/work/secrets;x/gold", "/api/v1/namespaces/work/secrets/gold;x",
			"/api/v1/namespaces/work/secrets/gold%00", "/api/v1/namespaces/work/secrets%20/gold", "/api/v1/namespaces/work/secrets/gold#x", "/api/v1/namespaces/work/secrets/gold?x=/../configmaps",
			"/api/v1/namespaces/%2577ork/secrets/gold", "/api/v1/namespaces/%77ork/secrets/gold", "/api/v1/namespaces/work/configmaps%2f..%2fsecrets/gold", "/api/v1/namespaces/work\\secrets\\gold",
			"/api/v1/proxy/namespaces/work/secrets/gold", "/apis/v1/namespaces/work/secrets/gold", "/api/v1/namespaces/work/secrets/gold/", "/api/v1/namespaces/work/secrets/gold/status",
		} {
			for _, protocol := range rawhttp.Protocols() {
				got := protocol.Send(ctx, the.hub.raw(), rawhttp.Request{Path: "/managed" + path, Header: []rawhttp.Field{{"authorization", "Bearer " + the.root}}})
				if strings.Contains(string(got.Body), planted) || strings.Contains(string(got.Body), "cGxhbnRlZC1pbi1hLXNlY3JldA") {
					t.Errorf("%s: %s: %d %s", protocol.Name, path, got.Status, got.Body)
				}
				if got.Status >= 500 {
					t.Errorf("%s: %s: %d %s", protocol.Name, path, got.Status, got.Body)
				}
			}
		}
	})
	t.Run("N8,K8: no spelling of a service reaches a port that no rule names", func(t *testing.T) {
		base := "/managed/api/v1/namespaces/shop/services/"
		if got, err := the.hub.ask(ctx, call{path: base + "web:8443/proxy-service/x", token: the.ada}); err != nil || got.status != 200 {
			t.Fatalf("the allowed one: %v %d %s", err, got.status, got.body)
		}
		before := the.recorder.requests.Load()
		for _, service := range []string{
			"https:kubernetes:0443", "https:kubernetes:443", "https:kubernetes:", "kubernetes", "web:9443", "https:web:09443", "web:admin", "https:web:admin", "WEB:8443", "web.:8443", "web.shop:8443",
			"web:08443", "web:+8443", "web:8443%20", "web:0x20fb", "web%3A9443", "https%3Aweb%3A9443", "https:web:9443:", ":web:8443", "web:8443:", "http:web:9443", "HTTPS:web:9443", "web:84430", "web:18446744073709560059",
			"hidden", "hidden.:8443", "127.0.0.1:8443", "localhost:8443", "web.shop.svc.cluster.local:9443",
		} {
			for _, protocol := range rawhttp.Protocols() {
				got := protocol.Send(ctx, the.hub.raw(), rawhttp.Request{Path: base + service + "/proxy-service/x", Header: []rawhttp.Field{{"authorization", "Bearer " + the.ada}}})
				if got.Status != 400 && got.Status != 403 && got.Status != 404 {
					t.Errorf("%s: %s: %d %s %s", protocol.Name, service, got.Status, got.Body, got.Cut)
				}
			}
		}
		for _, namespace := range []string{"default", "SHOP", "shop.", "kube-system", "shop%2F..%2Fdefault"} {
			got := the.hub.raw().HTTP1(ctx, rawhttp.Request{Path: "/managed/api/v1/namespaces/" + namespace + "/services/kubernetes:443/proxy-service/", Header: []rawhttp.Field{{"authorization", "Bearer " + the.ada}}})
			if got.Status != 400 && got.Status != 403 && got.Status != 404 {
				t.Errorf("namespace %s: %d %s %s", namespace, got.Status, got.Body, got.Cut)
			}
		}
		if n := the.recorder.requests.Load() - before; n != 0 {
			t.Errorf("%d reached a server", n)
		}
	})
}
