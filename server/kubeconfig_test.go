package server_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/kubeconfig"
	"github.com/culvertdev/culvert/server"
)

// status is what a refusal says to programs.
type status struct {
	Kind, Reason, Message string
	Details               struct {
		Causes            []struct{ Reason, Message string }
		RetryAfterSeconds int
	}
}

func statusOf(t *testing.T, body string) status {
	t.Helper()
	var s status
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Kind != "Status" {
		t.Fatalf("%v: %s", err, body)
	}
	return s
}

func TestKubeconfig(t *testing.T) {
	cfg := config(t)
	rules := cfg.State + "-policy.yaml"
	write(t, rules, policyHead+"rules:\n- {name: hidden, effect: deny, clusters: {names: [\"hidden*\"]}, kubernetes: [{verbs: [\"*\"]}]}\n"+
		"- {name: rest, effect: allow, kubernetes: [{verbs: [\"*\"]}]}\n")
	cfg.Policy = &server.Policy{File: rules}
	h := start(t, cfg)
	const path = "/-/v1/clusters/edge-1/kubeconfig"
	same := func(t *testing.T, cluster, token string, want int) {
		t.Helper()
		there, thereBody := h.get(http.MethodGet, "/"+cluster+"/version", token)
		here, hereBody := h.get(http.MethodGet, "/-/v1/clusters/"+cluster+"/kubeconfig", token)
		x, y := statusOf(t, thereBody), statusOf(t, hereBody)
		cut := func(s string) string { before, _, _ := strings.Cut(s, " (request id"); return before }
		if there != want || here != want || x.Reason != y.Reason || cut(x.Message) != cut(y.Message) {
			t.Errorf("%s: the path of the cluster answers %d %s, that of its kubeconfig %d %s", cluster, there, thereBody, here, hereBody)
		}
	}
	t.Run("S20: who would be refused at the cluster is refused with the same answer, whether there is such a cluster or not", func(t *testing.T) {
		same(t, "unknown", "tok-bob", 404)
		same(t, "hidden", "tok-bob", 403)
		same(t, "hidden-or-not", "tok-bob", 403)
		same(t, "edge-1", "", 401)
		same(t, "edge-1", "wrong", 401)
		if code, body := h.get(http.MethodGet, "/-/v1/clusters/Edge.1/kubeconfig", "tok-bob"); code != 400 {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("what is asked is read strictly", func(t *testing.T) {
		for _, query := range []string{"mode=PATH", "mode=path&mode=sni", "wait=1h", "wait=-1s", "wait=x", "acces=tunnel", "access=both", "ca=!", "ca=", "a=%zz"} {
			if code, body := h.get(http.MethodGet, path+"?"+query, "tok-bob"); code != 400 || statusOf(t, body).Reason != "BadRequest" {
				t.Errorf("%s: %d %s", query, code, body)
			}
		}
		for _, method := range []string{http.MethodPost, http.MethodDelete} {
			if code, body := h.get(method, path, "tok-bob"); code != 400 {
				t.Errorf("%s: %d %s", method, code, body)
			}
		}
	})
	m, err := h.join(h.token(admin.TokenRequest{Cluster: "edge-1"}).Text)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("S20: a cluster whose agent is away is 409 TunnelNotReady, and says what is waited for", func(t *testing.T) {
		code, body := h.get(http.MethodGet, path, "tok-bob")
		s := statusOf(t, body)
		causes := map[string]string{}
		for _, c := range s.Details.Causes {
			causes[c.Reason] = c.Message
		}
		if code != 409 || s.Reason != "TunnelNotReady" || causes["WaitFor"] != "agent" || s.Details.RetryAfterSeconds == 0 || !strings.Contains(s.Message, "no agent of the cluster is connected") {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("S20: an agent without a cluster behind it does not make it ready", func(t *testing.T) {
		_, _, stop := h.connect(m)
		defer stop()
		await(t, "the tunnel", func() bool { return len(h.server.Agents()) == 1 })
		code, body := h.get(http.MethodGet, path, "tok-bob")
		if s := statusOf(t, body); code != 409 || s.Reason != "TunnelNotReady" {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("S3: a hub without names for clusters says so", func(t *testing.T) {
		// The tunnel is looked at first: nobody learns of the configuration by asking.
		if code, body := h.get(http.MethodGet, path+"?mode=sni", "tok-bob"); code != 409 {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("P2: a cluster without an agent has its recorded address", func(t *testing.T) {
		if code, body := h.get(http.MethodGet, "/-/v1/clusters/far/kubeconfig?access=direct", "tok-bob"); code != 404 {
			t.Errorf("%d %s", code, body)
		}
		if code, body := h.get(http.MethodGet, path+"?access=direct", "tok-bob"); code != 400 || !strings.Contains(body, "culvert clusters set") {
			t.Errorf("%d %s", code, body)
		}
		ca := string(h.server.ServingCA())
		for _, cluster := range []string{"far", "edge-1"} {
			got, err := h.admin.SetDirect(t.Context(), cluster, admin.Direct{URL: "https://10.0.0.5:6443", CA: ca})
			if err != nil || got.Direct == nil || got.Direct.CA != ca {
				t.Fatalf("%+v %v", got, err)
			}
		}
		for _, query := range []string{"", "?access=auto", "?access=direct"} {
			code, body := h.get(http.MethodGet, "/-/v1/clusters/far/kubeconfig"+query, "tok-bob")
			entries, err := kubeconfig.Decode([]byte(body))
			if code != 200 || err != nil || len(entries) != 1 {
				t.Fatalf("%d %s %v", code, body, err)
			}
			if e := entries[0]; e.Server != "https://10.0.0.5:6443" || string(e.CA) != ca || e.Info.Access != kubeconfig.AccessDirect || e.Info.Generation != e.Generation() {
				t.Errorf("%+v", e)
			}
		}
		if code, body := h.get(http.MethodGet, path+"?access=tunnel", "tok-bob"); code != 409 {
			t.Errorf("%d %s", code, body)
		}
		_, _, stop := h.connect(m)
		defer stop()
		await(t, "the tunnel", func() bool { return len(h.server.Agents()) == 1 })
		if code, body := h.get(http.MethodGet, path, "tok-bob"); code != 409 {
			t.Errorf("with an agent, auto is the tunnel: %d %s", code, body)
		}
		if code, body := h.get(http.MethodGet, path+"?access=direct", "tok-bob"); code != 200 {
			t.Errorf("the record is gone once an agent was there: %d %s", code, body)
		}
		got, err := h.admin.SetDirect(t.Context(), "edge-1", admin.Direct{})
		if err != nil || got.Direct != nil {
			t.Errorf("%+v %v", got, err)
		}
		for _, bad := range []admin.Direct{
			{URL: "http://x"}, {URL: "https://u:p@x"}, {URL: "https://x?y"}, {URL: "x"}, {URL: "https://x", CA: "none"}, {CA: ca},
		} {
			if _, err := h.admin.SetDirect(t.Context(), "edge-1", bad); err == nil {
				t.Errorf("%+v is taken", bad)
			}
		}
	})
	t.Run("S18: the answer names its content, so that a program learns whether its file is still right", func(t *testing.T) {
		ask := func(tag string) *http.Response {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots(), MinVersion: tls.VersionTLS12}}
			defer transport.CloseIdleConnections()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+h.address()+"/-/v1/clusters/far/kubeconfig", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer tok-bob")
			r.Header.Set("If-None-Match", tag)
			res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Body.Close(); err != nil {
				t.Fatal(err)
			}
			return res
		}
		first := ask("")
		tag := first.Header.Get("Etag")
		if first.StatusCode != 200 || tag != `"`+first.Header.Get("Culvert-Generation")+`"` || len(tag) != 18 {
			t.Fatalf("%s %v", first.Status, first.Header)
		}
		if again := ask(tag); again.StatusCode != 304 {
			t.Errorf("%s", again.Status)
		}
		if _, err := h.admin.SetDirect(t.Context(), "far", admin.Direct{URL: "https://10.0.0.6:6443"}); err != nil {
			t.Fatal(err)
		}
		if changed := ask(tag); changed.StatusCode != 200 || changed.Header.Get("Etag") == tag {
			t.Errorf("%s %v", changed.Status, changed.Header)
		}
	})
	t.Run("S20: the clusters that a caller may reach are listed, and no others", func(t *testing.T) {
		if _, err := h.admin.SetDirect(t.Context(), "hidden", admin.Direct{URL: "https://x"}); err != nil {
			t.Fatal(err)
		}
		code, body := h.get(http.MethodGet, "/-/v1/kubeconfig", "tok-bob")
		if code != 200 || body != `{"items":[{"cluster":"edge-1"},{"cluster":"far"}]}`+"\n" {
			t.Errorf("%d %s", code, body)
		}
		if code, _ := h.get(http.MethodGet, "/-/v1/kubeconfig", "wrong"); code != 401 {
			t.Errorf("%d", code)
		}
		if code, _ := h.get(http.MethodGet, "/-/v1/clusters", "tok-bob"); code != 403 {
			t.Errorf("the list for administrators: %d", code)
		}
	})
}
