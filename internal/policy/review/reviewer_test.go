package review_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/policy/review"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster answers reviews with what rights it gives.
type cluster struct {
	*httptest.Server

	mu     sync.Mutex
	asked  []authorizationv1.SubjectAccessReviewSpec
	rights []string
	// instead answers in place of the rights.
	instead http.HandlerFunc
}

func newCluster(t *testing.T, rights ...string) *cluster {
	t.Helper()
	c := &cluster{rights: rights}
	c.Server = httptest.NewTLSServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) say(instead http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instead = instead
}

func (c *cluster) questions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, spec := range c.asked {
		all = append(all, right(spec))
	}
	return all
}

// right writes what is asked in short.
func right(spec authorizationv1.SubjectAccessReviewSpec) string {
	a := spec.ResourceAttributes
	return strings.Trim(fmt.Sprintf("%s %s/%s %s %s", a.Verb, a.Resource, a.Subresource, strings.Trim(a.Namespace+" "+a.Name, " "), a.Group), " ")
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review authorizationv1.SubjectAccessReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.URL.Path != "/apis/authorization.k8s.io/v1/subjectaccessreviews" {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	c.asked = append(c.asked, review.Spec)
	instead, allowed := c.instead, slices.Contains(c.rights, right(review.Spec))
	c.mu.Unlock()
	if instead != nil {
		instead(w, r)
		return
	}
	answer(w, authorizationv1.SubjectAccessReviewStatus{Allowed: allowed})
}

func answer(w http.ResponseWriter, status authorizationv1.SubjectAccessReviewStatus) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(authorizationv1.SubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "authorization.k8s.io/v1", Kind: "SubjectAccessReview"}, Status: status,
	})
}

func refusal(code int, reason metav1.StatusReason) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: "account hub-secret-name",
		})
	}
}

func newReviewer(t *testing.T, c *cluster, change func(*review.Config)) (*review.Reviewer, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	config := review.Config{
		Cluster: &rest.Config{Host: c.URL, BearerToken: "planted-credential", TLSClientConfig: rest.TLSClientConfig{
			CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}),
		}},
		Timeout: 5 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	if change != nil {
		change(&config)
	}
	r, err := review.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, &log
}

func ask(t *testing.T, set func(*policy.Request)) policy.Request {
	t.Helper()
	q := policy.Request{
		User:    &user.DefaultInfo{Name: "alice", UID: "7", Groups: []string{"dev"}, Extra: map[string][]string{"scopes": {"a", "b"}}},
		Cluster: policy.Cluster{Name: "edge-1"},
	}
	set(&q)
	return q
}

func anything(q *policy.Request) { q.Anything = true }

func kubernetes(t *testing.T, method, path string) func(*policy.Request) {
	t.Helper()
	attributes, err := policy.Attributes(nil, method, path, "")
	if err != nil {
		t.Fatal(err)
	}
	return func(q *policy.Request) { q.Kubernetes = attributes }
}

func target(t *testing.T, to wire.Target) func(*policy.Request) {
	t.Helper()
	return func(q *policy.Request) {
		if err := q.SetTarget(to); err != nil {
			t.Fatal(err)
		}
	}
}

func impersonate(i policy.Impersonation) func(*policy.Request) {
	return func(q *policy.Request) { q.Impersonate = &i }
}

const group = " " + review.Group

