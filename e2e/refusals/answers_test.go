package refusals

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// status is a Kubernetes Status, as far as clients read it.
type status struct {
	Kind, APIVersion, Status, Message, Reason string
	Code                                      int
	Details                                   struct {
		Causes            []struct{ Reason, Message string }
		RetryAfterSeconds int
	}
}

// refusal is what the hub has to say.
type refusal struct {
	code          int
	reason, fault string // Status.reason, X-Culvert-Error
	says          []string
}

// check holds an answer against all that every answer of the hub must have.
func (want refusal) check(got answer) error {
	var s status
	if got.cut != "" {
		return fmt.Errorf("no answer: %s", got.cut)
	}
	if err := json.Unmarshal(got.body, &s); err != nil {
		return fmt.Errorf("%d, no Status: %w: %s", got.status, err, got.body)
	}
	id := got.header.Get("X-Request-Id")
	for _, field := range []struct{ name, got, want string }{
		{"HTTP status", fmt.Sprint(got.status), fmt.Sprint(want.code)},
		{"Status.code", fmt.Sprint(s.Code), fmt.Sprint(want.code)},
		{"Status", s.APIVersion + " " + s.Kind + " " + s.Status, "v1 Status Failure"},
		{"Status.reason", s.Reason, want.reason},
		{"X-Culvert-Error", got.header.Get("X-Culvert-Error"), want.fault},
		{"Content-Type", got.header.Get("Content-Type"), "application/json"},
	} {
		if field.got != field.want {
			return fmt.Errorf("%s is %q, want %q: %s", field.name, field.got, field.want, got.body)
		}
	}
	causes := map[string]string{}
	for _, c := range s.Details.Causes {
		causes[c.Reason] = c.Message
	}
	if id == "" || causes["RequestID"] != id || causes["Hop"] != "hub" {
		return fmt.Errorf("request id %q, causes %v: want the same id, and the hub as the hop", id, causes)
	}
	for _, part := range append(want.says, "hub: ", id) {
		if !strings.Contains(s.Message, part) {
			return fmt.Errorf("the message lacks %q: %s", part, s.Message)
		}
	}
	if want.code == http.StatusServiceUnavailable && (got.header.Get("Retry-After") == "" || s.Details.RetryAfterSeconds == 0) {
		return fmt.Errorf("no time to retry after: %v", got.header)
	}
	if want.code == http.StatusUnauthorized && got.header.Get("Www-Authenticate") != "Bearer" {
		return fmt.Errorf("no challenge: %v", got.header)
	}
	return nil
}

// refusedCase is one request and its refusal.
type refusedCase struct {
	name string
	request
	refusal
}

// checkAll sends every case in both versions of HTTP.
func checkAll(t *testing.T, cases []refusedCase) {
	t.Helper()
	for _, c := range cases {
		for _, proto := range protocols() {
			if err := c.check(proto.send(t, the.hub, c.request)); err != nil {
				t.Errorf("%s: %s: %v", c.name, proto.name, err)
			}
		}
	}
}

func badPath(path string, says ...string) refusedCase {
	return refusedCase{path, request{path: path, header: bearer(the.ada)}, refusal{400, "BadRequest", "invalid-target", says}}
}

