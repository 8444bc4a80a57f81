package upstream_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/upstream"
	"github.com/culvertdev/culvert/internal/wire"
)

// apiServer answers what it was sent, and counts.
type apiServer struct {
	rest  rest.Config
	asked atomic.Int32
	last  atomic.Pointer[http.Request]
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.last.Store(r)
		if r.Header.Get("Authorization") == "Bearer expired" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	s.rest = rest.Config{Host: server.URL, BearerToken: "of-agent", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	return s
}

// keyPair returns a client certificate and its key in PEM form.
func keyPair(t *testing.T) (cert, key []byte) {
	t.Helper()
	cert, pair := certificate(t, "agent")
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	ok(t, err)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// wantSilent fails when the API server was asked since the last call.
func (s *apiServer) wantSilent(t *testing.T, why string) {
	t.Helper()
	if n := s.asked.Swap(0); n != 0 {
		t.Errorf("%s: the API server got %d requests", why, n)
	}
}

func TestImpersonation(t *testing.T) {
	server := newAPIServer(t)
	u := start(t, upstream.Config{Kubernetes: &server.rest})
	t.Run("N9: the default prefix is the hub's", func(t *testing.T) {
		if upstream.DefaultPrefix != identity.DefaultPrefix {
			t.Errorf("agent %q, hub %q", upstream.DefaultPrefix, identity.DefaultPrefix)
		}
	})
	t.Run("N9: what a hub maps by default arrives whole", func(t *testing.T) {
		mapper, err := identity.NewMapper(identity.Config{})
		ok(t, err)
		mapped, err := mapper.Map(&user.DefaultInfo{Name: "alice", UID: "7", Groups: []string{"dev", "system:authenticated"}, Extra: map[string][]string{"example.com/Team": {"a", "b"}}})
		ok(t, err)
		sent := http.Header{}
		ok(t, mapped.Apply(sent))
		var lines []string
		for name, values := range sent {
			for _, value := range values {
				lines = append(lines, name+": "+value)
			}
		}
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", lines...); res.StatusCode != 200 {
			t.Fatalf("got %s %s", res.Status, body)
		}
		got := server.last.Load().Header
		for name, values := range sent {
			if strings.Join(got[name], ",") != strings.Join(values, ",") {
				t.Errorf("%s: got %q, want %q", name, got[name], values)
			}
		}
		server.asked.Store(0)
	})
	t.Run("N9: a hub gone bad becomes nobody of the cluster's own", func(t *testing.T) {
		for _, headers := range [][]string{
			{"Impersonate-User: admin"},
			{"Impersonate-User: system:admin"},
			{"Impersonate-User: system:serviceaccount:kube-system:default"},
			{"Impersonate-User: system:node:a"},
			{"Impersonate-User: cluster:hub:"},
			{"Impersonate-User: cluster:hub"},
			{"Impersonate-User: Cluster:hub:alice"},
			{"Impersonate-User: cluster:hub:alice", "Impersonate-User: admin"},
			{"Impersonate-User: admin", "Impersonate-User: cluster:hub:alice"},
			{asAlice, "Impersonate-Group: system:masters"},
			{asAlice, "Impersonate-Group: cluster:hub:dev", "Impersonate-Group: system:masters"},
			{asAlice, "impersonate-group: system:masters"},
			{asAlice, "Impersonate-Group: admins"},
			{asAlice, "Impersonate-Group: "},
			{asAlice, "Impersonate_Group: system:masters"},
			{asAlice, "Impersonate-Group_: cluster:hub:dev"},
			{asAlice, "Impersonate-Uid: 1", "Impersonate-Uid: 2"},
			{asAlice, "Impersonate-Extra-%zz: 1"},
			{asAlice, "Impersonate-Extra-: 1"},
			{asAlice, "Impersonate-Other: 1"},
			{"Impersonate-Group: cluster:hub:dev"},
			{"Impersonate-Uid: 1"},
			{"Authorization: Bearer of-caller"},
			nil,
		} {
			res, body := ask(t, u, wire.KubernetesAPI(), "/", headers...)
			if res.StatusCode != 403 || res.Header.Get("X-Culvert-Error") != "permission-denied" {
				t.Errorf("%q: got %s %s", headers, res.Status, body)
			}
			server.wantSilent(t, strings.Join(headers, ", "))
		}
	})
	t.Run("N9: headers listed in Connection are sent nevertheless", func(t *testing.T) {
		res, body := ask(t, u, wire.KubernetesAPI(), "/", asAlice, "Impersonate-Group: cluster:hub:dev", "Connection: Impersonate-User, impersonate-group, Authorization")
		if res.StatusCode != 200 {
			t.Fatalf("got %s %s", res.Status, body)
		}
		got := server.last.Load().Header
		if got.Get("Impersonate-User") != "cluster:hub:alice" || got.Get("Impersonate-Group") != "cluster:hub:dev" || got.Get("Authorization") != "Bearer of-agent" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("N9: the owner names other prefixes, users and groups", func(t *testing.T) {
		u := start(t, upstream.Config{Kubernetes: &server.rest, Impersonation: upstream.Impersonation{Prefixes: []string{"corp:"}, Users: []string{"alice"}, Groups: []string{"viewers"}}})
		for _, c := range []struct {
			status  int
			headers []string
		}{
			{200, []string{"Impersonate-User: corp:bob"}},
			{200, []string{"Impersonate-User: alice", "Impersonate-Group: viewers", "Impersonate-Group: corp:dev"}},
			{403, []string{"Impersonate-User: cluster:hub:alice"}},
			{403, []string{"Impersonate-User: viewers"}},
			{403, []string{"Impersonate-User: alice", "Impersonate-Group: alice"}},
		} {
			if res, body := ask(t, u, wire.KubernetesAPI(), "/", c.headers...); res.StatusCode != c.status {
				t.Errorf("%q: got %s %s", c.headers, res.Status, body)
			}
		}
	})
	t.Run("N9: no name of the system can be allowed", func(t *testing.T) {
		for _, i := range []upstream.Impersonation{
			{Prefixes: []string{""}}, {Prefixes: []string{"system:"}}, {Prefixes: []string{"sys"}}, {Prefixes: []string{"system:node:"}},
			{Users: []string{"system:admin"}}, {Users: []string{""}}, {Groups: []string{"system:masters"}},
		} {
			if err := i.Validate(); err == nil {
				t.Errorf("%+v: no error", i)
			}
		}
	})
}

func TestPassThrough(t *testing.T) {
	server := newAPIServer(t)
	u := start(t, upstream.Config{Kubernetes: &server.rest, PassThrough: true})
	t.Run("K7: a token passes without the agent's credential", func(t *testing.T) {
		res, body := ask(t, u, wire.KubernetesAPI(), "/", "Authorization: Bearer of-caller", "Connection: Authorization", "X-Remote-User: root", "X-Remote-Group: system:masters")
		if res.StatusCode != 200 {
			t.Fatalf("got %s %s", res.Status, body)
		}
		got := server.last.Load().Header
		if strings.Join(got["Authorization"], ",") != "Bearer of-caller" || got.Get("X-Remote-User") != "" || got.Get("Impersonate-User") != "" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("K7: neither does the agent's certificate go with it", func(t *testing.T) {
		cfg := server.rest
		cert, key := keyPair(t)
		cfg.CertData, cfg.KeyData, cfg.BearerToken = cert, key, ""
		u := start(t, upstream.Config{Kubernetes: &cfg, PassThrough: true})
		for header, certificates := range map[string]int{asAlice: 1, "Authorization: Bearer of-caller": 0} {
			if res, body := ask(t, u, wire.KubernetesAPI(), "/", header); res.StatusCode != 200 {
				t.Fatalf("got %s %s", res.Status, body)
			}
			if n := len(server.last.Load().TLS.PeerCertificates); n != certificates {
				t.Errorf("%s: %d certificates", header, n)
			}
		}
	})
	t.Run("K7: the API server's 401 is the caller's own", func(t *testing.T) {
		if res, body := ask(t, u, wire.KubernetesAPI(), "/", "Authorization: Bearer expired"); res.StatusCode != 401 || res.Header.Get("X-Culvert-Error") != "" {
			t.Errorf("got %s %s", res.Status, body)
		}
	})
	t.Run("K7: whom the hub names is impersonated, and no token goes with it", func(t *testing.T) {
		ask(t, u, wire.KubernetesAPI(), "/", asAlice, "Authorization: Bearer of-caller")
		if got := server.last.Load().Header; strings.Join(got["Authorization"], ",") != "Bearer of-agent" || got.Get("Impersonate-User") != "cluster:hub:alice" {
			t.Errorf("got %v", got)
		}
	})
	server.asked.Store(0)
	t.Run("K7: nothing else passes", func(t *testing.T) {
		for _, headers := range [][]string{
			nil, {"Authorization: Basic YTpi"}, {"Authorization: Bearer "}, {"Authorization: Bearer a", "Authorization: Bearer b"},
			{"Authorization: Bearer a", "Impersonate-Group: system:masters"}, {"Authorization: Bearer a", "Impersonate-User: admin"},
		} {
			if res, body := ask(t, u, wire.KubernetesAPI(), "/", headers...); res.StatusCode != 403 {
				t.Errorf("%q: got %s %s", headers, res.Status, body)
			}
		}
		server.wantSilent(t, "pass-through")
	})
}