func TestQuestions(t *testing.T) {
	tests := []struct {
		name   string
		set    func(*policy.Request)
		rights []string // given, and asked in this order
		denied []string // asked before
	}{
		{"N8: the Kubernetes API of a cluster, by verb", kubernetes(t, "GET", "/api/v1/pods"), []string{"list clusters/kubernetes edge-1" + group}, nil},
		{"N8: other paths of it", kubernetes(t, "POST", "/x"), []string{"post clusters/kubernetes edge-1" + group}, nil},
		{"N8: services of a cluster", target(t, wire.Service("default", "web", "443", "https")), []string{"connect clusters/services edge-1" + group}, nil},
		{"N8: one service", target(t, wire.Service("default", "web", "443", "https")), []string{"connect services/ edge-1:default/web:443" + group}, []string{"connect clusters/services edge-1" + group}},
		{"N8: one service without a port", target(t, wire.Service("default", "web", "", "https")), []string{"connect services/ edge-1:default/web" + group}, []string{"connect clusters/services edge-1" + group}},
		{"N8: one address", target(t, wire.Address("fd00::1", 22)), []string{"connect addresses/ edge-1:[fd00::1]:22" + group}, []string{"connect clusters/tcp edge-1" + group}},
		{"N8: anything: the Kubernetes API", anything, []string{"get clusters/kubernetes edge-1" + group}, nil},
		{
			"N8: anything: the addresses", anything, []string{"connect clusters/tcp edge-1" + group},
			[]string{"get clusters/kubernetes edge-1" + group, "connect clusters/kubernetes edge-1" + group, "connect clusters/services edge-1" + group},
		},
		{"N9: a user", impersonate(policy.Impersonation{User: "bob"}), []string{"impersonate users/ bob"}, nil},
		{"N9: a service account", impersonate(policy.Impersonation{User: "system:serviceaccount:ns:sa"}), []string{"impersonate serviceaccounts/ ns sa"}, nil},
		{
			"N9: every part", impersonate(policy.Impersonation{User: "bob", UID: "7", Groups: []string{"a", "b"}, ExtraKeys: []string{"scopes"}}),
			[]string{"impersonate users/ bob", "impersonate uids/ 7 authentication.k8s.io", "impersonate groups/ a", "impersonate groups/ b", "impersonate userextras/scopes  authentication.k8s.io"}, nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, tt.rights...)
			r, _ := newReviewer(t, c, nil)
			d, err := r.Authorize(t.Context(), ask(t, tt.set))
			if err != nil || !d.Allowed || d.Rule != review.Rule {
				t.Errorf("%+v, %v", d, err)
			}
			if got, want := c.questions(), append(slices.Clone(tt.denied), tt.rights...); !slices.Equal(got, want) {
				t.Errorf("asked %q, want %q", got, want)
			}
			first := c.asked[0]
			if first.User != "alice" || first.UID != "7" || !slices.Equal(first.Groups, []string{"dev"}) || !slices.Equal(first.Extra["scopes"], []string{"a", "b"}) {
				t.Errorf("asked about %+v", first)
			}
			// Without one of the rights it is denied, and told which would do.
			for i := range tt.rights {
				c := newCluster(t, slices.Delete(slices.Clone(tt.rights), i, i+1)...)
				r, _ := newReviewer(t, c, nil)
				d, err := r.Authorize(t.Context(), ask(t, tt.set))
				if err != nil || d.Allowed || !strings.Contains(d.Reason, "wants ") {
					t.Errorf("without %s: %+v, %v", tt.rights[i], d, err)
				}
			}
		})
	}
	t.Run("what cannot be asked is denied without asking", func(t *testing.T) {
		c := newCluster(t)
		r, _ := newReviewer(t, c, nil)
		for name, set := range map[string]func(*policy.Request){
			"nothing":          func(*policy.Request) {},
			"who is not known": func(q *policy.Request) { kubernetes(t, "GET", "/api")(q); q.UserUnknown = true },
			"no user":          func(q *policy.Request) { kubernetes(t, "GET", "/api")(q); q.User = nil },
			"no name":          func(q *policy.Request) { kubernetes(t, "GET", "/api")(q); q.User = &user.DefaultInfo{} },
			"no cluster":       func(q *policy.Request) { kubernetes(t, "GET", "/api")(q); q.Cluster.Name = "*" },
			"no verb":          kubernetes(t, "OPTIONS", "/api/v1/pods"),
			"two targets":      func(q *policy.Request) { kubernetes(t, "GET", "/api")(q); target(t, wire.Address("db", 1))(q) },
			"anything and one": func(q *policy.Request) { anything(q); target(t, wire.Address("db", 1))(q) },
			"no host":          target(t, wire.Address("DB", 1)),
			"no service":       target(t, wire.Service("a", "B", "", "")),
			"nobody":           impersonate(policy.Impersonation{}),
		} {
			if d, err := r.Authorize(t.Context(), ask(t, set)); err != nil || d.Allowed || d.Rule != policy.RuleInvalid {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
		}
		if asked := c.questions(); len(asked) > 0 {
			t.Errorf("asked %q", asked)
		}
	})
}

func TestCache(t *testing.T) {
	q := ask(t, kubernetes(t, "GET", "/api/v1/pods"))
	t.Run("the same question is asked once, until its time is over", func(t *testing.T) {
		c := newCluster(t, "list clusters/kubernetes edge-1"+group)
		r, _ := newReviewer(t, c, nil)
		for range 10 {
			if d, err := r.Authorize(t.Context(), q); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
		}
		other := ask(t, kubernetes(t, "GET", "/api/v1/pods"))
		other.User = &user.DefaultInfo{Name: "alice"}
		if d, err := r.Authorize(t.Context(), other); err != nil || !d.Allowed {
			t.Fatal(d, err)
		}
		if n := len(c.questions()); n != 2 {
			t.Errorf("asked %d times, want one for each user", n)
		}
		again, _ := newReviewer(t, c, func(c *review.Config) { c.AllowedTTL = -1 })
		for range 3 {
			if d, err := again.Authorize(t.Context(), q); err != nil || !d.Allowed {
				t.Fatal(d, err)
			}
		}
		if n := len(c.questions()); n != 5 {
			t.Errorf("asked %d times without a cache, want 5", n)
		}
	})
	t.Run("one question at a time", func(t *testing.T) {
		c := newCluster(t)
		var under atomic.Int32
		hold, arrived := make(chan struct{}), make(chan struct{}, 100)
		c.say(func(w http.ResponseWriter, _ *http.Request) {
			if n := under.Add(1); n > 1 {
				t.Errorf("%d under way", n)
			}
			defer under.Add(-1)
			arrived <- struct{}{}
			<-hold
			answer(w, authorizationv1.SubjectAccessReviewStatus{Allowed: true})
		})
		r, _ := newReviewer(t, c, func(c *review.Config) { c.AllowedTTL = -1 })
		var callers, started sync.WaitGroup
		for range 20 {
			started.Add(1)
			callers.Go(func() {
				started.Done()
				if d, err := r.Authorize(t.Context(), q); err != nil || !d.Allowed {
					t.Error(d, err)
				}
			})
		}
		started.Wait()
		<-arrived
		close(hold)
		callers.Wait()
	})
}

