package upstream_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await asks until it is so, for as long as patience.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func start(t *testing.T, cfg upstream.Config) *upstream.Upstream {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	u, err := upstream.New(cfg)
	ok(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := u.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return u
}

// session returns the hub's end of a session that u serves.
func session(t *testing.T, u *upstream.Upstream, target wire.Target) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ok(t, err)
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	ok(t, err)
	t.Cleanup(func() { near.Close() })
	ok(t, near.SetDeadline(time.Now().Add(patience)))
	far, err := l.Accept()
	ok(t, err)
	u.Serve(far, target)
	return near
}

// ask sends one GET over a session of its own.
func ask(t *testing.T, u *upstream.Upstream, target wire.Target, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	conn := session(t, u, target)
	defer conn.Close()
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, strings.Join(append(headers, ""), "\r\n"))
	ok(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	ok(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ok(t, err)
	return res, string(body)
}

const asAlice = "Impersonate-User: cluster:hub:alice"

func wantCode(t *testing.T, err error, hop wire.Hop, code wire.Code) {
	t.Helper()
	if f := fault.As(err); f == nil || f.Hop != hop || f.Code != code {
		t.Errorf("got %v, want %v at %v", err, code, hop)
	}
}

func TestKubernetes(t *testing.T) {
	tokenFile := filepath.Join(t.TempDir(), "token")
	ok(t, os.WriteFile(tokenFile, []byte("one"), 0o600))
	valid := "one"
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+valid {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprintf(w, "%s|%s|%s|%s", r.RequestURI, r.Header.Get("Impersonate-User"), r.Header.Get("Authorization"), r.Header.Get("X-Remote-User"))
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	u := start(t, upstream.Config{Kubernetes: &rest.Config{
		Host: server.URL + "/k8s/a%2Fb/", BearerTokenFile: tokenFile, TLSClientConfig: rest.TLSClientConfig{CAData: ca},
	}})
	t.Run("O3: the server's own path comes first, and the agent's credential is set", func(t *testing.T) {
		_, body := ask(t, u, wire.KubernetesAPI(), "/api//x%2Fy?z", asAlice, "Authorization: Bearer of-hub", "X-Remote-User: root")
		if want := "/k8s/a%2Fb/api//x%2Fy?z|cluster:hub:alice|Bearer one|"; body != want {
			t.Errorf("got %q, want %q", body, want)
		}
	})
	t.Run("O3: a rotated token is read again after the old one was refused", func(t *testing.T) {
		ok(t, os.WriteFile(tokenFile, []byte("two"), 0o600))
		valid = "two"
		ask(t, u, wire.KubernetesAPI(), "/", asAlice)
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 200 {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
	t.Run("O3: without its token the agent sends nothing", func(t *testing.T) {
		ok(t, os.Remove(tokenFile))
		valid = "three"
		ask(t, u, wire.KubernetesAPI(), "/", asAlice)
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 503 || strings.Contains(body, "two") {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
	t.Run("O3: without a user to impersonate nothing is sent with the agent's credential", func(t *testing.T) {
		for _, headers := range [][]string{nil, {"Impersonate-User: "}, {"Impersonate-Group: x"}, {asAlice, asAlice}} {
			res, body := ask(t, u, wire.KubernetesAPI(), "/", headers...)
			var status metav1.Status
			ok(t, json.Unmarshal([]byte(body), &status))
			if res.StatusCode != 403 || status.Details.Causes[0].Message != "agent" {
				t.Errorf("%q: got %s %s", headers, res.Status, body)
			}
		}
	})
	t.Run("O20: the agent refuses dot segments, too", func(t *testing.T) {
		if res, _ := ask(t, u, wire.KubernetesAPI(), "/%2e%2e/x", asAlice); res.StatusCode != 400 {
			t.Errorf("got %s", res.Status)
		}
	})
	t.Run("O3,D15,V16: a server with a certificate of somebody else is refused", func(t *testing.T) {
		other, _ := certificate(t, "other")
		u := start(t, upstream.Config{Kubernetes: &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: other}}})
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 502 || res.Header.Get("X-Culvert-Error") != "tls-failure" {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
	t.Run("D15,V16: a CA that takes the place of another in its file is used without a restart", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "ca.crt")
		other, _ := certificate(t, "other")
		ok(t, os.WriteFile(file, other, 0o600))
		u := start(t, upstream.Config{Kubernetes: &rest.Config{Host: server.URL, BearerToken: valid, TLSClientConfig: rest.TLSClientConfig{CAFile: file}}})
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 502 || res.Header.Get("X-Culvert-Error") != "tls-failure" {
			t.Errorf("got %s %s", res.Status, body)
		}
		ok(t, os.WriteFile(file, append(ca, other...), 0o600))
		await(t, "the new CA", func() bool {
			res, _ := ask(t, u, wire.KubernetesAPI(), "/", asAlice)
			return res.StatusCode == 200
		})
	})
	t.Run("D14: a server is not verified only where the kubeconfig says so, and that is a warning", func(t *testing.T) {
		var log lines
		u := start(t, upstream.Config{
			Kubernetes: &rest.Config{Host: server.URL, BearerToken: valid, TLSClientConfig: rest.TLSClientConfig{Insecure: true}},
			Logger:     slog.New(slog.NewTextHandler(&log, nil)),
		})
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice); res.StatusCode != 200 {
			t.Errorf("got %s %s", res.Status, body)
		}
		if !u.Unverified() || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "is not verified") {
			t.Errorf("unverified %v, log %s", u.Unverified(), log.String())
		}
	})
	t.Run("a raw address is not served with HTTP", func(t *testing.T) {
		u := start(t, upstream.Config{Addresses: []upstream.AddressRule{{Host: "10.0.0.1", Port: "*"}}})
		if res, _ := ask(t, u, wire.Address("10.0.0.1", 1), "/"); res.StatusCode != 400 {
			t.Errorf("got %s", res.Status)
		}
		_, err := u.Dial(t.Context(), wire.Service("a", "b", "", ""))
		wantCode(t, err, wire.HopAgent, wire.CodePermissionDenied)
	})
}

// certificate returns a self-signed certificate in PEM form and with its key.
func certificate(t *testing.T, name string) ([]byte, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ok(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestServiceCA(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.crt")
	old, _ := certificate(t, "b.a.svc")
	ok(t, os.WriteFile(file, old, 0o600))
	now, cert := certificate(t, "b.a.svc")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	u := start(t, upstream.Config{
		DNSServer: dnsServer(t, false), ServiceCA: file, Services: []upstream.ServiceRule{{Namespace: "*", Name: "*"}},
		SpecialAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	target := wire.Service("a", "b", strconv.Itoa(server.Listener.Addr().(*net.TCPAddr).Port), "")
	t.Run("O21,V16: a service that the CA does not know is refused", func(t *testing.T) {
		if res, _ := ask(t, u, target, "/"); res.Header.Get("X-Culvert-Error") != "tls-failure" {
			t.Errorf("got %s", res.Status)
		}
	})
	t.Run("O21: a rotated CA file is read again", func(t *testing.T) {
		ok(t, os.WriteFile(file, append(now, old...), 0o600))
		if res, body := ask(t, u, target, "/"); res.StatusCode != 200 || body != "ok" {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
}

func TestClose(t *testing.T) {
	u, err := upstream.New(upstream.Config{Logger: slog.New(slog.DiscardHandler)})
	ok(t, err)
	idle := session(t, u, wire.KubernetesAPI())
	_, err = io.WriteString(idle, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	ok(t, err)
	r := bufio.NewReader(idle)
	res, err := http.ReadResponse(r, nil)
	ok(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	ok(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ok(t, u.Close(ctx))
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("an idle session after Close: %v", err)
	}
	if _, err := session(t, u, wire.KubernetesAPI()).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a session that comes after Close: %v", err)
	}
}

func TestValidate(t *testing.T) {
	_, err := upstream.New(upstream.Config{
		DialTimeout: -1, DNSServer: "x", Services: []upstream.ServiceRule{{}}, Addresses: []upstream.AddressRule{{Host: "A", Port: "1"}},
		Kubernetes: &rest.Config{Impersonate: rest.ImpersonationConfig{UserName: "x"}},
	})
	for _, field := range []string{"logger", "dialTimeout", "dnsServer", "services[0]", "addresses[0]", "impersonate"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestLoadKubernetes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	ok(t, os.WriteFile(file, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"a",
		"clusters":[{"name":"a","cluster":{"server":"https://a"}},{"name":"b","cluster":{"server":"https://b"}}],
		"contexts":[{"name":"a","context":{"cluster":"a"}},{"name":"b","context":{"cluster":"b"}}]}`), 0o600))
	for context, host := range map[string]string{"": "https://a", "b": "https://b"} {
		if cfg, err := upstream.LoadKubernetes(file, context); err != nil || cfg.Host != host {
			t.Errorf("context %q: got %v, %v", context, cfg, err)
		}
	}
	for _, in := range [][2]string{{file, "c"}, {file + "x", ""}, {"", "a"}, {"", ""}} {
		if _, err := upstream.LoadKubernetes(in[0], in[1]); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}
