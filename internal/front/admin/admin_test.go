package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// register is the simplest thing that can be administered: it keeps tokens, and
// what was asked of it.
type register struct {
	mu     sync.Mutex
	tokens []admin.Token
	calls  []string
	fail   error
}

func (r *register) note(call string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
	return r.fail
}

func (r *register) ListTokens(context.Context) ([]admin.Token, error) {
	return r.tokens, r.note("list tokens")
}

func (r *register) CreateToken(_ context.Context, who string, want admin.TokenRequest) (admin.NewToken, error) {
	return admin.NewToken{Token: admin.Token{ID: "1", Cluster: want.Cluster}, Text: "secret"}, r.note("create " + want.Cluster + " by " + who)
}

func (r *register) RevokeToken(_ context.Context, who, id string) (admin.Token, error) {
	return admin.Token{ID: id}, r.note("revoke token " + id + " by " + who)
}

func (r *register) ListClusters(context.Context) ([]admin.Cluster, error) {
	return nil, r.note("list clusters")
}

func (r *register) GetCluster(_ context.Context, name string) (admin.Cluster, error) {
	return admin.Cluster{Name: name}, r.note("get " + name)
}

func (r *register) AcceptCluster(_ context.Context, who, name string, how admin.Acceptance) (admin.Cluster, error) {
	return admin.Cluster{Name: name}, r.note("accept " + name + " " + how.Key + " by " + who)
}

func (r *register) SetDirect(_ context.Context, who, name string, direct admin.Direct) (admin.Cluster, error) {
	return admin.Cluster{Name: name, Direct: &direct}, r.note("direct " + name + " " + direct.URL + " by " + who)
}

func (r *register) RevokeCluster(_ context.Context, who, name string, why admin.RevokeRequest) (admin.Revoked, error) {
	return admin.Revoked{Cluster: name, Cut: 2}, r.note("revoke " + name + " " + why.Reason + " by " + who)
}

func (r *register) RestoreCluster(_ context.Context, who, name string) (admin.Cluster, error) {
	return admin.Cluster{Name: name}, r.note("restore " + name + " by " + who)
}

func (r *register) ListAuthorities(context.Context) ([]admin.Authority, error) {
	return []admin.Authority{{Role: "agents"}}, r.note("list authorities")
}

func (r *register) RotateAuthority(_ context.Context, who, role string) (admin.Authority, error) {
	return admin.Authority{Role: role}, r.note("rotate " + role + " by " + who)
}

func newHandler(t *testing.T, r *register, log io.Writer) *admin.Handler {
	t.Helper()
	h, err := admin.New(admin.Config{Hub: r, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// serve runs h on a socket until the test's end.
func serve(t *testing.T, h *admin.Handler, path string) {
	t.Helper()
	s, err := h.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close(), <-served); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	})
}

func TestSocket(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("a-long-name/", 20))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, state := range map[string]string{"a short path": t.TempDir(), "a path longer than a socket address": long} {
		t.Run("O6: every call goes over the socket as the hub's user: "+name, func(t *testing.T) {
			r := &register{tokens: []admin.Token{{ID: "1"}}}
			var log bytes.Buffer
			path := filepath.Join(state, admin.Socket)
			serve(t, newHandler(t, r, &log), path)
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
			left, err := os.ReadDir(state)
			if err != nil || len(left) != 1 {
				t.Errorf("beside the socket: %v, %v", left, err)
			}
			c := admin.NewSocketClient(state)
			defer c.Close()
			ctx := t.Context()
			var errs []error
			note := func(err error) { errs = append(errs, err) }
			tokens, err := c.ListTokens(ctx)
			note(err)
			made, err := c.CreateToken(ctx, admin.TokenRequest{Cluster: "edge-1"})
			note(err)
			_, err = c.RevokeToken(ctx, "a/b")
			note(err)
			_, err = c.ListClusters(ctx)
			note(err)
			_, err = c.GetCluster(ctx, "edge-1")
			note(err)
			_, err = c.AcceptCluster(ctx, "edge-1", admin.Acceptance{Key: "k"})
			note(err)
			done, err := c.RevokeCluster(ctx, "edge-1", admin.RevokeRequest{Reason: "why"})
			note(err)
			_, err = c.RestoreCluster(ctx, "edge-1")
			note(err)
			_, err = c.ListAuthorities(ctx)
			note(err)
			_, err = c.RotateAuthority(ctx, "agents")
			note(err)
			if err := errors.Join(errs...); err != nil || len(tokens) != 1 || made.Text != "secret" || done.Cut != 2 {
				t.Fatalf("%v, %v, %+v, %+v", err, tokens, made, done)
			}
			by := " by uid " // and which one
			for i, want := range []string{
				"list tokens", "create edge-1" + by, "revoke token a/b" + by, "list clusters", "get edge-1", "accept edge-1 k" + by,
				"revoke edge-1 why" + by, "restore edge-1" + by, "list authorities", "rotate agents" + by,
			} {
				if !strings.HasPrefix(r.calls[i], want) {
					t.Errorf("call %d is %q, want %q", i, r.calls[i], want)
				}
			}
			if lines := strings.Count(log.String(), "administrator's change"); lines != 6 || strings.Contains(log.String(), "secret") {
				t.Errorf("%d changes are logged: %s", lines, &log)
			}
		})
	}
	t.Run("O6: a socket that a killed hub left is replaced", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), admin.Socket)
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
		c := admin.NewSocketClient(filepath.Dir(path))
		defer c.Close()
		if _, err := c.ListTokens(t.Context()); err == nil || !strings.Contains(err.Error(), "no hub runs with the state folder") {
			t.Errorf("before: %v", err)
		}
		serve(t, newHandler(t, &register{}, io.Discard), path)
		if _, err := c.ListTokens(t.Context()); err != nil {
			t.Errorf("after: %v", err)
		}
	})
	t.Run("a folder that is not there", func(t *testing.T) {
		_, err := newHandler(t, &register{}, io.Discard).Listen(filepath.Join(t.TempDir(), "none", admin.Socket))
		if err == nil || !strings.Contains(err.Error(), "administrators' socket") {
			t.Errorf("%v", err)
		}
	})
}

