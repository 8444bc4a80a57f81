package refusals

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// userInfo is who an API server says that its caller is.
type userInfo struct {
	Username, UID string
	Groups        []string
	Extra         map[string][]string
}

const selfReview = `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`

// review makes r a SelfSubjectReview.
func review(cluster string, r request) request {
	r.method, r.path = "POST", "/"+cluster+"/apis/authentication.k8s.io/v1/selfsubjectreviews"
	if r.body == "" {
		r.body = selfReview
	}
	r.header = append(slices.Clone(r.header), [2]string{"content-type", "application/json"})
	return r
}

// whoami asks the API server of a cluster, with the headers of r.
func whoami(t *testing.T, proto protocol, cluster string, r request) userInfo {
	t.Helper()
	got := proto.send(t, the.hub, review(cluster, r))
	user, ok := userIn(got)
	if !ok {
		t.Errorf("%s: whoami: %d %s %s", proto.name, got.status, got.body, got.cut)
	}
	return user
}

func userIn(a answer) (userInfo, bool) {
	var review struct{ Status struct{ UserInfo userInfo } }
	ok := a.status == 201 && json.Unmarshal(a.body, &review) == nil
	return review.Status.UserInfo, ok
}

// kubeconfig writes a kubeconfig for a cluster by way of the hub.
func (w *world) kubeconfig(t *testing.T, cluster, token string) string {
	t.Helper()
	ca, err := os.ReadFile(w.hub.caFile())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, testbed.Kubeconfig("https://"+w.hub.addr+"/"+cluster, ca, token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// smuggle is one way to bring a claim of identity past the hub.
type smuggle struct {
	name    string
	header  [][2]string
	trailer [][2]string
	// body takes the place of the review.
	body string
	// malformed requests may be refused as well.
	malformed bool
}

func smuggles() []smuggle {
	admin := func(user, group string) [][2]string { return [][2]string{{user, "admin"}, {group, "system:masters"}} }
	all := []smuggle{
		{name: "impersonation", header: admin("impersonate-user", "impersonate-group")},
		{name: "uid and extra", header: [][2]string{{"impersonate-uid", "0"}, {"impersonate-extra-scopes", "all"}, {"impersonate-extra-culvert.dev%2fhub-user", "admin"}}},
		{name: "underscores", header: append(admin("impersonate_user", "impersonate_group"), admin("x_remote_user", "x_remote_group")...)},
		{name: "half an underscore", header: admin("x-remote_user", "x_remote-group")},
		{name: "front proxy", header: append(admin("x-remote-user", "x-remote-group"), [2]string{"x-remote-extra-scopes", "all"}, [2]string{"x-remote-uid", "0"})},
		{name: "several", header: append(admin("impersonate-user", "impersonate-group"), append(admin("impersonate-user", "impersonate-group"), [2]string{"impersonate-user", ""})...)},
		{name: "group alone", header: [][2]string{{"impersonate-group", "system:masters"}}},
		{name: "forwarded", header: [][2]string{{"forwarded", "for=127.0.0.1"}, {"x-forwarded-user", "admin"}, {"x-forwarded-groups", "system:masters"}}},
		{name: "another API server's credential", header: [][2]string{{"proxy-authorization", "Bearer " + the.root}}},
		{name: "announced trailers", header: [][2]string{{"trailer", "impersonate-user, impersonate-group"}}, trailer: admin("impersonate-user", "impersonate-group")},
		{name: "trailers", trailer: append(admin("impersonate-user", "impersonate-group"), admin("x-remote-user", "x_remote_group")...)},
		{name: "authorization in trailers", trailer: [][2]string{{"authorization", "Bearer " + the.root}}},
		{name: "empty name and value", header: [][2]string{{"impersonate-", ""}, {"impersonate-user", ""}}},
		{name: "other marks", header: admin("impersonate.user", "impersonate~group")},
		{name: "space before the colon", header: admin("impersonate-user ", "impersonate-group\t"), malformed: true},
		{name: "line break in a value", header: [][2]string{{"x-a", "b\r\nimpersonate-user: admin\r\nimpersonate-group: system:masters"}}, malformed: true},
		{name: "lone line feed", header: [][2]string{{"x-a", "b\nimpersonate-user: admin"}}, malformed: true},
		{name: "folded line", header: [][2]string{{"x-a", "b\r\n impersonate-user: x"}}, malformed: true},
		{name: "non-ASCII", header: admin("impersonate-us\u00e9r", "\u0130mpersonate-group"), malformed: true},
	}
	for _, listed := range []string{
		"impersonate-user, impersonate-group", "Impersonate-User", "authorization", "culvert-authorization", "close, impersonate-uid",
		"impersonate-extra-culvert.dev%2fhub-user", "x-request-id", "keep-alive, Impersonate_User",
	} {
		// RFC 9113 section 8.2.2: HTTP/2 refuses the field.
		all = append(all, smuggle{name: "listed in Connection: " + listed, header: append([][2]string{{"connection", listed}}, admin("impersonate-user", "impersonate-group")...)})
	}
	return append(all,
		smuggle{name: "h2c upgrade", header: append([][2]string{{"connection", "Upgrade, HTTP2-Settings, Impersonate-User"}, {"upgrade", "h2c"}, {"http2-settings", "AAMAAABkAAQAAP__"}}, admin("impersonate-user", "impersonate-group")...)},
		smuggle{
			name: "two lengths", header: [][2]string{{"transfer-encoding", "chunked"}}, malformed: true,
			body: fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\nPOST /managed/api HTTP/1.1\r\nHost: x\r\nImpersonate-User: admin\r\n\r\n", len(selfReview), selfReview),
		},
		smuggle{name: "two different lengths", header: [][2]string{{"content-length", "5"}}, malformed: true},
	)
}

// spell returns the ways in which a field's name can be written.
func (s smuggle) spellings() []smuggle {
	upper, title := s, s
	upper.name, upper.header, upper.trailer = s.name+", upper case", rename(s.header, strings.ToUpper), rename(s.trailer, strings.ToUpper)
	title.name, title.header, title.trailer = s.name+", mixed case", rename(s.header, mixed), rename(s.trailer, mixed)
	return []smuggle{s, upper, title}
}

func rename(fields [][2]string, spell func(string) string) [][2]string {
	var out [][2]string
	for _, f := range fields {
		out = append(out, [2]string{spell(f[0]), f[1]})
	}
	return out
}

func mixed(name string) string {
	b := []byte(strings.ToLower(name))
	for i := 0; i < len(b); i += 2 {
		b[i] = strings.ToUpper(string(b[i]))[0]
	}
	return string(b)
}

func TestSmuggledIdentity(t *testing.T) {
	isAda := func(u userInfo) bool {
		return u.Username == "cluster:hub:ada" && u.UID == "1" && slices.Equal(u.Groups, []string{"cluster:hub:dev", "system:authenticated"}) &&
			len(u.Extra["culvert.dev/hub-user"]) == 1 && u.Extra["culvert.dev/hub-user"][0] == "ada" && u.Extra["scopes"] == nil
	}
	t.Run("O15,O16: whatever identity a client claims, the real API server sees the one that the hub has verified", func(t *testing.T) {
		for _, proto := range protocols() {
			if u := whoami(t, proto, "managed", request{header: bearer(the.ada)}); !isAda(u) {
				t.Fatalf("%s: without a claim ada is %+v", proto.name, u)
			}
			for _, base := range smuggles() {
				for i, s := range base.spellings() {
					got := proto.send(t, the.hub, review("managed", request{header: append(bearer(the.ada), s.header...), trailer: s.trailer, body: s.body}))
					u, ok := userIn(got)
					_, hasConnection := field(s.header, "connection")
					// Who asks to be somebody else is told that they may not. Upper case is
					// malformed in HTTP/2.
					mayRefuse := s.malformed || s.impersonates() || proto.name == "HTTP/2" && (i > 0 || hasConnection)
					switch {
					case ok && !isAda(u):
						t.Errorf("%s: %s: the API server says %+v", proto.name, s.name, u)
					case !ok && !mayRefuse:
						t.Errorf("%s: %s: %d %s %s", proto.name, s.name, got.status, got.body, got.cut)
					case strings.Contains(got.cut, "timeout"):
						t.Errorf("%s: %s: no answer within %v", proto.name, s.name, exchangeTime)
					case !ok && got.status != 400 && got.status != 403 && got.cut == "":
						t.Errorf("%s: %s: refused with %d %s", proto.name, s.name, got.status, got.body)
					}
				}
			}
		}
	})

	t.Run("O15,O20: nothing that a client claims arrives in the header or the trailer of a request", func(t *testing.T) {
		for _, proto := range protocols() {
			for _, s := range smuggles() {
				got := proto.send(t, the.hub, review("recorder", request{header: append(bearer(the.ada), s.header...), trailer: s.trailer, body: s.body}))
				var arrived recorded
				if got.status != 200 {
					continue // refused, as the test above has judged
				}
				if err := json.Unmarshal(got.body, &arrived); err != nil {
					t.Errorf("%s: %s: %v", proto.name, s.name, err)
				}
				if arrived.Body != selfReview {
					t.Errorf("%s: %s: the body arrived as %q", proto.name, s.name, arrived.Body)
				}
				for name, values := range arrived.Trailer {
					t.Errorf("%s: %s: trailer %s: %v arrived", proto.name, s.name, name, values)
				}
				for name, values := range arrived.Header {
					if text := strings.Join(values, ","); strings.Contains(text, "admin") || strings.Contains(text, "masters") || strings.Contains(text, the.root) {
						t.Errorf("%s: %s: %s: %v arrived", proto.name, s.name, name, values)
					}
				}
				if user := arrived.Header["Impersonate-User"]; len(user) != 1 || user[0] != "cluster:hub:ada" {
					t.Errorf("%s: %s: Impersonate-User is %q", proto.name, s.name, user)
				}
			}
		}
	})

	t.Run("O15,N9: kubectl --as is refused where no rule allows it", func(t *testing.T) {
		kubectl := the.managed.KubectlAs(the.kubeconfig(t, "managed", the.ada))
		ctx := within(t, 2*time.Minute)
		for _, args := range [][]string{
			{"--as=admin", "--as-group=system:masters"}, {"--as=system:admin", "--as-uid=0", "--as-user-extra=scopes=all"}, {"--as=system:serviceaccount:culvert-agent:culvert-agent"},
		} {
			out, err := kubectl.Run(ctx, append([]string{"get", "--raw", "/version"}, args...)...)
			if err == nil || !strings.Contains(err.Error(), "hub: impersonate: permission denied") {
				t.Errorf("%v: %v: %s", args, err, out)
			}
		}
	})
}

// impersonates tells whether a field of the header asks to be somebody else, in
// any spelling.
func (s smuggle) impersonates() bool {
	return slices.ContainsFunc(s.header, func(f [2]string) bool {
		return strings.Contains(strings.ToLower(f[0]+f[1]), "impersonate")
	})
}

func field(fields [][2]string, name string) (string, bool) {
	for _, f := range fields {
		if strings.EqualFold(f[0], name) {
			return f[1], true
		}
	}
	return "", false
}
