package answer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, err error) (*http.Response, *metav1.Status) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/edge-1/api", nil)
	r.Header.Set(answer.HeaderRequestID, "id-1")
	r = answer.WithRequestID(r)
	code, werr := answer.Write(w, r, err)
	if werr != nil || code != w.Code {
		t.Fatalf("Write = %d, %v, sent %d", code, werr, w.Code)
	}
	status := &metav1.Status{}
	if err := json.Unmarshal(w.Body.Bytes(), status); err != nil {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return w.Result(), status
}

func TestWrite(t *testing.T) {
	t.Run("D18: an answer of the hub is a Status with X-Culvert-Error", func(t *testing.T) {
		res, status := write(t, fmt.Errorf("wrapped: %w", &fault.Error{
			Hop: wire.HopAgent, Op: "dial", Code: wire.CodeConnectionRefused, Target: "service default/web", Err: errors.New("nothing listens there"),
		}))
		if res.StatusCode != 502 || status.Code != 502 || status.Kind != "Status" || status.APIVersion != "v1" || status.Status != "Failure" {
			t.Errorf("got %d, %+v", res.StatusCode, status)
		}
		for name, want := range map[string]string{
			"X-Culvert-Error": "connection-refused", "X-Request-Id": "id-1", "Content-Type": "application/json",
			"Cache-Control": "no-store", "Retry-After": "", "Www-Authenticate": "",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		want := "agent: dial: service default/web: connection refused: nothing listens there (request id id-1)"
		if status.Message != want {
			t.Errorf("message %q, want %q", status.Message, want)
		}
		causes := status.Details.Causes
		if len(causes) != 2 || causes[0].Message != "agent" || causes[1].Message != "id-1" {
			t.Errorf("causes %+v", causes)
		}
	})
	t.Run("client-go reads the reason and the delay", func(t *testing.T) {
		res, status := write(t, &fault.Error{Hop: wire.HopHub, Code: wire.CodeLinkLost, RetryAfter: 1100 * time.Millisecond})
		if res.Header.Get("Retry-After") != "2" || status.Details.RetryAfterSeconds != 2 || res.StatusCode != 503 {
			t.Errorf("got %d, Retry-After %q, %+v", res.StatusCode, res.Header.Get("Retry-After"), status.Details)
		}
		err := apierrors.FromObject(status)
		if seconds, ok := apierrors.SuggestsClientDelay(err); !apierrors.IsServiceUnavailable(err) || !ok || seconds != 2 {
			t.Errorf("client-go makes %v of it, delay %d, %v", err, seconds, ok)
		}
	})
	t.Run("401 names the scheme", func(t *testing.T) {
		res, status := write(t, &fault.Error{Hop: wire.HopHub, Op: "authenticate", Code: wire.CodeUnauthenticated})
		if res.Header.Get("Www-Authenticate") != "Bearer" || !apierrors.IsUnauthorized(apierrors.FromObject(status)) {
			t.Errorf("got %v, %+v", res.Header, status)
		}
	})
	t.Run("the cause of an internal error is not shown", func(t *testing.T) {
		for _, err := range []error{errors.New("secret"), &fault.Error{Code: wire.CodeInternal, Err: errors.New("secret")}, nil} {
			res, status := write(t, err)
			if res.StatusCode != 500 || strings.Contains(status.Message, "secret") || !strings.Contains(status.Message, "id-1") {
				t.Errorf("got %d %q", res.StatusCode, status.Message)
			}
		}
	})
	t.Run("an ended context is no internal error", func(t *testing.T) {
		for err, want := range map[error]int{context.Canceled: 499, context.DeadlineExceeded: 504} {
			if res, _ := write(t, fmt.Errorf("x: %w", err)); res.StatusCode != want {
				t.Errorf("%v: %d, want %d", err, res.StatusCode, want)
			}
		}
	})
}

func TestRequestID(t *testing.T) {
	tests := []struct {
		name string
		sent []string
		kept bool
	}{
		{"well formed", []string{"Root=1-67891233-abcdef.0/1@x:y+z_"}, true},
		{"longest", []string{strings.Repeat("a", 128)}, true},
		{"too long", []string{strings.Repeat("a", 129)}, false},
		{"none", nil, false}, {"empty", []string{""}, false}, {"two", []string{"a", "a"}, false},
		{"space", []string{"a b"}, false}, {"quote", []string{`a"b`}, false}, {"newline", []string{"a\nb"}, false}, {"not ASCII", []string{"\u00e9"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header[answer.HeaderRequestID] = tt.sent
			r = answer.WithRequestID(r)
			id := answer.RequestID(r.Context())
			if kept := len(tt.sent) == 1 && id == tt.sent[0]; kept != tt.kept || id == "" {
				t.Errorf("sent %q, got %q", tt.sent, id)
			}
			if got := r.Header.Values(answer.HeaderRequestID); len(got) != 1 || got[0] != id {
				t.Errorf("header %q, want only %q", got, id)
			}
		})
	}
	if id := answer.RequestID(context.Background()); id != "" {
		t.Errorf("a context without an id has %q", id)
	}
}
