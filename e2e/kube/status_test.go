package kube

import (
	"strings"
	"testing"
	"time"
)

// testStatus shows whose answer a client gets when a call fails.
func testStatus(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	stranger := w.serviceAccount(ctx, t, "operators", "stranger")
	t.Run("D18: the API server's own refusals pass unmodified, byte for byte", func(t *testing.T) {
		for name, version := range versions {
			client := w.caller(t, version)
			for _, path := range []string{
				"/api/v1/namespaces/kube-system/secrets", "/apis/apps/v1/deployments?limit=1", "/api/v1/namespaces/work/configmaps/first",
				"/no/such/path", "/api/v1/nodes/x/proxy/",
			} {
				w.sameAnswer(t, client, name+" "+path, path, stranger)
			}
			for _, path := range []string{"/api/v1/namespaces/work/configmaps/missing", "/apis/none.example/v1/things", "/api/v1/namespaces/work/pods/x?watch=maybe"} {
				w.sameAnswer(t, client, name+" "+path, path, w.ops)
			}
		}
	})
	t.Run("D18: a refusal of a change passes unmodified too", func(t *testing.T) {
		for what, body := range map[string]string{
			"invalid": `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NOT VALID"}}`,
			"broken":  `{"apiVersion":"v1","kind":`,
			"exists":  `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"first"}}`,
		} {
			const path = "/api/v1/namespaces/work/configmaps"
			got, err := send(ctx, w.caller(t, 2), "POST", managedURL+path, strings.NewReader(body),
				"Authorization", "Bearer "+w.ops.token, "Content-Type", "application/json")
			must(t, err)
			want := w.direct(t, "POST", path, []byte(body), "Impersonate-User", hubPrefix+w.ops.name, "Content-Type", "application/json")
			if want.status < 400 {
				t.Fatalf("%s: directly %d", what, want.status)
			}
			same(t, what, got, want)
		}
	})
	t.Run("D18: the hub's own errors have the same shape, and headers that tell them apart", func(t *testing.T) {
		for _, c := range []struct {
			what, url, token, reason, code string
			status                         int
		}{
			{"no token", managedURL + "/api", "", "Unauthorized", "unauthenticated", 401},
			{"a wrong token", managedURL + "/api", "wrong", "Unauthorized", "unauthenticated", 401},
			{"an unknown cluster", hubURL + "/nowhere/api", w.ops.token, "NotFound", "not-found", 404},
			{"a name that is no cluster's", hubURL + "/No_Cluster/api", w.ops.token, "BadRequest", "invalid-target", 400},
			{"no cluster", hubURL + "/", w.ops.token, "", "", 0},
			{"an unknown path of the hub's own", hubURL + "/-/none", "", "NotFound", "not-found", 404},
		} {
			header := []string{}
			if c.token != "" {
				header = append(header, "Authorization", "Bearer "+c.token)
			}
			res, err := send(ctx, w.caller(t, 2), "GET", c.url, nil, header...)
			must(t, err)
			s := statusOf(t, res)
			if c.status != 0 && (res.status != c.status || s.Reason != c.reason || res.header.Get("X-Culvert-Error") != c.code) {
				t.Errorf("%s: %d %v %s", c.what, res.status, res.header, res.body)
			}
			if res.header.Get("X-Culvert-Error") == "" || res.header.Get("X-Request-Id") == "" || res.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: header %v", c.what, res.header)
			}
		}
		res := get(t, w.caller(t, 2), managedURL+"/api/v1/namespaces/kube-system/secrets", stranger.token, 403)
		if _, ours := res.header["X-Culvert-Error"]; ours {
			t.Errorf("the API server's answer is marked as the hub's: %v", res.header)
		}
	})
	t.Run("D18: kubectl understands the hub's errors", func(t *testing.T) {
		nobody := w.user(t, "without-token", "")
		_, err := nobody.kubectl.Run(ctx, "get", "pods", "--token=wrong")
		if err == nil || !strings.Contains(err.Error(), "You must be logged in to the server") && !strings.Contains(err.Error(), "Unauthorized") {
			t.Errorf("got %v", err)
		}
	})
}
