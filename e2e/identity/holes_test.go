package identity

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// raw is where requests are sent byte for byte.
func (h *hub) raw(certs ...tls.Certificate) rawhttp.Server {
	return rawhttp.Server{Addr: h.addr(), Roots: h.roots, Timeout: 20 * time.Second, Certificates: certs}
}

// arrived decodes the recorder's answer.
func arrived(t *testing.T, body []byte) recorded {
	t.Helper()
	var r recorded
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("not the recorder's answer: %v: %s", err, body)
	}
	return r
}

func TestTwoCredentials(t *testing.T) {
	carol, err := the.users.issue("carol", []string{"dev"}, time.Now().Add(time.Hour))
	must(t, err)
	bearer := func(token string) []rawhttp.Field { return []rawhttp.Field{{"authorization", "Bearer " + token}} }
	hub := func(token string) []rawhttp.Field {
		return []rawhttp.Field{{"culvert-authorization", "Bearer " + token}}
	}
	for _, c := range []struct {
		name   string
		fields []rawhttp.Field
		cert   bool
		status int // of the cluster recorder's path; 0: either refusal
		user   string
	}{
		{"two tokens", append(bearer(the.ada), bearer(the.boss)...), false, 0, ""},
		{"a good token before a bad one", append(bearer(the.ada), bearer("bad")...), false, 0, ""},
		{"a bad token before a good one", append(bearer("bad"), bearer(the.ada)...), false, 0, ""},
		{"two of Culvert's own", append(hub(the.ada), hub(the.boss)...), false, 0, ""},
		{"Culvert's own and the service's", append(bearer(the.boss), hub(the.ada)...), false, 200, "cluster:hub:ada"},
		{"a bad one of Culvert's own and a good one", append(bearer(the.ada), hub("bad")...), false, 401, ""},
		{"a certificate and a token", bearer(the.ada), true, 200, "cluster:hub:ada"},
		{"a certificate and a bad token", hub("bad"), true, 401, ""},
		{"a certificate and another scheme", []rawhttp.Field{{"authorization", "Basic YTpi"}}, true, 0, ""},
	} {
		t.Run("O4,K7: with "+c.name+" who is checked is who is sent on, or nobody is", func(t *testing.T) {
			for _, protocol := range rawhttp.Protocols() {
				server := the.hub.raw()
				if c.cert {
					server.Certificates = []tls.Certificate{carol}
				}
				got := protocol.Send(t.Context(), server, rawhttp.Request{Path: "/recorder/api/v1/pods", Header: c.fields})
				switch {
				case c.status == 200 && got.Status == 200:
					r := arrived(t, got.Body)
					if user := r.Header["Impersonate-User"]; len(user) != 1 || user[0] != c.user {
						t.Errorf("%s: sent on as %q, want %q", protocol.Name, user, c.user)
					}
					if a := r.Header["Authorization"]; len(a) != 1 || a[0] != "Bearer "+the.recorder.agentToken {
						t.Errorf("%s: sent on with %d fields Authorization", protocol.Name, len(a))
					}
				case c.status == 0 && (got.Status == 400 || got.Status == 401):
				case got.Status != c.status:
					t.Errorf("%s: %d %s %s, want %d", protocol.Name, got.Status, got.Body, got.Cut, c.status)
				}
			}
		})
	}
}

