package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/culvertdev/culvert/internal/answer"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 20

// Client calls the front end of a hub. It is safe for concurrent use; its maker
// closes it. Its errors are for people: what the hub said, or why it could not
// be asked and what to do.
type Client struct {
	base    string
	bearer  string
	http    *http.Client
	explain func(error) error
}

// NewSocketClient calls the hub that runs with a state folder on this machine.
func NewSocketClient(state string) *Client {
	socket := filepath.Join(state, Socket)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		address, done, err := socketAddress(socket)
		if err != nil {
			return nil, err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", address)
		return conn, errors.Join(err, done())
	}}
	return &Client{
		base: "http://hub", http: &http.Client{Transport: transport, Timeout: callTimeout},
		explain: func(err error) error { return explainSocket(state, socket, err) },
	}
}

// explainSocket says what keeps a hub from being asked, and the remedy.
func explainSocket(state, socket string, err error) error {
	const elsewhere = "or give --hub and --token-file to ask a hub elsewhere"
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &UnreachableError{fmt.Sprintf("no hub runs with the state folder %s: nothing listens at %s: start it with culvert-hub --state %s, %s",
			state, socket, state, elsewhere), err}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the hub's socket %s is for the user that the hub runs as: call as that user or as root, %s", socket, elsewhere)
	}
	return fmt.Errorf("ask the hub at %s: %w", socket, err)
}

// UnreachableError says that no hub runs where one was asked, and what to do.
type UnreachableError struct {
	text string
	err  error
}

// Error says what is wrong.
func (e *UnreachableError) Error() string { return e.text }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.err }

// CallError says why a hub elsewhere could not be asked.
type CallError struct {
	Hub string
	Err error
}

// Error says what is wrong.
func (e *CallError) Error() string { return fmt.Sprintf("ask the hub at %s: %v", e.Hub, e.Err) }

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// NewHTTPSClient calls a hub at its URL, such as https://hub.example.com:8443,
// with a bearer token. transport verifies the hub; the client takes it over.
func NewHTTPSClient(hub, bearer string, transport *http.Transport) (*Client, error) {
	u, err := url.Parse(hub)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("--hub: want https://host:port and nothing more")
	}
	base := "https://" + u.Host
	return &Client{
		base: base, bearer: bearer,
		http: &http.Client{
			Transport: transport, Timeout: callTimeout,
			// A token must not follow wherever an answer points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		explain: func(err error) error { return &CallError{base, err} },
	}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CreateToken makes a join token.
func (c *Client) CreateToken(ctx context.Context, want TokenRequest) (NewToken, error) {
	return call[NewToken](ctx, c, http.MethodPost, "tokens", want)
}

// ListTokens returns every token.
func (c *Client) ListTokens(ctx context.Context) ([]Token, error) {
	list, err := call[List[Token]](ctx, c, http.MethodGet, "tokens", nil)
	return list.Items, err
}

// RevokeToken takes a token back.
func (c *Client) RevokeToken(ctx context.Context, id string) (Token, error) {
	return call[Token](ctx, c, http.MethodDelete, "tokens/"+url.PathEscape(id), nil)
}

// ListClusters returns every cluster.
func (c *Client) ListClusters(ctx context.Context) ([]Cluster, error) {
	list, err := call[List[Cluster]](ctx, c, http.MethodGet, "clusters", nil)
	return list.Items, err
}

// GetCluster returns one cluster.
func (c *Client) GetCluster(ctx context.Context, name string) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodGet, "clusters/"+url.PathEscape(name), nil)
}

// AcceptCluster lets a cluster that waits join.
func (c *Client) AcceptCluster(ctx context.Context, name string, how Acceptance) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodPost, "clusters/"+url.PathEscape(name)+"/accept", how)
}

// SetDirect records how a cluster is reached without the hub.
func (c *Client) SetDirect(ctx context.Context, name string, direct Direct) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodPost, "clusters/"+url.PathEscape(name)+"/direct", direct)
}

// RevokeCluster locks a cluster out.
func (c *Client) RevokeCluster(ctx context.Context, name string, why RevokeRequest) (Revoked, error) {
	return call[Revoked](ctx, c, http.MethodPost, "clusters/"+url.PathEscape(name)+"/revoke", why)
}

// RestoreCluster lets a revoked cluster come back whose certificates the hub does not
// issue itself.
func (c *Client) RestoreCluster(ctx context.Context, name string) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodPost, "clusters/"+url.PathEscape(name)+"/restore", struct{}{})
}

// ListAuthorities returns the certificate authorities.
func (c *Client) ListAuthorities(ctx context.Context) ([]Authority, error) {
	list, err := call[List[Authority]](ctx, c, http.MethodGet, "authorities", nil)
	return list.Items, err
}

// RotateAuthority makes a new authority for a role.
func (c *Client) RotateAuthority(ctx context.Context, role string) (Authority, error) {
	return call[Authority](ctx, c, http.MethodPost, "authorities/"+url.PathEscape(role)+"/rotate", struct{}{})
}

func call[T any](ctx context.Context, c *Client, method, path string, send any) (T, error) {
	var result T
	var body io.Reader
	if send != nil {
		data, err := json.Marshal(send)
		if err != nil {
			return result, fmt.Errorf("ask the hub: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+Prefix+path, body)
	if err != nil {
		return result, fmt.Errorf("ask the hub: %w", err)
	}
	if send != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	started := time.Now()
	res, err := c.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return result, c.explain(err)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return result, c.explain(fmt.Errorf("the answer broke off after %v: %w", time.Since(started).Round(time.Millisecond), err))
	}
	if res.StatusCode != http.StatusOK {
		return result, answer.Read(res, data)
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return result, c.explain(fmt.Errorf("an answer that is not of a hub: %w", err))
	}
	return result, nil
}
