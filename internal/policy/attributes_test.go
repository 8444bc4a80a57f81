package policy_test

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/culvertdev/culvert/internal/policy"
)

// asServer reads a request line as net/http and a kube-apiserver do.
func asServer(t testing.TB, method, target string) (*request.RequestInfo, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://x"+target, nil)
	if err != nil {
		t.Skip(err)
	}
	factory := &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	return factory.NewRequestInfo(r)
}

func compare(t testing.TB, method, path, query string) {
	t.Helper()
	want, wantErr := asServer(t, method, path+"?"+query)
	got, err := policy.Attributes(nil, method, path, query)
	if err != nil || wantErr != nil {
		if err == nil || wantErr == nil {
			t.Fatalf("%s %s?%s: got %v, want %v", method, path, query, err, wantErr)
		}
		return
	}
	if got.Verb != want.Verb || got.Namespace != want.Namespace || got.Resource != want.Resource || got.Subresource != want.Subresource ||
		got.Name != want.Name || got.APIGroup != want.APIGroup || got.APIVersion != want.APIVersion || got.ResourceRequest != want.IsResourceRequest || got.Path != want.Path {
		t.Fatalf("%s %s?%s\n got %+v\nwant %+v", method, path, query, got, want)
	}
}

func TestAttributes(t *testing.T) {
	t.Run("N8: requests are read as a kube-apiserver reads them", func(t *testing.T) {
		for _, path := range []string{
			"/", "/api", "/api/v1", "/api/v1/pods", "/api/v1/namespaces", "/api/v1/namespaces/a", "/api/v1/namespaces/a/status", "/api/v1/namespaces/a/pods",
			"/api/v1/namespaces/a/pods/b", "/api/v1/namespaces/a/pods/b/exec", "/apis/apps/v1/deployments", "/apis/apps/v1", "/api/v1/watch/pods", "/api/v1/watch",
			"/api/v1/proxy/namespaces/a/services/b", "//api/v1/pods", "/api//v1/pods", "/api/v1/pods/", "/api/v1/%70ods", "/api/v1/pods%2Fa", "/API/v1/pods", "/metrics", "/a+b%20c",
		} {
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO"} {
				for _, query := range []string{
					"", "watch=1", "watch=false", "watch=0", "watch=", "watch", "fieldSelector=metadata.name%3Dx", "watch=1&fieldSelector=metadata.name=x",
					"limit=x&watch=1", "x=1&watch=true&y=2", "watch=false&watch=true", "%77atch=1", "Watch=1", "a;watch=1", "fieldSelector=%3D%3D", "timeoutSeconds=x&fieldSelector=metadata.name=x",
				} {
					compare(t, method, path, query)
				}
			}
		}
	})
	t.Run("what is not read is refused, without the query", func(t *testing.T) {
		for _, path := range []string{"/api/v1/watch", "/a%zz"} {
			_, err := policy.Attributes(nil, "GET", path, "watch=1&token=planted")
			if err == nil || strings.Contains(err.Error(), "planted") {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

// FuzzAttributes looks for a request that a kube-apiserver would read as another
// one than was decided about.
func FuzzAttributes(f *testing.F) {
	f.Add("GET", "/api/v1/namespaces/a/pods/b", "watch=1")
	f.Add("DELETE", "/apis/a/b/c", "fieldSelector=metadata.name%3Dx&limit=1")
	f.Fuzz(func(t *testing.T, method, path, query string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") || strings.Contains(query, "#") || strings.ContainsFunc(path+query, notPrintable) {
			return
		}
		compare(t, method, path, query)
	})
}

func notPrintable(r rune) bool { return r <= ' ' || r >= 0x7f }
