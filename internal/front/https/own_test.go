package https_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/internal/front/https"
)

func TestOwnPaths(t *testing.T) {
	var notReady error
	b := newBed(t, bedConfig{ready: func() error { return notReady }})
	client := b.client(true)
	check := func(t *testing.T, path string, code int, want string) {
		t.Helper()
		r := b.request(http.MethodGet, path, nil)
		r.Header.Del("Authorization")
		res, err := client.Do(r)
		ok(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		ok(t, err)
		if res.StatusCode != code || !strings.Contains(string(body), want) {
			t.Errorf("%s: got %s %q", path, res.Status, body)
		}
	}
	t.Run("O19: the hub's own paths need no token", func(t *testing.T) {
		check(t, "/-/healthz", 200, "ok\n")
		check(t, "/-/readyz", 200, "ok\n")
		check(t, "/-/readyz?verbose", 200, "readyz check passed")
		check(t, "/-/ca.crt", 200, string(b.ca.pem))
		check(t, "/-/other", 404, "Status")
	})
	notReady = errors.New("no store")
	check(t, "/-/readyz?verbose", 503, "no store")
	if _, body := b.get(client, "/-/readyz"); strings.Contains(body, "no store") {
		t.Errorf("the reason is shown unasked: %q", body)
	}
	res, err := client.Do(b.request(http.MethodPost, "/-/healthz", nil))
	ok(t, err)
	if status := decodeStatus(t, res); res.StatusCode != 400 {
		t.Errorf("POST: %+v", status)
	}
}

func TestServer(t *testing.T) {
	b := newBed(t, bedConfig{})
	server := b.front.Server()
	t.Run("D11: neither reading nor writing a body has a time limit", func(t *testing.T) {
		if server.ReadTimeout != 0 || server.WriteTimeout != 0 || server.ReadHeaderTimeout == 0 {
			t.Errorf("read %v, write %v, head %v", server.ReadTimeout, server.WriteTimeout, server.ReadHeaderTimeout)
		}
	})
	t.Run("O20: an HTTP/2 client may have at least 250 requests under way", func(t *testing.T) {
		if n := server.HTTP2.MaxConcurrentStreams; n < 250 {
			t.Errorf("%d", n)
		}
	})
}

func TestConfig(t *testing.T) {
	_, err := https.New(https.Config{})
	for _, field := range []string{"Dial", "Authenticate", "Map", "Logger"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
