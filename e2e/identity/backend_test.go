package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// inEachWay is a token in all ways in which one is a credential of the hub.
func inEachWay(path, token string) []call {
	return []call{
		{path: path, token: token},
		{path: path, header: []string{"Culvert-Authorization", "Bearer " + token}},
		{path: path, token: token, header: []string{"Impersonate-User", "ada", "Impersonate-Group", "dev"}},
	}
}

// unavailable is the outcome of a caller whose judge is away.
func unavailable(ctx context.Context, t *testing.T, c call, says ...string) {
	t.Helper()
	got, err := the.hub.ask(ctx, c)
	must(t, err)
	cell{
		status: 503, reason: "ServiceUnavailable", code: "unavailable", says: says, call: c,
	}.judge(ctx, t, got)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if l, err := lineOf(ctx, got); err != nil || l.Authentication != "oidc" && l.Authentication != "token-review" {
		t.Errorf("the audit line does not say who could not judge: %+v, %v", l, err)
	}
}

// TestBackendsDown runs alone and last among those that need them: it takes away
// what judges callers, one after the other.
func TestBackendsDown(t *testing.T) {
	ctx := within(t, 4*time.Minute)
	t.Run("N10,O14: while an OIDC provider was never reached, its callers get 503 that names it, and others are served", func(t *testing.T) {
		late, err := the.late.unreached(ctx)
		must(t, err)
		for _, c := range inEachWay("/managed"+firstPath, late) {
			unavailable(ctx, t, c, strings.TrimPrefix(the.late.issuer, "https://"))
		}
		for _, c := range callers(ctx, t) {
			if got, err := the.hub.ask(ctx, c.to(firstPath)); err != nil || got.status != 200 {
				t.Errorf("%s: %v %d %s", c.kind, err, got.status, got.body)
			}
		}
		must(t, the.late.start(ctx))
		must(t, testbed.Poll(ctx, "the provider's callers", func(ctx context.Context) error {
			got, err := the.hub.ask(ctx, call{path: "/managed" + firstPath, token: late})
			if err == nil && got.status != 200 {
				err = fmt.Errorf("%d %s", got.status, got.body)
			}
			return err
		}))
	})
	t.Run("N10,O14: a provider that is gone takes nothing from callers whose keys are known", func(t *testing.T) {
		token, err := the.late.token(ctx, "", claims{"sub": "somebody-else"})
		must(t, err)
		must(t, the.late.process.Kill9())
		if got, err := the.hub.ask(ctx, call{path: "/managed" + firstPath, token: token}); err != nil || got.status != 200 {
			t.Errorf("%v %d %s", err, got.status, got.body)
		}
	})
	t.Run("N10,O14: while the token service is down its callers get 503 that names it, and others are served", func(t *testing.T) {
		fresh, err := serviceAccount(ctx, the.hubCluster, "team", "other")
		must(t, err)
		must(t, the.hubCluster.APIServer.Kill9())
		for _, c := range inEachWay("/managed"+firstPath, fresh) {
			unavailable(ctx, t, c, "token review")
		}
		t.Run("K7: a token that could be the hub's goes to no cluster meanwhile", func(t *testing.T) {
			before := the.recorder.requests.Load()
			unavailable(ctx, t, call{path: "/recorder/api", token: fresh})
			// One that no cache can have a verdict about.
			unavailable(ctx, t, call{path: "/recorder/api", token: rand.Text()})
			if n := the.recorder.requests.Load() - before; n != 0 {
				t.Errorf("%d reached the server", n)
			}
		})
		for _, c := range callers(ctx, t) {
			if c.method == "token-review" || c.method == "pass-through" {
				continue
			}
			if got, err := the.hub.ask(ctx, c.to(firstPath)); err != nil || got.status != 200 {
				t.Errorf("%s: %v %d %s", c.kind, err, got.status, got.body)
			}
		}
		must(t, the.hubCluster.APIServer.Start(ctx))
		must(t, testbed.Poll(ctx, "its callers", func(ctx context.Context) error {
			got, err := the.hub.ask(ctx, call{path: "/managed" + reviewPath, token: fresh})
			if err == nil && got.status == 503 {
				err = fmt.Errorf("%d %s", got.status, got.body)
			}
			return err
		}))
	})
	t.Run("N10: while a cluster's API server is down, the answer says which hop failed, for each kind of caller", func(t *testing.T) {
		must(t, the.managed.APIServer.Kill9())
		for _, c := range callers(ctx, t) {
			got, err := the.hub.ask(ctx, c.to(firstPath))
			must(t, err)
			s, err := statusIn(got)
			if err != nil || got.status != 502 && got.status != 503 || got.header.Get("X-Culvert-Error") == "" || !strings.Contains(s.Message, "agent") && !strings.Contains(s.Message, "target") {
				t.Errorf("%s: %v %d %s", c.kind, err, got.status, got.body)
			}
			if want := map[int]string{502: "BadGateway", 503: "ServiceUnavailable"}[got.status]; s.Reason != want {
				t.Errorf("%s: %d with reason %q", c.kind, got.status, s.Reason)
			}
			l, err := lineOf(ctx, got)
			asked := cell{decision: "allow"}
			if l.Agent == "" { // the agent has told the hub by now, which asks it no more
				asked.decision = ""
			}
			asked.judgeTrace(ctx, t, got)
			if err != nil || l.Status != got.status || l.Code != got.header.Get("X-Culvert-Error") || l.Hop == "" || l.Decision != "allow" {
				t.Errorf("%s: %v %+v", c.kind, err, l)
			}
		}
		must(t, the.managed.APIServer.Start(ctx))
		// The agents, of which two have this server, find out by their next probe.
		awaitStatus(ctx, t, call{path: "/managed/version", token: the.ada}, 200)
		awaitStatus(ctx, t, call{path: "/open/version", token: the.passer}, 200)
	})
}
