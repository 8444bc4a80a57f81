package client

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// An answer that is no Status comes from what is in the hub's place, as a load balancer.
func TestFromAnswer(t *testing.T) {
	for _, tt := range []struct {
		name, status, body string
		header             http.Header
		want               Error // without Err
		says               string
	}{
		{"a Status of the hub", "503 Service Unavailable", `{"kind":"Status","message":"no agent","details":{"causes":[{"reason":"Hop","message":"agent"}]}}`,
			http.Header{"X-Culvert-Error": {"link-lost"}, "X-Request-Id": {"id"}, "Retry-After": {"3"}}, Error{Code: LinkLost, Hop: HopAgent, RequestID: "id", RetryAfter: 3 * time.Second}, "no agent"},
		{"a page", "502 Bad Gateway", "<html>", nil, Error{Code: Internal, Hop: HopHub}, "the hub answers 502 Bad Gateway"},
		{"nothing", "404 Not Found", "", nil, Error{Code: Internal, Hop: HopHub}, "the hub answers 404 Not Found"},
		{"JSON of another form", "418 I'm a teapot", `{"message":7}`, nil, Error{Code: Internal, Hop: HopHub}, "the hub answers 418"},
		{"a page that does not end", "500 Internal Server Error", strings.Repeat("x", 4*maxStatus), nil, Error{Code: Internal, Hop: HopHub}, "the hub answers 500"},
		{"a time that is none", "503 Service Unavailable", "", http.Header{"X-Culvert-Error": {"unavailable"}, "Retry-After": {"-1"}}, Error{Code: Unavailable, Hop: HopHub}, "the hub answers 503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := &closed{Reader: strings.NewReader(tt.body)}
			header := tt.header
			if header == nil {
				header = http.Header{}
			}
			err := fromAnswer("ask the hub", "edge-1", &http.Response{Status: tt.status, Header: header, Body: body})
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Code != tt.want.Code || e.Hop != tt.want.Hop || e.RequestID != tt.want.RequestID || e.RetryAfter != tt.want.RetryAfter || e.Cluster != "edge-1" {
				t.Fatalf("got %#v", err)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if !body.closed {
				t.Error("the answer was not closed")
			}
		})
	}
}

// closed tells whether it was closed.
type closed struct {
	io.Reader

	closed bool
}

func (c *closed) Close() error {
	c.closed = true
	return nil
}
