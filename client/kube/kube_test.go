package kube_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/transport/websocket"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/client/kube"
)

// watched tells whether it was closed.
type watched struct {
	io.Reader

	closed bool
}

func (w *watched) Close() error {
	w.closed = true
	return nil
}

func TestCredentialIsForTheHubAlone(t *testing.T) {
	for name, set := range map[string]client.Config{
		"another host": {Hub: "https://hub.example.com", Token: "secret"},
		"another port": {Hub: "https://elsewhere.example.com:8443", Token: "secret"},
		"no token":     {Hub: "https://elsewhere.example.com", TokenFile: "/nowhere/token"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := client.New(set)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			config, err := kube.RESTConfig(c, "edge-1")
			if err != nil {
				t.Fatal(err)
			}
			way, _, err := websocket.RoundTripperFor(config)
			if err != nil {
				t.Fatal(err)
			}
			body := &watched{Reader: strings.NewReader("x")}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://elsewhere.example.com/edge-1/api", body)
			if err != nil {
				t.Fatal(err)
			}
			res, err := way.RoundTrip(r)
			if err == nil {
				err = res.Body.Close()
				t.Error("it was sent")
			}
			if !body.closed || strings.Contains(err.Error(), "secret") {
				t.Errorf("body closed: %v, error: %v", body.closed, err)
			}
			e, known := errors.AsType[*client.Error](err)
			if other := strings.Contains(err.Error(), "its own hub alone"); other == (set.Token == "") || known != (set.Token == "") {
				t.Errorf("got %v, %v", err, e)
			}
		})
	}
}
