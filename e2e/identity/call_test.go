package identity

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// call is one request of somebody.
type call struct {
	method, path, body string
	// token goes into Authorization; cert is shown in the handshake.
	token string
	cert  *tls.Certificate
	// header has further fields, name and value in turn.
	header []string
}

// reply is a whole answer.
type reply struct {
	status int
	header http.Header
	body   []byte
	// trace is the id of the trace that the caller began.
	trace string
}

// ask makes a request on a connection of its own, within a trace of the caller's.
func (h *hub) ask(ctx context.Context, c call) (reply, error) {
	if c.method == "" {
		c.method = http.MethodGet
	}
	config := &tls.Config{RootCAs: h.roots, MinVersion: tls.VersionTLS12}
	if c.cert != nil {
		config.Certificates = []tls.Certificate{*c.cert}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, c.method, "https://"+h.addr()+c.path, strings.NewReader(c.body))
	if err != nil {
		return reply{}, err
	}
	ids := make([]byte, 24)
	_, _ = rand.Read(ids) // never fails
	trace := hex.EncodeToString(ids[:16])
	req.Header.Set("Traceparent", "00-"+trace+"-"+hex.EncodeToString(ids[16:])+"-01") // https://www.w3.org/TR/trace-context/
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(c.header); i += 2 {
		req.Header[c.header[i]] = append(req.Header[c.header[i]], c.header[i+1])
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, header: resp.Header, body: body, trace: trace}, err
}

// status is a Kubernetes Status (metav1.Status).
type status struct {
	Kind, Status, Reason, Message string
	Code                          int
}

// statusIn reads a Status out of an answer and holds its code against the
// answer's.
func statusIn(r reply) (status, error) {
	var s status
	err := json.Unmarshal(r.body, &s)
	if err == nil && (s.Kind != "Status" || s.Status != "Failure" || s.Code != r.status || s.Message == "") {
		err = fmt.Errorf("incomplete Status in an answer %d: %s", r.status, r.body)
	}
	return s, err
}

// userInfo is who an API server says that its caller is.
type userInfo struct {
	Username, UID string
	Groups        []string
	Extra         map[string][]string
}

const (
	reviewPath = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
	selfReview = `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`
)

func userIn(status int, body []byte) (userInfo, bool) {
	var review struct{ Status struct{ UserInfo userInfo } }
	ok := status == http.StatusCreated && json.Unmarshal(body, &review) == nil
	return review.Status.UserInfo, ok
}

// whoami asks the API server of a cluster.
func whoami(t *testing.T, cluster string, c call) userInfo {
	t.Helper()
	c.method, c.path, c.body = http.MethodPost, "/"+cluster+reviewPath, selfReview
	got, err := the.hub.ask(t.Context(), c)
	must(t, err)
	user, ok := userIn(got.status, got.body)
	if !ok {
		t.Fatalf("whoami: %d %s", got.status, got.body)
	}
	return user
}
