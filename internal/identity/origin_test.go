package identity_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestOrigin(t *testing.T) {
	for _, c := range []struct {
		title, method string
		header        map[string]string
		refused       bool
	}{
		{"H: kubectl sends no origin", http.MethodPost, nil, false},
		{"H: a page of the hub's own origin may write", http.MethodPost, map[string]string{"Origin": "https://hub.example.com", "Sec-Fetch-Site": "same-origin"}, false},
		{"H: another origin may not write", http.MethodDelete, map[string]string{"Sec-Fetch-Site": "cross-site"}, true},
		{"H: nor where the browser names the origin only", http.MethodPost, map[string]string{"Origin": "https://evil.example.com"}, true},
		{"H: nor open a WebSocket, which is a GET", http.MethodGet, map[string]string{"Origin": "https://evil.example.com", "Upgrade": "websocket"}, true},
		{"H: it may link to what is only read", http.MethodGet, map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
	} {
		t.Run(c.title, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "https://hub.example.com/edge-1/api", nil)
			for name, value := range c.header {
				r.Header.Set(name, value)
			}
			err := identity.CheckOrigin(r)
			if (err != nil) != c.refused {
				t.Fatalf("got %v", err)
			}
			if f := fault.As(err); c.refused && (f == nil || f.Code != wire.CodePermissionDenied) {
				t.Errorf("got %v", err)
			}
			if r.Method != c.method {
				t.Error("the request was changed")
			}
		})
	}
}
