package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

var (
	hubHost    = testbed.HubAddress.String() + ":" + clientPort
	hubURL     = "https://" + hubHost
	managedURL = hubURL + "/managed"
)

// versions are the HTTP versions that a client can insist on.
var versions = map[string]int{"HTTP/1.1": 1, "HTTP/2": 2}

// reply is a whole answer.
type reply struct {
	status  int
	proto   string
	header  http.Header
	body    []byte
	trailer http.Header
}

// client returns a client of the hub that speaks exactly one version of HTTP and
// asks for no compression. The end of t closes its connections.
func (w *world) client(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), version int) *http.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == 1)
	protocols.SetHTTP2(version == 2)
	transport := &http.Transport{
		DialContext: dial, TLSClientConfig: w.tls(t), Protocols: protocols, DisableCompression: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// caller is client from the hub's own network.
func (w *world) caller(t *testing.T, version int) *http.Client {
	t.Helper()
	return w.client(t, new(net.Dialer).DialContext, version)
}

// tls trusts the hub's CA alone.
func (w *world) tls(t *testing.T) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(w.ca) {
		t.Fatal("the hub's CA is not PEM")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// send makes a request and reads the whole answer. Header fields are given as
// name and value in turn.
func send(ctx context.Context, client *http.Client, method, url string, body io.Reader, header ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}, fmt.Errorf("%s %s: read answer: %w", method, url, err)
	}
	return reply{res.StatusCode, res.Proto, res.Header, text, res.Trailer}, nil
}

// get is a GET with a bearer token and the status that must come.
func get(t *testing.T, client *http.Client, url, token string, want int) reply {
	t.Helper()
	res, err := send(t.Context(), client, "GET", url, nil, "Authorization", "Bearer "+token)
	must(t, err)
	if res.status != want {
		t.Fatalf("GET %s: %d %v %.2000s, want %d", url, res.status, res.header, res.body, want)
	}
	return res
}

// direct asks the managed cluster's API server from inside of its network, at the
// address that the agent uses, with the administrator's token.
func (w *world) direct(t *testing.T, method, path string, body []byte, header ...string) reply {
	t.Helper()
	client, err := w.managed.HTTPClient()
	must(t, err)
	defer client.CloseIdleConnections()
	client.Transport.(*http.Transport).DisableCompression = true
	header = append([]string{"Authorization", "Bearer " + w.managed.AdminContext().Token}, header...)
	res, err := send(t.Context(), client, method, "https://"+net.JoinHostPort(apiAddress.String(), w.apiPort)+path, bytes.NewReader(body), header...)
	must(t, err)
	return res
}

// change patches a ConfigMap of the managed cluster, directly.
func (w *world) change(t *testing.T, namespace, name, value string) {
	t.Helper()
	res := w.direct(t, "PATCH", "/api/v1/namespaces/"+namespace+"/configmaps/"+name,
		fmt.Appendf(nil, `{"data":{"key":%q}}`, value), "Content-Type", "application/merge-patch+json")
	if res.status != http.StatusOK {
		t.Fatalf("patch ConfigMap %s: %d %s", name, res.status, res.body)
	}
}

// status is a Kubernetes Status (metav1.Status).
type status struct {
	Kind, Status, Reason, Message string
	Code                          int
}

// statusOf reads a Status out of an answer and holds its code against the
// answer's.
func statusOf(t *testing.T, res reply) status {
	t.Helper()
	var s status
	if err := json.Unmarshal(res.body, &s); err != nil {
		t.Fatalf("not a Status: %v: %d %s", err, res.status, res.body)
	}
	if s.Kind != "Status" || s.Status != "Failure" || s.Code != res.status || s.Reason == "" || s.Message == "" {
		t.Errorf("incomplete Status in an answer %d: %s", res.status, res.body)
	}
	return s
}

// curl runs curl with the hub's CA in a network; nil is the hub's own. The reply
// has no header. An error carries curl's exit code.
func (w *world) curl(ctx context.Context, from *testbed.Namespace, args ...string) (reply, error) {
	return curl(ctx, from, append([]string{"--cacert", w.caFile}, args...)...)
}

func curl(ctx context.Context, from *testbed.Namespace, args ...string) (reply, error) {
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--noproxy", "*", "-w", "\n%{http_code} %{http_version}"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := from.Run(cmd); err != nil {
		return reply{}, fmt.Errorf("curl: %w: %s", err, bytes.TrimSpace(problem.Bytes()))
	}
	body, end, ok := cutLast(out.String(), "\n")
	code, proto, spaced := strings.Cut(end, " ")
	number, err := strconv.Atoi(code)
	if !ok || !spaced || err != nil {
		return reply{}, errors.Join(err, fmt.Errorf("curl: unexpected output %q", out.String()))
	}
	return reply{status: number, proto: "HTTP/" + proto, body: []byte(body)}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
