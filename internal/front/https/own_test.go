package https_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/telemetry"
	"github.com/culvertdev/culvert/internal/wire"
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

func TestCA(t *testing.T) {
	b := newBed(t, bedConfig{})
	client := b.client(true)
	block, _ := pem.Decode(b.ca.pem)
	sum := sha256.Sum256(block.Bytes)
	t.Run("P16,P25: the CA of the hub's certificate is handed out with its fingerprint", func(t *testing.T) {
		res, body := b.get(client, "/-/ca.crt")
		plain := strings.ReplaceAll(res.Header.Get(https.HeaderFingerprint), ":", "")
		if body != string(b.ca.pem) || !strings.EqualFold(plain, hex.EncodeToString(sum[:])) {
			t.Errorf("%v %q", res.Header, body)
		}
		_, lines := b.get(client, "/-/ca.crt?fingerprint")
		if first, subject, _ := strings.Cut(lines, " "); strings.ReplaceAll(first, ":", "") != plain || !strings.HasPrefix(subject, "\"") || strings.Count(lines, "\n") != 1 {
			t.Errorf("%q", lines)
		}
	})
}

func TestReadyHealth(t *testing.T) {
	b := newBed(t, bedConfig{health: func() []telemetry.Health {
		return []telemetry.Health{{Name: "token file", LastError: "line 3: has 2 columns"}, {Name: "serving certificate", Subject: "CN=hub"}}
	}})
	client := b.client(true)
	t.Run("P5: certificates and failed reloads are in verbose readiness, and make nothing unready", func(t *testing.T) {
		res, body := b.get(client, "/-/readyz?verbose")
		want := "[+]hub ok\n[+]serving certificate ok: CN=hub\n[!]token file WARNING: the newest content cannot be used, " +
			"the one before stays in force: line 3: has 2 columns\nreadyz check passed\n"
		if res.StatusCode != 200 || !strings.HasSuffix(body, want) {
			t.Errorf("%s %q", res.Status, body)
		}
		if _, body := b.get(client, "/-/readyz"); body != "ok\n" {
			t.Errorf("details unasked: %q", body)
		}
	})
}

func TestAdminPaths(t *testing.T) {
	var callers []string
	b := newBed(t, bedConfig{admin: func(w http.ResponseWriter, r *http.Request, caller user.Info) error {
		if r.Method == http.MethodDelete {
			return &fault.Error{Hop: wire.HopHub, Op: "administer", Code: wire.CodePermissionDenied}
		}
		callers = append(callers, caller.GetName()+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		_, err := io.WriteString(w, "done")
		return err
	}})
	client := b.client(true)
	t.Run("D22: administrators are authenticated as any caller", func(t *testing.T) {
		if res, body := b.get(client, "/-/v1/tokens"); res.StatusCode != 200 || body != "done" || len(callers) != 1 || !strings.HasSuffix(callers[0], " /-/v1/tokens ") {
			t.Errorf("%s %q, %q", res.Status, body, callers)
		}
		r := b.request(http.MethodGet, "/-/v1/tokens", nil)
		r.Header.Del("Authorization")
		res, err := client.Do(r)
		ok(t, err)
		if decodeStatus(t, res); res.StatusCode != 401 || len(callers) != 1 {
			t.Errorf("%s, %q", res.Status, callers)
		}
		res, err = client.Do(b.request(http.MethodDelete, "/-/v1/tokens/x", nil))
		ok(t, err)
		if decodeStatus(t, res); res.StatusCode != 403 {
			t.Errorf("%s", res.Status)
		}
	})
	without := newBed(t, bedConfig{})
	if res, _ := without.get(without.client(true), "/-/v1/tokens"); res.StatusCode != 404 {
		t.Errorf("without administrators: %s", res.Status)
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
	for _, field := range []string{"Dial", "Identify", "Map", "Policy", "Logger"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}
