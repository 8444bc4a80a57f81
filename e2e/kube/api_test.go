package kube

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// differing are the fields of an answer that differ between any two requests.
var differing = []string{"Date", "Audit-Id", "X-Request-Id"}

// sameAnswer asks through the hub as u, and directly as the administrator who
// impersonates whom the hub makes of u, and holds the answers against each
// other, byte for byte. It returns the version of HTTP that the hub spoke.
func (w *world) sameAnswer(t *testing.T, client *http.Client, what, path string, u user, header ...string) (proto string) {
	t.Helper()
	direct := path
	if direct == "" {
		direct = "/" // the cluster's root
	}
	ask := func() reply {
		return w.direct(t, "GET", direct, nil, append([]string{"Impersonate-User", hubPrefix + u.name}, header...)...)
	}
	before := ask()
	ctx := within(t, time.Minute)
	for {
		got, err := send(ctx, client, "GET", managedURL+path, nil, append([]string{"Authorization", "Bearer " + u.token}, header...)...)
		must(t, err)
		after := ask()
		if string(before.body) != string(after.body) {
			// Other tests write: a list carries the version of all objects.
			before = after
			continue
		}
		same(t, what, got, after)
		return got.proto
	}
}

// same holds an answer through the hub against the direct one.
func same(t *testing.T, what string, got, want reply) {
	t.Helper()
	if got.status != want.status || string(got.body) != string(want.body) {
		t.Errorf("%s: through the hub %d %.500s\ndirectly %d %.500s", what, got.status, got.body, want.status, want.body)
	}
	for _, name := range differing {
		got.header.Del(name)
		want.header.Del(name)
	}
	if !reflect.DeepEqual(got.header, want.header) {
		t.Errorf("%s: header through the hub %v\ndirectly %v", what, got.header, want.header)
	}
}