func TestBadRequests(t *testing.T) {
	t.Run("D18,N10: a cluster that never joined is 404", func(t *testing.T) {
		checkAll(t, []refusedCase{
			{"API", request{path: "/nosuch/api/v1/pods", header: bearer(the.ada)}, refusal{404, "NotFound", "not-found", []string{"cluster nosuch", "no cluster named"}}},
			{"upload", request{method: "POST", path: "/nosuch/api/v1/pods", header: bearer(the.ada), body: "x"}, refusal{404, "NotFound", "not-found", []string{"no cluster named"}}},
			{"service", request{path: "/nosuch/api/v1/namespaces/a/services/b/proxy-service/c", header: bearer(the.ada)}, refusal{404, "NotFound", "not-found", []string{"no cluster named"}}},
		})
	})

	t.Run("D18,N10: a cluster that is away is 503 with Retry-After, within five seconds", func(t *testing.T) {
		started := time.Now()
		for _, proto := range protocols() {
			want := refusal{503, "ServiceUnavailable", "unavailable", []string{"cluster away", "no agent of the cluster is connected"}}
			if err := want.check(proto.send(t, the.hub, request{path: "/away/api/v1/pods", header: bearer(the.ada)})); err != nil {
				t.Errorf("%s: %v", proto.name, err)
			}
			if err := testbed.InTime(t.Context(), bin("culvert"), time.Since(started), 5*time.Second); err != nil {
				t.Errorf("%s: the answer: %v", proto.name, err)
			}
			started = time.Now()
		}
	})

	t.Run("O20,D18: dot segments are refused in every spelling, and never reach a target", func(t *testing.T) {
		var cases []refusedCase
		for _, path := range []string{
			"/recorder/../managed/api", "/recorder/a/..", "/recorder/a/.", "/recorder/./a", "/../recorder/api", "/recorder/%2e%2e/api",
			"/recorder/%2E%2E/api", "/recorder/.%2e/api", "/recorder/%2e./api", "/recorder/a%2f..%2fb", "/recorder/a/..%2fb",
			"/recorder/a%2F%2e%2e%2Fb", `/recorder/a\..\b`, "/recorder/a%5c..%5cb", "/recorder/..;/api", "/recorder/..;x=y/api",
			"/recorder/api/v1/namespaces/../x", "/recorder/api/v1/namespaces/a/services/b/proxy-service/../../c",
		} {
			cases = append(cases, badPath(path, "'.' or '..' segment", "send the path it stands for"))
		}
		checkAll(t, cases)
	})

	t.Run("O3,D18: what cannot be a cluster's name is refused, and says what can", func(t *testing.T) {
		checkAll(t, []refusedCase{
			badPath("/Recorder/api", "cluster", "lower-case letters"),
			badPath("/RECORDER/api", "cluster", "lower-case letters"),
			badPath("/*/api", "cluster", "lower-case letters"),
			badPath("/a.b/api", "cluster", "lower-case letters"),
			badPath("/recorder%2fx/api", "cluster", "lower-case letters"),
			badPath("/-x/api", "cluster", "want a letter or digit"),
			badPath("/x-/api", "cluster", "want a letter or digit"),
			badPath("/"+strings.Repeat("x", 64)+"/api", "cluster", "at most 63"),
			badPath("/", "names no cluster", "want /<cluster>/<api-path>"),
			badPath("//recorder/api", "names no cluster", "want /<cluster>/<api-path>"),
			{"/-/", request{path: "/-/api/v1/pods", header: bearer(the.ada)}, refusal{404, "NotFound", "not-found", []string{"the hub has no such path", "/-/healthz"}}},
		})
	})

	t.Run("O21,D18: malformed service URLs are refused, and never become API requests", func(t *testing.T) {
		const services = "/recorder/api/v1/namespaces/default/services/"
		checkAll(t, []refusedCase{
			badPath(services+"ftp:web:80/proxy-service/x", "service", "want [http:|https:]service[:port]"),
			badPath(services+"https:web:80:1/proxy-service/x", "service", "want [http:|https:]service[:port]"),
			badPath(services+"https%3Aweb%3A80%3A1/proxy-service/x", "service", "want [http:|https:]service[:port]"),
			badPath(services+"https:web:0/proxy-service/x", "port"),
			badPath(services+"https:web:0443/proxy-service/x", "port", "without leading zeros"),
			badPath(services+"web:65536/proxy-service/x", "port", "between 1 and 65535"),
			badPath(services+"web:+443/proxy-service/x", "port"),
			badPath(services+"web:443%20/proxy-service/x", "port"),
			badPath(services+"/proxy-service/x", "empty"),
			badPath(services+"Web/proxy-service/x", "lower-case letters"),
			badPath(services+"web.other/proxy-service/x", "lower-case letters"),
			badPath(services+"web%2Fx/proxy-service/x", "lower-case letters"),
			badPath("/recorder/api/v1/namespaces//services/web/proxy-service/x", "namespace", "empty"),
			badPath("/recorder/api/v1/namespaces/Default/services/web/proxy-service/x", "namespace", "lower-case letters"),
			badPath(services+"web/proxy%2Dservice/x", "service", "write them plainly"),
			badPath("/recorder/%61pi/v1/namespaces/default/services/web/proxy-service/x", "service", "write them plainly"),
		})
	})

	t.Run("O20: a path with an escape that is none is refused before anything is decided on it", func(t *testing.T) {
		for _, path := range []string{"/recorder/%zz", "/recorder/%", "/recorder/a%2", "/%zz"} {
			for _, proto := range protocols() {
				// Go's HTTP server refuses these by itself, without a Status.
				got := proto.send(t, the.hub, request{path: path, header: bearer(the.ada)})
				if got.status != 400 && got.cut == "" {
					t.Errorf("%s: %s: %d %s", proto.name, path, got.status, got.body)
				}
			}
		}
	})
}

