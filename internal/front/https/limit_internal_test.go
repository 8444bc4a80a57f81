package https

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/culvertdev/culvert/internal/limit"
)

// TestKindOf holds that a request which stays open counts as such in every spelling that
// an API server takes for it.
func TestKindOf(t *testing.T) {
	for target, want := range map[string]limit.Kind{
		"/c/api/v1/pods":                                  limit.Request,
		"/c/api/v1/pods?limit=1":                          limit.Request,
		"/c/api/v1/pods?labelSelector=watch%3Dx":          limit.Request,
		"/c/api/v1/pods?watch=1":                          limit.Session,
		"/c/api/v1/pods?watch":                            limit.Session,
		"/c/api/v1/pods?watch&limit=1":                    limit.Session,
		"/c/api/v1/pods?limit=1&watch=true":               limit.Session,
		"/c/api/v1/pods?%77atch=1":                        limit.Session,
		"/c/api/v1/pods?w%61tch":                          limit.Session,
		"/c/api/v1/namespaces/n/pods/p/log?follow":        limit.Session,
		"/c/api/v1/namespaces/n/pods/p/log?%66ollow=true": limit.Session,
		"/c/api/v1/watch/pods":                            limit.Session,
		"/c/api/v1/w%61tch/pods":                          limit.Session,
	} {
		if got := kindOf(httptest.NewRequest(http.MethodGet, target, nil)); got != want {
			t.Errorf("%s: kind %d, want %d", target, got, want)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/c/api/v1/namespaces/n/pods/p/exec", nil)
	r.Header.Set("Upgrade", "websocket")
	if kindOf(r) != limit.Session {
		t.Error("an upgrade is a request")
	}
}