func testAPI(t *testing.T, w *world) {
	authorization := "Bearer " + w.ops.token
	t.Run("O20,O22: paths, queries and escapes give what the API server itself answers", func(t *testing.T) {
		for name, version := range versions {
			client := w.caller(t, version)
			for _, path := range []string{
				"/api", "/apis", "/version", "/api/v1/namespaces/work/configmaps/first", "/api/v1/namespaces/work",
				"/api/v1/namespaces?fieldSelector=metadata.name%3Dwork",
				"/api/v1/namespaces?labelSelector=kubernetes.io%2Fmetadata.name%20in%20%28work%2Cidle%29",
				"/api/v1/namespaces?labelSelector=kubernetes.io%2Fmetadata.name+notin+(work)&limit=1",
				"/api/v1/namespaces/work/configmaps/a%2Fb", "/api/v1/namespaces/work%2Fconfigmaps", "/apis%2Fapps",
				"//api/v1", "/api//v1/namespaces/work", "/api/v1/namespaces/work/", "/api/v1/namespaces/none/pods/%C3%A9%3A",
				"/nothing/here?a=b;c&d=%zz", "/", "",
			} {
				if proto := w.sameAnswer(t, client, name+" "+path, path, w.ops); proto != map[int]string{1: "HTTP/1.1", 2: "HTTP/2.0"}[version] {
					t.Errorf("the hub answered with %s", proto)
				}
			}
		}
	})
	t.Run("O20,O22: OpenAPI, as the API server sends it, compressed or not", func(t *testing.T) {
		client := w.caller(t, 2)
		for _, encoding := range []string{"gzip", "identity"} {
			for _, path := range []string{"/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"} {
				w.sameAnswer(t, client, encoding+" "+path, path, w.ops, "Accept-Encoding", encoding)
			}
		}
	})
	t.Run("O20: a chunked body reaches the API server", func(t *testing.T) {
		for name, version := range versions {
			// A reader without a known length makes HTTP/1.1 use chunks.
			body := struct{ *strings.Reader }{strings.NewReader(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"chunked-"}}`)}
			res, err := send(t.Context(), w.caller(t, version), "POST", managedURL+"/api/v1/namespaces/work/configmaps", body,
				"Authorization", authorization, "Content-Type", "application/json")
			must(t, err)
			if res.status != http.StatusCreated {
				t.Errorf("%s: %d %s", name, res.status, res.body)
			}
		}
	})
	t.Run("O20: '.' and '..' are refused in every spelling", func(t *testing.T) {
		for _, path := range []string{
			"/..", "/../hub/api", "/api/../apis", "/api/./v1", "/api/%2e%2e/apis", "/api/%2E./apis", "/api/.%2e/apis",
			"/api/..%2fapis", "/api%2f..%2fapis", "/api/..%5capis", "/api/..;/apis", "/api/%2e", "/api/v1/..",
		} {
			res, err := w.curl(t.Context(), nil, "--path-as-is", "-H", "Authorization: "+authorization, managedURL+path)
			must(t, err)
			if s := statusOf(t, res); res.status != 400 || s.Reason != "BadRequest" {
				t.Errorf("%s: %d %s", path, res.status, res.body)
			}
		}
	})
}

func testInformer(t *testing.T, w *world) {
	t.Run("O20: a client-go informer lists and then sees additions, changes and deletions", func(t *testing.T) {
		config := &rest.Config{
			Host: managedURL, BearerToken: w.ops.token, TLSClientConfig: rest.TLSClientConfig{CAData: w.ca}, APIPath: "/api",
			ContentConfig: rest.ContentConfig{GroupVersion: &corev1.SchemeGroupVersion, NegotiatedSerializer: scheme.Codecs.WithoutConversion()},
		}
		client, err := rest.HTTPClientFor(config)
		must(t, err)
		t.Cleanup(client.CloseIdleConnections)
		api, err := rest.RESTClientForConfigAndClient(config, client)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		events := make(chan string)
		tell := func(what string, object any) {
			if name := object.(*corev1.ConfigMap).Name; name == "first" || name == "informed" {
				select {
				case events <- what + " " + name:
				case <-ctx.Done():
				}
			}
		}
		store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
			ListerWatcher: cache.NewListWatchFromClient(api, "configmaps", "work", fields.Everything()),
			ObjectType:    &corev1.ConfigMap{},
			Handler: cache.ResourceEventHandlerFuncs{
				AddFunc:    func(object any) { tell("add", object) },
				UpdateFunc: func(_, object any) { tell("update", object) },
				DeleteFunc: func(object any) { tell("delete", object) },
			},
		})
		ended := make(chan struct{})
		go runInformer(ctx, controller, ended)
		t.Cleanup(func() { cancel(); <-ended })
		await := func(want string) {
			t.Helper()
			timer := time.NewTimer(30 * time.Second)
			defer timer.Stop()
			var seen []string
			for {
				select {
				case event := <-events:
					if seen = append(seen, event); event == want {
						return
					}
				case <-timer.C:
					t.Fatalf("no event %q; seen %q", want, seen)
				}
			}
		}
		await("add first")
		if res := w.direct(t, "POST", "/api/v1/namespaces/work/configmaps",
			[]byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"informed"}}`), "Content-Type", "application/json"); res.status != 201 {
			t.Fatalf("create: %d %s", res.status, res.body)
		}
		await("add informed")
		w.change(t, "work", "informed", "changed")
		await("update informed")
		if object, ok, err := store.GetByKey("work/informed"); err != nil || !ok || object.(*corev1.ConfigMap).Data["key"] != "changed" {
			t.Errorf("the store has %v, %v, %v", object, ok, err)
		}
		w.direct(t, "DELETE", "/api/v1/namespaces/work/configmaps/informed", nil)
		await("delete informed")
		if slices.Contains(store.ListKeys(), "work/informed") {
			t.Error("the store keeps a deleted object")
		}
	})
}

// runInformer ends with ctx and closes done.
func runInformer(ctx context.Context, controller cache.Controller, done chan<- struct{}) {
	defer close(done)
	controller.RunWithContext(ctx)
}