func TestCredentials(t *testing.T) {
	refused := func(name string, header [][2]string, says ...string) refusedCase {
		return refusedCase{name, request{path: "/recorder/api", header: header}, refusal{401, "Unauthorized", "unauthenticated", says}}
	}
	t.Run("O14,O18,D18: no credential, or one that is not good, is 401 and says what is wrong", func(t *testing.T) {
		ctx := within(t, 2*time.Minute)
		foreign, err := the.hubCluster.CreateToken(ctx, "team", "robot", "--audience=elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		managed, err := the.managed.CreateToken(ctx, "culvert-agent", "culvert-agent")
		if err != nil {
			t.Fatal(err)
		}
		expired, err := expiredToken(the.hubCluster)
		if err != nil {
			t.Fatal(err)
		}
		the.secrets["a token for another audience"], the.secrets["a token of the managed cluster"], the.secrets["an expired token"] = foreign, managed, expired
		checkAll(t, []refusedCase{
			refused("none", nil, "no credential", "send Authorization: Bearer <token>"),
			refused("wrong", bearer("no-such-token"), "the token is wrong, expired or for another audience"),
			refused("almost", bearer(the.ada+"x"), "the token is wrong"),
			refused("expired", bearer(expired), "the token expired at 20", "get a new one"),
			refused("another audience", bearer(foreign), "for another audience"),
			refused("of the managed cluster", bearer(managed), "the token is wrong"),
			refused("another scheme", [][2]string{{"authorization", "Basic YTpi"}}, "not of the Bearer scheme", "send Authorization: Bearer <token>"),
			refused("no scheme", [][2]string{{"authorization", the.ada}}, "not of the Bearer scheme"),
			refused("scheme alone", [][2]string{{"authorization", "Bearer"}}, "no token after Bearer"),
			refused("two tokens", bearer(the.ada+" "+the.root), "the token has a space"),
			refused("two headers", append(bearer(the.ada), bearer(the.root)...), "2 Authorization headers", "send one"),
			refused("the same twice", append(bearer(the.ada), bearer(the.ada)...), "2 Authorization headers", "send one"),
			refused("two of the hub's", [][2]string{{"culvert-authorization", "Bearer " + the.ada}, {"culvert-authorization", "Bearer " + the.root}}, "2 Authorization headers"),
			refused("wrong one first", [][2]string{{"culvert-authorization", "Bearer x"}, {"authorization", "Bearer " + the.ada}}, "the token is wrong"),
		})
	})

	t.Run("N10,O14: while the token service is down its users get 503 that names it, and others are served", func(t *testing.T) {
		ctx := within(t, 3*time.Minute)
		if err := the.hubCluster.APIServer.Kill9(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := the.hubCluster.APIServer.Start(ctx); err != nil {
				t.Fatal(err)
			}
			err := testbed.Poll(ctx, "the token review", func(context.Context) error {
				got := the.hub.http1(t, request{path: "/recorder/api", header: bearer(the.robot)})
				if got.status != 200 {
					return fmt.Errorf("%d %s", got.status, got.body)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}()
		down := refusal{503, "ServiceUnavailable", "unavailable", []string{"token review at " + the.hubCluster.URL, "connection refused"}}
		for _, proto := range protocols() {
			started := time.Now()
			if err := down.check(proto.send(t, the.hub, request{path: "/recorder/api", header: bearer("of-nobody-" + proto.name)})); err != nil {
				t.Errorf("%s: %v", proto.name, err)
			}
			if err := testbed.InTime(t.Context(), bin("culvert"), time.Since(started), 12*time.Second); err != nil {
				t.Errorf("%s: the 503: %v", proto.name, err)
			}
			if got := proto.send(t, the.hub, request{path: "/recorder/api", header: bearer(the.ada)}); got.status != 200 {
				t.Errorf("%s: ada, of the token file: %d %s", proto.name, got.status, got.body)
			}
			if err := (refusal{401, "Unauthorized", "unauthenticated", nil}).check(proto.send(t, the.hub, request{path: "/recorder/api"})); err != nil {
				t.Errorf("%s: without a credential: %v", proto.name, err)
			}
		}
	})
}
