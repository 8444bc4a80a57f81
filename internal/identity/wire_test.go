package identity

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

// arrival is what a managed cluster would see of a request.
type arrival struct {
	Status          int
	Header, Trailer http.Header
}

// startFront serves over TLS what a front end does with a request, up to the header
// and the trailer that it would send on. Who is "root" may act as anybody.
func startFront(t *testing.T) *httptest.Server {
	t.Helper()
	_, kubeconfig := startHubCluster(t)
	chain := startChain(t, Config{
		TokenFile:   writeTokenFile(t, "s3cr3t,alice,1,\"dev\"\nr00t,root,2\n"),
		TokenReview: &TokenReviewConfig{Kubeconfig: kubeconfig, Audiences: []string{"hub"}}, PassThrough: []string{"edge-1"},
	})
	mapper := newMapper(t, Config{})
	may := func(_ context.Context, caller user.Info, _ Assumed) (bool, string, error) {
		return caller.GetName() == "root", "", nil
	}
	serve := func(r *http.Request) (http.Header, error) {
		caller, err := chain.Identify(r, "edge-1")
		if err != nil {
			return nil, err
		}
		if caller, err = Assume(r.Context(), r.Header, caller, may); err != nil {
			return nil, err
		}
		out := r.Header.Clone()
		Strip(out)
		if caller.PassThrough() {
			out.Set("Authorization", caller.Authorization())
			return out, nil
		}
		mapped, err := mapper.Map(caller.User)
		if err != nil {
			return nil, err
		}
		return out, mapped.Apply(out)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := arrival{Status: http.StatusOK}
		out, err := serve(r)
		if err != nil {
			seen.Status = wantStatusOf(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		StripTrailer(r.Trailer)
		seen.Header, seen.Trailer = out, r.Trailer
		_ = json.NewEncoder(w).Encode(seen)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// http1 sends lines as they are, over a connection of their own.
func http1(t *testing.T, server *httptest.Server, lines ...string) arrival {
	t.Helper()
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"http/1.1"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	head := append([]string{"POST /edge-1/api HTTP/1.1", "Host: hub", "Transfer-Encoding: chunked"}, lines...)
	if _, err := fmt.Fprintf(conn, "%s\r\n\r\n0\r\nImpersonate-User: trailer\r\nX-Sum: 1\r\n\r\n", strings.Join(head, "\r\n")); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, response)
}

// http2 sends the same fields over HTTP/2, where every name is in lower case.
func http2(t *testing.T, server *httptest.Server, lines ...string) arrival {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/edge-1/api", io.MultiReader(bytes.NewReader([]byte("x"))))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		r.Header[name] = append(r.Header[name], strings.TrimSpace(value))
	}
	r.Trailer = http.Header{"Impersonate-User": {"trailer"}, "X-Sum": {"1"}}
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if response.ProtoMajor != 2 {
		t.Fatalf("sent by %s", response.Proto)
	}
	return read(t, response)
}

func read(t *testing.T, response *http.Response) arrival {
	t.Helper()
	var seen arrival
	if err := json.NewDecoder(response.Body).Decode(&seen); err != nil {
		t.Fatalf("status %d: %v", response.StatusCode, err)
	}
	if err := response.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestOverTheWire(t *testing.T) {
	server := startFront(t)
	const alices, roots = "Authorization: Bearer s3cr3t", "Authorization: Bearer r00t"
	for _, c := range []struct {
		name   string
		lines  []string
		status int
		user   string // Impersonate-User that goes on; "" for none
		token  string // Authorization that goes on
		only1  bool   // cannot be sent over HTTP/2
	}{
		{"a caller", []string{alices}, 200, "cluster:hub:alice", "", false},
		{"a caller by another letter case", []string{"aUTHORIZATION: bEARER s3cr3t"}, 200, "cluster:hub:alice", "", true},
		{"claims for a front proxy", []string{alices, "X-Remote-User: admin", "x_remote_group: system:masters", "X-Remote-Extra-A: b"}, 200, "cluster:hub:alice", "", false},
		{"claims listed in Connection", []string{alices, "Connection: X-Remote-User, Impersonate-User, impersonate_group", "X-Remote-User: admin"}, 200, "cluster:hub:alice", "", true},
		{"as another user", []string{alices, "Impersonate-User: bob"}, 403, "", "", false},
		{"as another user in odd case", []string{alices, "iMPERSONATE-uSER: bob"}, 403, "", "", true},
		{"as another user with an underscore", []string{alices, "Impersonate_User: bob"}, 400, "", "", false},
		{"as another user twice", []string{roots, "Impersonate-User: bob", "impersonate-user: carol"}, 400, "", "", false},
		{"as a group of nobody", []string{roots, "Impersonate-Group: system:masters"}, 400, "", "", false},
		{"as another user, mentioned in Connection", []string{roots, "Impersonate-User: bob", "Connection: close, Impersonate-User"}, 400, "", "", true},
		{"as another user by who may", []string{roots, "Impersonate-User: bob", "Impersonate-Group: system:masters"}, 200, "cluster:hub:bob", "", false},
		{"two tokens", []string{alices, roots}, 401, "", "", false},
		{"two tokens in odd cases", []string{alices, "AUTHORIZATION: Bearer r00t"}, 401, "", "", true},
		{"a token that the cluster judges", []string{"Authorization: Bearer opaque", "X-Remote-User: admin"}, 200, "", "Bearer opaque", false},
		{"a token that the cluster judges, as another user", []string{"Authorization: Bearer opaque", "Impersonate-User: admin"}, 403, "", "", false},
		{"a token that the cluster judges, as another user with an underscore", []string{"Authorization: Bearer opaque", "impersonate_user: admin"}, 400, "", "", false},
		{"a subprotocol without an upgrade", []string{"Sec-WebSocket-Protocol: a, " + bearerProtocol + "czNjcjN0"}, 401, "", "", false},
	} {
		for proto, send := range map[string]func(*testing.T, *httptest.Server, ...string) arrival{"HTTP/1.1": http1, "HTTP/2": http2} {
			if c.only1 && proto == "HTTP/2" {
				continue
			}
			t.Run("N9: what goes on of a request over "+proto+": "+c.name, func(t *testing.T) {
				seen := send(t, server, c.lines...)
				if seen.Status != c.status {
					t.Fatalf("status %d, want %d", seen.Status, c.status)
				}
				if got := strings.Join(seen.Header["Impersonate-User"], "+"); got != c.user {
					t.Errorf("goes on as %q, want %q", got, c.user)
				}
				if got := strings.Join(seen.Header["Authorization"], "+"); got != c.token {
					t.Errorf("goes on with %q, want %q", got, c.token)
				}
				for name, values := range seen.Header {
					if slices.Contains(values, "admin") || slices.Contains(values, "system:masters") || strings.Contains(strings.Join(values, " "), "s3cr3t") {
						t.Errorf("%s goes on with %q", name, values)
					}
				}
				for name := range seen.Trailer {
					if name != "X-Sum" {
						t.Errorf("the trailer %s goes on", name)
					}
				}
			})
		}
	}
}