func TestHandler(t *testing.T) {
	r := &register{}
	h := newHandler(t, r, io.Discard)
	const kind = "application/json"
	for _, c := range []struct {
		name, method, path, kind, body string
		nobody                         bool
		fail                           error
		code                           int
		says                           string
	}{
		{name: "nobody", method: "GET", path: "/-/v1/tokens", nobody: true, code: 401, says: "nobody is known to call"},
		{name: "unknown path", method: "GET", path: "/-/v1/nothing", code: 404, says: "want /-/v1/tokens, clusters or authorities"},
		{name: "unknown method", method: "PATCH", path: "/-/v1/tokens", kind: kind, code: 404, says: `no \"PATCH\" here`},
		{name: "form of another site", method: "POST", path: "/-/v1/clusters/edge-1/revoke", kind: "text/plain", body: "{}", code: 400, says: "content type: want application/json"},
		{name: "no content type", method: "POST", path: "/-/v1/authorities/agents/rotate", code: 400, says: "content type"},
		{name: "unknown field", method: "POST", path: "/-/v1/tokens", kind: kind, body: `{"clusters":"x"}`, code: 400, says: `unknown field \"clusters\"`},
		{name: "two values", method: "POST", path: "/-/v1/tokens", kind: kind, body: `{}{}`, code: 400, says: "data after the end"},
		{name: "no JSON", method: "POST", path: "/-/v1/tokens", kind: kind, body: `cluster`, code: 400, says: "body: "},
		{name: "large body", method: "POST", path: "/-/v1/tokens", kind: kind, body: strings.Repeat(" ", 1<<17), code: 400, says: "larger than"},
		{name: "empty body", method: "POST", path: "/-/v1/clusters/edge-1/revoke", kind: kind + "; charset=utf-8", code: 200, says: `"cut":2`},
		{name: "refusal of the hub", method: "GET", path: "/-/v1/clusters/x", fail: &fault.Error{Hop: wire.HopHub, Code: wire.CodeNotFound, Err: errors.New("no cluster x")}, code: 404, says: "no cluster x"},
		{name: "failure of the hub", method: "GET", path: "/-/v1/clusters/x", fail: errors.New("disk /secret/path is full"), code: 500, says: "the cause is in the log"},
	} {
		t.Run("D22: "+c.name, func(t *testing.T) {
			r.fail = c.fail
			req := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body))
			if c.kind != "" {
				req.Header.Set("Content-Type", c.kind)
			}
			if !c.nobody {
				req = admin.As(req, "ada")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) || strings.Contains(w.Body.String(), "/secret") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			var status metav1.Status
			if err := json.Unmarshal(w.Body.Bytes(), &status); c.code != 200 && (err != nil || status.Kind != "Status" || int(status.Code) != c.code) {
				t.Errorf("no Status: %v, %s", err, w.Body)
			}
		})
	}
	if _, err := admin.New(admin.Config{}); err == nil {
		t.Error("no hub, no error")
	}
}

func TestHTTPSClient(t *testing.T) {
	for _, bad := range []string{"http://hub", "hub:8443", "https://hub/path", "https://user:pass@hub", "https://hub?x=1", "https://", "%"} {
		if _, err := admin.NewHTTPSClient(bad, "t", &http.Transport{}); err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	t.Run("D22: the client sends its token, and follows no redirect with it", func(t *testing.T) {
		var got []string
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.URL.Path+" "+r.Header.Get("Authorization"))
			if strings.HasSuffix(r.URL.Path, "/tokens") {
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
				return
			}
			_, _ = io.WriteString(w, "<html>")
		}))
		defer server.Close()
		transport, ok := server.Client().Transport.(*http.Transport)
		if !ok {
			t.Fatal("no transport")
		}
		c, err := admin.NewHTTPSClient(server.URL+"/", "tok", transport)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.ListTokens(t.Context()); err == nil || !strings.Contains(err.Error(), "not of a hub") {
			t.Errorf("%v", err)
		}
		if _, err := c.ListClusters(t.Context()); err == nil || !strings.Contains(err.Error(), "not of a hub") {
			t.Errorf("%v", err)
		}
		if strings.Join(got, "|") != "/-/v1/tokens Bearer tok|/-/v1/clusters Bearer tok" {
			t.Errorf("%q", got)
		}
	})
}