func TestFailures(t *testing.T) {
	q := ask(t, kubernetes(t, "GET", "/api/v1/pods"))
	for _, tt := range []struct {
		name    string
		instead http.HandlerFunc
		says    string
	}{
		{"may not ask", refusal(403, metav1.StatusReasonForbidden), "system:auth-delegator"},
		{"credential refused", refusal(401, metav1.StatusReasonUnauthorized), "credential is refused"},
		{"server error", refusal(500, metav1.StatusReasonInternalError), "answered with status 500"},
		{"no review", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, "its answer is no review"},
		{"cut short", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "access review at"},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://example.com", 307) }, "access review at"},
		{"yes and no", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, authorizationv1.SubjectAccessReviewStatus{Allowed: true, Denied: true})
		}, "allows and denies"},
	} {
		t.Run("N10: "+tt.name+" is 503, and not remembered", func(t *testing.T) {
			c := newCluster(t, "list clusters/kubernetes edge-1"+group)
			c.say(tt.instead)
			r, log := newReviewer(t, c, nil)
			for range 2 {
				d, err := r.Authorize(t.Context(), q)
				f := fault.As(err)
				if d.Allowed || f == nil || f.Code != wire.CodeUnavailable || f.Hop != wire.HopHub || f.RetryAfter == 0 || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), c.URL) {
					t.Fatalf("%+v, %v", d, err)
				}
				if text := err.Error(); strings.Contains(text, "planted-credential") || strings.Contains(text, "hub-secret-name") {
					t.Error(text)
				}
			}
			c.say(nil)
			if d, err := r.Authorize(t.Context(), q); err != nil || !d.Allowed {
				t.Errorf("when it works again: %+v, %v", d, err)
			}
			if text := log.String(); strings.Count(text, "is failing") != 1 || strings.Count(text, "works again") != 1 || strings.Contains(text, "planted-credential") {
				t.Error(text)
			}
		})
	}
	t.Run("N10: a cluster that is down is 503", func(t *testing.T) {
		c := newCluster(t)
		r, _ := newReviewer(t, c, nil)
		c.Close()
		if d, err := r.Authorize(t.Context(), q); d.Allowed || fault.As(err) == nil || fault.As(err).Code != wire.CodeUnavailable {
			t.Error(d, err)
		}
	})
	t.Run("N10: a cluster that does not answer is 503 after the timeout", func(t *testing.T) {
		c := newCluster(t)
		c.say(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		r, _ := newReviewer(t, c, func(c *review.Config) { c.Timeout = 20 * time.Millisecond })
		if d, err := r.Authorize(t.Context(), q); d.Allowed || fault.As(err) == nil || !strings.Contains(err.Error(), "no answer within 20ms") {
			t.Error(d, err)
		}
	})
	t.Run("a caller that leaves gets its own end, and Close ends the review", func(t *testing.T) {
		c := newCluster(t)
		arrived := make(chan struct{})
		c.say(func(_ http.ResponseWriter, r *http.Request) { close(arrived); <-r.Context().Done() })
		r, _ := newReviewer(t, c, nil)
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go leave(ctx, r, q, left)
		<-arrived
		cancel()
		if err := <-left; fault.As(err) == nil || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		r.Close()
		r.Close()
		if d, err := r.Authorize(t.Context(), q); d.Allowed || err == nil {
			t.Error(d, err)
		}
	})
}

// leave ends with ctx.
func leave(ctx context.Context, r *review.Reviewer, q policy.Request, left chan<- error) {
	_, err := r.Authorize(ctx, q)
	left <- err
}

func TestRefused(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, c := range map[string]review.Config{
		"no cluster":   {Logger: log},
		"no logger":    {Cluster: &rest.Config{Host: "https://x"}},
		"clear text":   {Logger: log, Cluster: &rest.Config{Host: "http://user:planted@x"}},
		"not verified": {Logger: log, Cluster: &rest.Config{Host: "https://x", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}},
		"no server":    {Logger: log, Cluster: &rest.Config{Host: "https://x:%zz"}},
		"bad CA":       {Logger: log, Cluster: &rest.Config{Host: "https://x", TLSClientConfig: rest.TLSClientConfig{CAData: []byte("x")}}},
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := review.New(c); err == nil || !strings.HasPrefix(err.Error(), "subjectAccessReview: ") || strings.Contains(err.Error(), "planted") {
				t.Error(r, err)
			}
		})
	}
}
