package resilience

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// versionPath is answered by the managed cluster's API server to everybody.
	versionPath = "/" + clusterName + "/version"
	// configMaps are watched in the tests.
	configMaps = "/" + clusterName + "/api/v1/namespaces/default/configmaps"
)

func servicePath(port uint16) string {
	return fmt.Sprintf("/%s/api/v1/namespaces/default/services/http:target:%d/proxy-service", clusterName, port)
}

// caller is a user's HTTP client of a hub. It is safe for concurrent use.
type caller struct {
	url    string
	client *http.Client
	// connections counts those that were made.
	connections atomic.Int32
}

// caller returns a client that speaks HTTP/1.1 or HTTP/2. The test's end closes
// its connections.
func (h *hub) caller(t *testing.T, http2 bool) *caller {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(h.ca) {
		t.Fatal("the hub's CA file holds no certificate")
	}
	c := &caller{url: h.url()}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		Protocols:       protocols,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c.connections.Add(1)
			return (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	c.client = &http.Client{Transport: transport}
	return c
}

// open starts a request; the caller closes the answer's body.
func (c *caller) open(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+userToken)
	return c.client.Do(req)
}

// get makes one GET request and reads the whole answer.
func (c *caller) get(ctx context.Context, path string) (answer, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

func (c *caller) do(ctx context.Context, method, path string, body io.Reader) (answer, error) {
	started := time.Now()
	resp, err := c.open(ctx, method, path, body)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text, time.Since(started)}, errors.Join(err, resp.Body.Close())
}

// answer is a complete answer of a hub, or of what is behind it.
type answer struct {
	status int
	header http.Header
	body   []byte
	took   time.Duration
}

func (a answer) wantOK() error {
	if a.status != http.StatusOK {
		return fmt.Errorf("answer %d %s: %s", a.status, a.header.Get("X-Culvert-Error"), a.body)
	}
	return nil
}

// away is what callers get at most, in time, for a cluster that is known and
// not connected: the hub waits one second for its agent to come back.
const away = 3 * time.Second

// wantAway checks the answer for a cluster that cannot be reached now: a 503
// which is a Status as kubectl reads it, says when to try again, and names a hop
// and the cluster.
func (a answer) wantAway(hops ...string) error {
	var status struct {
		Kind, APIVersion, Status, Message, Reason string
		Code                                      int
		Details                                   struct {
			RetryAfterSeconds int
			Causes            []struct{ Reason, Message string }
		}
	}
	if a.status != http.StatusServiceUnavailable {
		return fmt.Errorf("want 503, got %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &status); err != nil {
		return fmt.Errorf("want a Status, got %s: %w", a.body, err)
	}
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if status.Kind != "Status" || status.APIVersion != "v1" || status.Status != "Failure" || status.Code != 503 || status.Reason != "ServiceUnavailable" {
		wrong("it is no Status of a 503")
	}
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || seconds < 1 || seconds > 10 || status.Details.RetryAfterSeconds != seconds {
		wrong("Retry-After %q, in the Status %d", a.header.Get("Retry-After"), status.Details.RetryAfterSeconds)
	}
	if a.header.Get("X-Culvert-Error") == "" {
		wrong("no X-Culvert-Error")
	}
	if !strings.Contains(status.Message, "cluster "+clusterName) {
		wrong("the message does not name the cluster")
	}
	named := false
	for _, cause := range status.Details.Causes {
		for _, hop := range hops {
			named = named || cause.Reason == "Hop" && cause.Message == hop && strings.HasPrefix(status.Message, hop+":")
		}
	}
	if !named {
		wrong("none of the hops %v is named", hops)
	}
	if len(problems) > 0 {
		return fmt.Errorf("answer %s: %w", a.body, errors.Join(problems...))
	}
	return nil
}
