package kubeconfig

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// cluster asks for a kubeconfig and returns its cluster entry.
func (w *world) cluster(ctx context.Context, t *testing.T, name string, query url.Values) (*api.Cluster, string) {
	t.Helper()
	got := w.ask(ctx, "/-/v1/clusters/"+name+"/kubeconfig?"+query.Encode(), w.alice)
	if got.err != nil || got.code != http.StatusOK {
		t.Fatalf("%v: %d %s", got.err, got.code, got.body)
	}
	config, err := clientcmd.Load([]byte(got.body))
	must(t, err)
	return config.Clusters[name], got.body
}

func TestNames(t *testing.T) {
	ctx := within(t, 5*time.Minute)
	for _, cluster := range []string{"edge-sni", "edge-pass"} {
		the.agent(ctx, t, cluster, the.enrol(ctx, t, cluster))
	}
	port := the.port.Addr()[strings.LastIndex(the.port.Addr(), ":")+1:]
	ca, err := os.ReadFile(the.managed.CAFile)
	must(t, err)
	t.Run("S3,S16: the form with the cluster's name has the hub's CA, and works with a token of the hub", func(t *testing.T) {
		cluster, _ := the.cluster(ctx, t, "edge-sni", url.Values{"mode": {"sni"}, "wait": {"60s"}})
		if cluster.Server != "https://cluster-edge-sni.edge.example.com:"+port {
			t.Errorf("%s", cluster.Server)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(cluster.CertificateAuthorityData)
		transport := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			// What the DNS of the domain does.
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, the.port.Addr())
			},
		}
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, cluster.Server+"/api/v1/namespaces", http.NoBody)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+the.alice)
		res, err := (&http.Client{Transport: transport}).Do(req)
		must(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), "kube-system") {
			t.Errorf("%v %s %s", err, res.Status, body)
		}
	})
	t.Run("S15: pass-through is refused while the live certificate of the API server lacks the name, with what mends it", func(t *testing.T) {
		var got answer
		must(t, testbed.Poll(ctx, "the agent of edge-pass", func(context.Context) error {
			got = the.ask(ctx, "/-/v1/clusters/edge-pass/kubeconfig?"+url.Values{"mode": {"passthrough"}, "ca": {base64.URLEncoding.EncodeToString(ca)}}.Encode(), the.alice)
			if _, waitFor := got.refusal(t); waitFor == "agent" {
				return errors.New(got.body)
			}
			return nil
		}))
		if reason, waitFor := got.refusal(t); got.code != http.StatusConflict || reason != "TunnelNotReady" || waitFor != "cluster-certificate" {
			t.Errorf("%d %s", got.code, got.body)
		}
		for _, part := range []string{"SANMissing", "certSANs", "tls-san", "cluster-edge-pass.edge.example.com"} {
			if !strings.Contains(got.body, part) {
				t.Errorf("lacks %q: %s", part, got.body)
			}
		}
		admin := t.TempDir() + "/admin"
		must(t, os.WriteFile(admin, adminKubeconfig(), 0o600))
		_, err := the.kubeconfig(ctx, "--token-file", the.aliceFile, "--cluster", "edge-pass", "--mode", "passthrough", "--from", "managed", "--kubeconfig", admin)
		if err == nil || !strings.Contains(err.Error(), "apiServer:\n  certSANs:\n  - \"cluster-edge-pass.edge.example.com\"\n") || !strings.Contains(err.Error(), "tls-san:\n- \"cluster-edge-pass.edge.example.com\"\n") {
			t.Errorf("the command does not print what to paste: %v", err)
		}
	})
	t.Run("S20: pass-through and end to end are verified with the very CA that goes into the file", func(t *testing.T) {
		wrong, err := os.ReadFile(the.hubCA())
		must(t, err)
		for cluster, mode := range map[string]string{"edge-pass": "passthrough", "edge-sni": "end-to-end"} {
			got := the.ask(ctx, "/-/v1/clusters/"+cluster+"/kubeconfig?"+url.Values{"mode": {mode}, "ca": {base64.URLEncoding.EncodeToString(wrong)}}.Encode(), the.alice)
			if reason, waitFor := got.refusal(t); got.code != http.StatusConflict || reason != "TunnelNotReady" || waitFor != "cluster-certificate" || !strings.Contains(got.body, "unknown authority") {
				t.Errorf("%s: %d %s", mode, got.code, got.body)
			}
		}
	})
	t.Run("S17: end to end needs no name on the cluster: the file has one that every API server has, and both CAs", func(t *testing.T) {
		cluster, body := the.cluster(ctx, t, "edge-sni", url.Values{"mode": {"end-to-end"}, "ca": {base64.URLEncoding.EncodeToString(ca)}})
		hubCA, err := os.ReadFile(the.hubCA())
		must(t, err)
		if cluster.Server != "https://edge-sni.edge.example.com" || cluster.TLSServerName != "kubernetes" || cluster.ProxyURL != the.url() ||
			!bytes.Contains(cluster.CertificateAuthorityData, ca) || !bytes.Contains(cluster.CertificateAuthorityData, hubCA) {
			t.Errorf("%s", body)
		}
		if !strings.Contains(body, "UserMissing") {
			t.Error("nobody is told that the user is missing")
		}
	})
	t.Run("S3: a mode that the hub's names do not have is refused with the one that they have", func(t *testing.T) {
		for path, want := range map[string]string{"edge-pass/kubeconfig?mode=sni": "mode=passthrough", "edge-sni/kubeconfig?mode=passthrough": "mode=sni"} {
			if got := the.ask(ctx, "/-/v1/clusters/"+path, the.alice); got.code != http.StatusBadRequest || !strings.Contains(got.body, want) {
				t.Errorf("%s: %d %s", path, got.code, got.body)
			}
		}
	})
}
