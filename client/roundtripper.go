package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// idleSessions bounds the sessions to the hub's own HTTP that wait for a request,
	// and idleTime how long one does.
	idleSessions = 256
	idleTime     = 90 * time.Second
)

type clusterKey struct{}

// WithCluster returns a context whose requests by [Client.RoundTripper] go to the
// Kubernetes API of a cluster.
func WithCluster(ctx context.Context, cluster string) context.Context {
	return context.WithValue(ctx, clusterKey{}, cluster)
}

// ClusterOf returns the cluster of [WithCluster].
func ClusterOf(ctx context.Context) (cluster string, ok bool) {
	cluster, ok = ctx.Value(clusterKey{}).(string)
	return cluster, ok
}

// RoundTripper sends requests to the Kubernetes API of the cluster that the request's
// context names, see [WithCluster]: the path is the API's, scheme and host of the URL count
// for nothing. A request without a cluster is an error and is sent to nobody.
//
// What the API server answers is returned as it is, and what the hub itself answers, too: a
// Kubernetes Status with a header X-Culvert-Error. An Authorization that a request has
// takes the place of the client's credential.
func (c *Client) RoundTripper() http.RoundTripper { return clusters{c} }

type clusters struct{ client *Client }

// RoundTrip implements [http.RoundTripper].
func (t clusters) RoundTrip(r *http.Request) (*http.Response, error) {
	refuse := func(cluster string, err error) (*http.Response, error) {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, &Error{Op: "request", Code: InvalidTarget, Hop: HopClient, Cluster: cluster, Err: err}
	}
	cluster, ok := ClusterOf(r.Context())
	if !ok || cluster == "" {
		return refuse("", errors.New("the request's context names no cluster: make it with client.WithCluster"))
	}
	if err := route.CheckCluster(cluster); err != nil {
		return refuse(cluster, err)
	}
	return t.client.roundTrip(r, "/"+cluster+pathOf(r.URL), cluster)
}

// pathOf is the escaped path, which begins with a slash.
func pathOf(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	return path
}

// CloseIdleConnections ends the sessions that wait for a request; see [http.Client].
func (t clusters) CloseIdleConnections() { t.client.web.CloseIdleConnections() }

// roundTrip sends r to an escaped path of the hub.
func (c *Client) roundTrip(r *http.Request, path, cluster string) (*http.Response, error) {
	out := r.Clone(r.Context())
	plain, err := url.PathUnescape(path)
	if err != nil {
		plain = path
	}
	out.URL = &url.URL{Scheme: "http", Host: c.set.address, Path: plain, RawPath: path, RawQuery: r.URL.RawQuery}
	out.Host = c.set.host()
	if out.Header == nil {
		out.Header = make(http.Header, 2)
	}
	var token string // that is the client's
	if out.Header.Get("Authorization") == "" {
		if token, err = c.token(r.Context()); err != nil {
			if r.Body != nil {
				err = errors.Join(err, r.Body.Close())
			}
			return nil, c.about(Addr{Cluster: cluster}, err)
		}
		if token != "" {
			out.Header.Set("Authorization", "Bearer "+token)
		}
	}
	if _, set := out.Header["User-Agent"]; !set {
		out.Header.Set("User-Agent", c.set.rest.UserAgent)
	}
	res, err := c.web.RoundTrip(out)
	if err != nil {
		return nil, c.about(Addr{Cluster: cluster}, err)
	}
	if res.StatusCode == http.StatusUnauthorized && token != "" && res.Header.Get("X-Culvert-Error") != "" {
		c.set.tokens.refused(token) // the next one asks for another
	}
	return res, nil
}

// host is the name by which the hub's own HTTP is asked.
func (s *settings) host() string {
	u, err := url.Parse(s.base)
	if err != nil {
		return s.address
	}
	return u.Host
}

// newWeb makes the transport to the hub's own HTTP.
func (c *Client) newWeb() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dialHub(ctx) },
		// Compression is between the program and the API server.
		DisableCompression:  true,
		MaxIdleConns:        idleSessions,
		MaxIdleConnsPerHost: idleSessions,
		IdleConnTimeout:     idleTime,
	}
}

// dialHub opens a session to the hub's own HTTP. It does not wait for the answer, which
// comes with that of the request.
func (c *Client) dialHub(ctx context.Context) (net.Conn, error) {
	to := Addr{Address: c.set.address}
	for attempt := 0; ; attempt++ {
		link, err := c.way.link(ctx)
		if err != nil {
			return nil, err
		}
		req := mux.Request{Target: wire.Hub()}
		s, err := link.Start(ctx, req)
		if err == nil {
			return &conn{Session: s, to: to}, nil
		}
		again, failure := c.opened(link, to, req, err)
		if !again || attempt == maxAttempts {
			return nil, failure
		}
	}
}

// discard reads what is left of an answer, so that its session can be used again, and
// closes it.
func discard(body io.ReadCloser) error {
	_, err := io.CopyN(io.Discard, body, 64<<10)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, body.Close())
}
