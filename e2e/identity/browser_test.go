package identity

import (
	"net/http"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed/rawhttp"
)

// A browser shows a client certificate to a server by itself, whichever page asks.
func TestOtherOrigins(t *testing.T) {
	carol, err := the.users.issue("carol", []string{"dev"}, time.Now().Add(time.Hour))
	must(t, err)
	upgrade := []rawhttp.Field{{"connection", "Upgrade"}, {"upgrade", "websocket"}, {"sec-websocket-version", "13"}, {"sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="}}
	for _, c := range []struct {
		name, method string
		fields       []rawhttp.Field
	}{
		{"a form of another site", http.MethodPost, []rawhttp.Field{{"origin", "https://evil.example"}, {"sec-fetch-site", "cross-site"}, {"content-type", "text/plain"}}},
		{"a form of an old browser", http.MethodPost, []rawhttp.Field{{"origin", "https://evil.example"}, {"content-type", "text/plain"}}},
		{"a page without an origin", http.MethodPost, []rawhttp.Field{{"origin", "null"}, {"content-type", "text/plain"}}},
		{"a form of a sister site", http.MethodDelete, []rawhttp.Field{{"origin", "https://other.hub.example"}, {"sec-fetch-site", "same-site"}}},
	} {
		t.Run("O4,N9: "+c.name+" cannot use the certificate that a browser shows", func(t *testing.T) {
			before := the.recorder.requests.Load()
			for _, protocol := range rawhttp.Protocols() {
				got := protocol.Send(t.Context(), the.hub.raw(carol), rawhttp.Request{Method: c.method, Path: "/recorder/api/v1/namespaces/work/configmaps/first", Header: c.fields})
				if got.Status != http.StatusForbidden {
					t.Errorf("%s: %d %s, want 403", protocol.Name, got.Status, got.Body)
				}
			}
			if n := the.recorder.requests.Load() - before; n != 0 {
				t.Errorf("%d requests reached the server", n)
			}
		})
	}
	t.Run("O4,N9: a WebSocket of another site cannot use the certificate that a browser shows", func(t *testing.T) {
		for _, origin := range []string{"https://evil.example", "null", "https://" + the.hub.addr() + ".evil.example"} {
			got := the.hub.raw(carol).HTTP1(t.Context(), rawhttp.Request{
				Path: "/managed/api/v1/namespaces/work/pods/worker/exec?command=id&stdout=1", Header: append([]rawhttp.Field{{"origin", origin}}, upgrade...),
			})
			if got.Status != http.StatusForbidden {
				t.Errorf("from %s: %d %s, want 403", origin, got.Status, got.Body)
			}
		}
	})
	t.Run("O4: a page of the hub's own, and whoever is no browser, can", func(t *testing.T) {
		for name, fields := range map[string][]rawhttp.Field{
			"own":        {{"origin", "https://" + the.hub.addr()}, {"sec-fetch-site", "same-origin"}, {"content-type", "application/json"}},
			"no browser": {{"content-type", "application/json"}},
		} {
			got := the.hub.raw(carol).HTTP1(t.Context(), rawhttp.Request{Method: http.MethodPost, Path: "/recorder/x", Header: fields, Body: "{}"})
			if got.Status != http.StatusOK {
				t.Errorf("%s: %d %s", name, got.Status, got.Body)
			}
		}
	})
	t.Run("O4: a page that has a token may use it from where it is, as API servers have it", func(t *testing.T) {
		got := the.hub.raw(carol).HTTP1(t.Context(), rawhttp.Request{
			Method: http.MethodPost, Path: "/recorder/x", Body: "{}", Header: []rawhttp.Field{{"origin", "https://dashboard.example"}, {"authorization", "Bearer " + the.ada}},
		})
		if got.Status != http.StatusOK {
			t.Errorf("%d %s", got.Status, got.Body)
		}
	})
}