// connection is one client's, kept open between requests.
func connection(t *testing.T, certs ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: the.hub.roots, Certificates: certs, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, MaxConnsPerHost: 1,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// on makes a request on a kept connection.
func on(ctx context.Context, client *http.Client, path, token string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+the.hub.addr()+path, nil)
	if err != nil {
		return 0, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// until waits for a status on a kept connection.
func until(ctx context.Context, t *testing.T, client *http.Client, path, token string, want int) {
	t.Helper()
	must(t, testbed.Poll(ctx, fmt.Sprintf("status %d of %s", want, path), func(ctx context.Context) error {
		status, err := on(ctx, client, path, token)
		if err == nil && status != want {
			err = fmt.Errorf("%d", status)
		}
		return err
	}))
}

// expiring returns a client whose connection was made, and used, by a certificate that ends
// soon. On a machine that is held up until it has ended there is one that lasts longer.
func expiring(ctx context.Context, t *testing.T) *http.Client {
	t.Helper()
	for _, life := range []time.Duration{4 * time.Second, 12 * time.Second, 36 * time.Second} {
		cert, err := the.users.issue("carol", []string{"dev"}, time.Now().Add(life).Truncate(time.Second))
		must(t, err)
		client := connection(t, cert)
		alive, cancel := context.WithTimeout(ctx, life)
		status, err := on(alive, client, "/managed"+firstPath, "")
		cancel()
		if err == nil && status == 200 {
			return client
		}
		t.Logf("a certificate of %v: %d, %v", life, status, err)
	}
	t.Fatal("no certificate is good for a request")
	return nil
}

func TestEachRequestIsChecked(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	t.Run("N7,O14: a certificate that expires on an open connection is good for no more requests", func(t *testing.T) {
		client := expiring(ctx, t)
		until(ctx, t, client, "/managed"+firstPath, "", 401)
		lines := awaitLines(ctx, t, "the line of its refusal", func(l line) bool {
			return l.Authentication == "client-certificate" && l.Status == 401
		}, func(l []line) bool { return len(l) > 0 })
		if l := lines[0]; l.Code != "unauthenticated" || l.Decision != "" || l.User.Name != "" || l.ClusterUser.Name != "" || l.Agent != "" {
			t.Errorf("%+v", l)
		}
	})
	t.Run("D22,O14: a token that is taken out of the file is good for no more requests on an open connection", func(t *testing.T) {
		file, token := filepath.Join(testbed.Dir(), "tokens.csv"), rand.Text()
		the.plant("a token for a while", token)
		must(t, os.WriteFile(file, append(the.tokenFile(), token+",ada,ada-uid,\"dev\"\n"...), 0o600))
		client := connection(t)
		until(ctx, t, client, "/managed"+firstPath, token, 200)
		must(t, os.WriteFile(file, the.tokenFile(), 0o600))
		until(ctx, t, client, "/managed"+firstPath, token, 401)
	})
	t.Run("N8,V20: a new policy counts for the next request on an open connection, and a bad one leaves the last in force", func(t *testing.T) {
		client := connection(t)
		until(ctx, t, client, "/managed"+firstPath, the.ada, 200)
		must(t, os.WriteFile(policyFile(), []byte(strings.Replace(hubPolicy, "users: [eve]", "users: [eve, ada]", 1)), 0o600))
		t.Cleanup(func() {
			must(t, os.WriteFile(policyFile(), []byte(hubPolicy), 0o600))
			until(afterwards(t), t, client, "/managed"+firstPath, the.ada, 200)
		})
		until(ctx, t, client, "/managed"+firstPath, the.ada, 403)
		must(t, os.WriteFile(policyFile(), []byte(hubPolicy+"- {name: x, effect: permit}\n"), 0o600))
		must(t, testbed.Poll(ctx, "the report on the policy", func(ctx context.Context) error {
			report, err := the.report(ctx)
			if err == nil && !strings.Contains(report, "permit") {
				err = fmt.Errorf("%s", report)
			}
			return err
		}))
		if status, err := on(ctx, client, "/managed"+firstPath, the.ada); status != 403 || err != nil {
			t.Errorf("with a bad policy: %d, %v; want that of before", status, err)
		}
	})
}

// report is what /-/readyz?verbose says, whatever the status.
func (w *world) report(ctx context.Context) (string, error) {
	got, err := w.hub.ask(ctx, call{path: "/-/readyz?verbose"})
	return string(got.body), err
}

func TestIgnoredOptions(t *testing.T) {
	tokens := filepath.Join(testbed.Dir(), "tokens.csv")
	for _, c := range []struct{ yaml, says string }{
		{"tokenFile: %s\ntokenReveiw: {inCluster: true}\n", "tokenReveiw"},
		{"tokenFile: %s\ntokenreview: {inCluster: true}\n", "tokenreview"},
		{"tokenFile: %s\nauthenticationconfig: /nowhere\n", "uthenticationconfig: open /nowhere"},
		{"tokenFile: %s\nauthenticationConfig: /nowhere\n", "/nowhere"},
		{"tokenFile: %s\npolicy: {file: /nowhere}\n", "/nowhere"},
		{"tokenFile: %s\npolicy: {fiel: /nowhere}\n", "fiel"},
		{"tokenFile: %s\npassThrough: {cluster: [a]}\n", "cluster"},
		{"tokenFile: %s\npassThrough: {clusters: [A]}\n", "passThrough.clusters[0]"},
		{"tokenFile: %s\nidentity: {denyGroup: [x]}\n", "denyGroup"},
		{"tokenFile: %s\ntls: {clientCa: /nowhere}\n", "clientCa"},
		{"tokenFile: %s\naudit: {file: {pth: x}}\n", "pth"},
		{"tokenFile: %s\nlimits: {user: {requestPerSecond: 1}}\n", "requestPerSecond"},
		{"tokenFile: %s\ndebugListen: 0.0.0.0:6060\n", "debugListen"},
	} {
		line := strings.TrimSpace(strings.TrimPrefix(c.yaml, "tokenFile: %s\n"))
		t.Run("N8,D18: a hub with the setting "+line+" does not start, and says which it is", func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "hub.yaml")
			must(t, os.WriteFile(file, fmt.Appendf(nil, c.yaml, tokens), 0o600))
			ctx := within(t, time.Minute)
			cmd := exec.CommandContext(ctx, bin("culvert-hub"), "--config", file, "--listen", "127.0.0.1:0", "--state", filepath.Join(t.TempDir(), "state"))
			out, err := cmd.CombinedOutput()
			if err == nil || ctx.Err() != nil || !strings.Contains(strings.ToLower(string(out)), strings.ToLower(c.says)) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestRefusedMeansNotSent(t *testing.T) {
	t.Run("O4,N10: what is refused for its identity or by policy reaches no server, whatever the body", func(t *testing.T) {
		before := the.recorder.requests.Load()
		for _, c := range []call{
			{}, {token: "bad"}, {token: the.eve}, {token: the.boss, header: []string{"Impersonate-User", "root"}}, {token: the.ada, header: []string{"Impersonate-Group", "dev"}},
			{header: []string{"Authorization", "Basic eDp5"}}, {header: []string{"Culvert-Authorization", "Bearer bad"}},
		} {
			c.method, c.path, c.body = http.MethodPost, "/recorder/api/v1/namespaces/work/configmaps", strings.Repeat("x", 256<<10)
			if c.token == "bad" || c.token == "" && len(c.header) > 0 && c.header[0] == "Authorization" {
				c.path = strings.Replace(c.path, "recorder", "managed", 1) // the other hands tokens on
			}
			got, err := the.hub.ask(t.Context(), c)
			must(t, err)
			if got.status < 400 || got.status >= 500 || got.header.Get("X-Culvert-Error") == "" {
				t.Errorf("%v: %d %s", c.header, got.status, got.body)
			}
		}
		if n := the.recorder.requests.Load() - before; n != 0 {
			t.Errorf("%d of them reached the server", n)
		}
	})
	t.Run("O20: no answer of success comes before the credential was looked at", func(t *testing.T) {
		upgrade := []rawhttp.Field{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}, {"Sec-WebSocket-Version", "13"}, {"Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}}
		for name, fields := range map[string][]rawhttp.Field{
			"an upgrade":           append([]rawhttp.Field{{"Authorization", "Bearer bad"}}, upgrade...),
			"an upgrade by nobody": upgrade,
			"SPDY":                 {{"Authorization", "Bearer bad"}, {"Connection", "Upgrade"}, {"Upgrade", "SPDY/3.1"}},
			"100-continue":         {{"Authorization", "Bearer bad"}, {"Expect", "100-continue"}, {"Content-Length", "10"}},
			"CONNECT":              {{"Authorization", "Bearer bad"}},
		} {
			method := http.MethodGet
			switch name {
			case "CONNECT":
				method = http.MethodConnect
			case "100-continue":
				method = http.MethodPost
			}
			// Informational answers are answers here, so that one before the last would be seen.
			got := the.hub.raw().HTTP1(t.Context(), rawhttp.Request{Method: method, Path: "/managed/api/v1/namespaces/work/pods/worker/exec?command=id&stdout=1", Header: fields})
			if got.Status < 400 || got.Status >= 500 {
				t.Errorf("%s: %d %s %s", name, got.Status, got.Body, got.Cut)
			}
		}
	})
}
