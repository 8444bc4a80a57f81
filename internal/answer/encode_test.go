package answer_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestNegotiation(t *testing.T) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	codecs := serializer.NewCodecFactory(scheme)
	refusal := &fault.Error{Hop: wire.HopHub, Op: "limit", Code: wire.CodeTooManyRequests, RetryAfter: 1, Err: errors.New("too fast")}
	const json, protobuf = "application/json", "application/vnd.kubernetes.protobuf"
	for _, c := range []struct{ name, accept, want string }{
		{"nothing asked for", "", json},
		{"anything", "*/*", json},
		{"kubectl", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", json},
		{"client-go with protobuf", protobuf + "," + json, protobuf},
		{"protobuf alone", protobuf, protobuf},
		{"a watch in protobuf", protobuf + ";stream=watch", protobuf},
		{"JSON before protobuf", json + "," + protobuf, json},
		{"JSON by its weight", protobuf + ";q=0.1," + json + ";q=0.9", json},
		{"a browser", "text/html,application/xhtml+xml,*/*;q=0.8", json},
		{"what there is not", "application/cbor", json},
		{"nonsense", ";;;,/,q=", json},
	} {
		t.Run("N10: the Status is in the encoding that was asked for: "+c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/edge-1/api", nil)
			if c.accept != "" {
				r.Header.Set("Accept", c.accept)
			}
			if code, err := answer.Write(w, r, refusal); err != nil || code != 429 {
				t.Fatalf("%d %v", code, err)
			}
			if got := w.Header().Get("Content-Type"); got != c.want {
				t.Fatalf("Content-Type %q, want %q", got, c.want)
			}
			if w.Header().Get("X-Culvert-Error") != "too-many-requests" || w.Header().Get("Retry-After") != "1" {
				t.Errorf("headers %v", w.Header())
			}
			object, _, err := codecs.UniversalDeserializer().Decode(w.Body.Bytes(), nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := apierrors.FromObject(object); !apierrors.IsTooManyRequests(err) {
				t.Errorf("client-go makes %v of it", err)
			}
		})
	}
}
