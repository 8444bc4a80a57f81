package client

import (
	"context"
	"iter"
	"net"
	"net/http"
	"time"
)

// Client is a program's access to a hub. It is safe for concurrent use; its owner calls
// Close.
type Client struct{}

// New checks cfg and returns a client. It does not connect: the first use does, or
// [Client.Connect].
func New(cfg Config) (*Client, error)

// Connect waits until there is a connection to the hub, on which the credential was
// accepted. Nobody needs it but who wants to know now.
func (c *Client) Connect(ctx context.Context) error

// Close ends the connection, and every session with it, and waits for the client's
// goroutines. Requests and dials that wait fail with [net.ErrClosed].
func (c *Client) Close() error

// DialContext opens a connection to a TCP address in a cluster. network is "tcp", "tcp4"
// or "tcp6"; address is host:port, resolved by the cluster's agent. It waits for the
// agent's answer, one round trip: what is wrong is the error, an [*Error].
//
// The connection is a complete [net.Conn] with CloseWrite and CloseRead.
func (c *Client) DialContext(ctx context.Context, cluster, network, address string) (net.Conn, error)

// DialEarly is DialContext without the wait: what is written first travels with the
// open, so that its answer is there after one round trip. It is for protocols whose client
// speaks first, as HTTP, gRPC, PostgreSQL and Redis do. Where the connection cannot be
// opened, the first Read or Write says so, with the same [*Error].
func (c *Client) DialEarly(ctx context.Context, cluster, network, address string) (net.Conn, error)

// Dialer returns DialContext for one cluster.
func (c *Client) Dialer(cluster string) func(ctx context.Context, network, address string) (net.Conn, error)

// EarlyDialer returns DialEarly for one cluster.
func (c *Client) EarlyDialer(cluster string) func(ctx context.Context, network, address string) (net.Conn, error)

// DialerFor returns DialEarly for one cluster and TCP, as grpc.WithContextDialer and some
// database drivers want it.
func (c *Client) DialerFor(cluster string) func(ctx context.Context, address string) (net.Conn, error)

// WithCluster returns a context whose requests by [Client.RoundTripper] go to the
// Kubernetes API of a cluster.
func WithCluster(ctx context.Context, cluster string) context.Context

// RoundTripper sends requests to the Kubernetes API of the cluster that the request's
// context names, see [WithCluster]: the path is the API's, scheme and host of the URL count
// for nothing. A request without a cluster is an error and is sent to nobody.
func (c *Client) RoundTripper() http.RoundTripper

// User is who the hub takes the client for.
type User struct {
	Name   string   `json:"name"`
	UID    string   `json:"uid,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// Method is what vouched for them, for example "oidc" or "static-token".
	Method string `json:"method"`
	// Hub is the hub's version.
	Hub string `json:"hubVersion"`
	// Expires is when the credential ends, as far as it says so.
	Expires time.Time `json:"expires,omitzero"`
}

// WhoAmI asks the hub who the client is.
func (c *Client) WhoAmI(ctx context.Context) (User, error)

// Cluster is one that the caller may reach.
type Cluster struct {
	Name      string            `json:"name"`
	Connected bool              `json:"connected"`
	Labels    map[string]string `json:"labels,omitempty"`
	Agents    []Agent           `json:"agents,omitempty"`
	// LastSeen is when an agent was connected last, where none is.
	LastSeen time.Time `json:"lastSeen,omitzero"`
}

// Agent is one of a cluster's agents.
type Agent struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
}

// Clusters returns the clusters that the caller may reach, by name.
func (c *Client) Clusters(ctx context.Context) ([]Cluster, error)

// EventType says what became of a cluster.
type EventType string

// The types of events.
const (
	Added    EventType = "ADDED"
	Modified EventType = "MODIFIED"
	Deleted  EventType = "DELETED"
	// Synced follows the events of all clusters that there are when a watch begins or,
	// after the connection was lost, begins again.
	Synced EventType = "SYNCED"
)

// ClusterEvent is a change of a cluster, with the cluster as it is now or, deleted, was
// last. Synced has none.
type ClusterEvent struct {
	Type    EventType `json:"type"`
	Cluster Cluster   `json:"cluster,omitzero"`
}

// WatchClusters yields what there is, each as Added, then Synced, and then every change
// until ctx ends. It outlives the connection: what changed meanwhile comes as events. The
// one error that it yields is the last.
func (c *Client) WatchClusters(ctx context.Context) iter.Seq2[ClusterEvent, error]

// Ping is how long the hops to a cluster's Kubernetes API take.
type Ping struct {
	Cluster string `json:"cluster"`
	// Hub is the round trip from here to the hub.
	Hub time.Duration `json:"hub"`
	// Agent is the round trip from the hub to the agent.
	Agent time.Duration `json:"agent"`
	// Target is what the agent's API server took to answer; 0 where it did not, and
	// TargetError says why.
	Target      time.Duration `json:"target,omitzero"`
	TargetError string        `json:"targetError,omitempty"`
	// The versions of the hops, and the name of the agent.
	ClientVersion string `json:"clientVersion"`
	HubVersion    string `json:"hubVersion"`
	AgentVersion  string `json:"agentVersion"`
	AgentName     string `json:"agentName"`
	TargetVersion string `json:"targetVersion,omitempty"`
}

// Ping measures the way to a cluster, by a message over each hop.
func (c *Client) Ping(ctx context.Context, cluster string) (Ping, error)
