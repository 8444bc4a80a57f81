package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"reflect"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/version"
)

// Cluster is one of which the caller may reach something.
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
func (c *Client) Clusters(ctx context.Context) ([]Cluster, error) {
	var list struct {
		Items []Cluster `json:"items"`
	}
	err := c.ask(ctx, "/-/v1/self/clusters", "", &list)
	return list.Items, err
}

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
func (c *Client) WatchClusters(ctx context.Context) iter.Seq2[ClusterEvent, error] {
	return func(yield func(ClusterEvent, error) bool) {
		known := map[string]Cluster{}
		pause := tunnel.NewBackoff(failInterval)
		for {
			began := time.Now()
			enough, err := c.watchOnce(ctx, known, yield)
			switch {
			case enough:
				return
			case ctx.Err() != nil:
				yield(ClusterEvent{}, context.Cause(ctx))
				return
			case final(err):
				yield(ClusterEvent{}, err)
				return
			}
			if time.Since(began) > settledAfter {
				pause.Reset()
			}
			select {
			case <-time.After(pause.NextBackOff()):
			case <-ctx.Done():
			}
		}
	}
}

// final tells that a watch does not go on after an error: what is wrong stays so, the client
// is closed, or the hub is one that has no clusters to watch.
func final(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.fatal() || e.Code == NotFound) || errors.Is(err, net.ErrClosed)
}

// watchOnce watches until the connection is lost, or the caller has enough.
func (c *Client) watchOnce(ctx context.Context, known map[string]Cluster, yield func(ClusterEvent, error) bool) (enough bool, err error) {
	res, err := c.get(ctx, "/-/v1/self/clusters", "watch=true", "")
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = res.Body.Close() }) // which ends the Decode below
	defer stop()
	there := map[string]bool{}
	synced := false
	for lines := json.NewDecoder(res.Body); ; {
		var e ClusterEvent
		if err := lines.Decode(&e); err != nil {
			return false, errors.Join(fmt.Errorf("watch of clusters: %w", err), ignoreClosed(res.Body.Close()))
		}
		events := []ClusterEvent{e}
		if !synced { // of what is there, the caller knows some after a first time
			events = first(e, known, there)
			synced = e.Type == Synced
		}
		for _, e := range events {
			if e.Type == Deleted {
				delete(known, e.Cluster.Name)
			} else if e.Type != Synced {
				known[e.Cluster.Name] = e.Cluster
			}
			if !yield(e, nil) {
				return true, ignoreClosed(res.Body.Close())
			}
		}
	}
}

// first turns an event of what is there into what a caller does not know yet.
func first(e ClusterEvent, known map[string]Cluster, there map[string]bool) []ClusterEvent {
	if e.Type != Synced {
		there[e.Cluster.Name] = true
		before, was := known[e.Cluster.Name]
		switch {
		case was && reflect.DeepEqual(before, e.Cluster):
			return nil
		case was:
			e.Type = Modified
		}
		return []ClusterEvent{e}
	}
	var events []ClusterEvent
	for name, c := range known {
		if !there[name] {
			events = append(events, ClusterEvent{Type: Deleted, Cluster: c})
		}
	}
	return append(events, e)
}

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
func (c *Client) WhoAmI(ctx context.Context) (User, error) {
	var u User
	if err := c.ask(ctx, "/-/v1/self", "", &u); err != nil {
		return User{}, err
	}
	switch {
	case c.set.pair != nil:
		u.Expires = c.set.pair.Leaf().NotAfter.UTC()
	case c.set.tokens != nil:
		token, err := c.set.tokens.get(ctx)
		if err != nil {
			return User{}, tokenError(err)
		}
		u.Expires = token.Expires
	}
	return u, nil
}

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
func (c *Client) Ping(ctx context.Context, cluster string) (Ping, error) {
	if _, _, err := request(cluster, "tcp", "kubernetes:443"); err != nil {
		return Ping{}, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	link, err := c.way.link(ctx)
	if err != nil {
		return Ping{}, c.about(Addr{Cluster: cluster}, err)
	}
	p := Ping{Cluster: cluster, ClientVersion: version.String()}
	if p.Hub, err = link.Ping(ctx); err != nil {
		if e, ok := errors.AsType[*mux.Error](err); ok {
			return Ping{}, fromMux("ping", cluster, "", e)
		}
		return Ping{}, asError("ping", cluster, err)
	}
	return p, c.ask(ctx, "/-/v1/self/clusters/"+cluster+"/ping", cluster, &p)
}

// maxAnswer bounds what the hub says of itself, in bytes.
const maxAnswer = 64 << 20

// ask gets a path of the hub's own.
func (c *Client) ask(ctx context.Context, path, cluster string, into any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	res, err := c.get(ctx, path, "", cluster) //nolint:bodyclose // discard does
	if err != nil {
		return err
	}
	err = json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into)
	if err := errors.Join(err, discard(res.Body)); err != nil {
		return &Error{Op: "ask the hub", Code: Internal, Hop: HopHub, Cluster: cluster, Err: fmt.Errorf("an answer that is not of a hub: %w", err)}
	}
	return nil
}

// get makes a request to a path of the hub's own. A token that the hub refuses is
// replaced once.
func (c *Client) get(ctx context.Context, path, query, cluster string) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hub/?"+query, http.NoBody)
		if err != nil {
			return nil, &Error{Op: "ask the hub", Code: Internal, Hop: HopClient, Cluster: cluster, Err: err}
		}
		r.Header.Set("Accept", "application/json")
		res, err := c.roundTrip(r, path, cluster)
		if err != nil {
			return nil, asError("ask the hub", cluster, err)
		}
		if res.StatusCode == http.StatusOK {
			return res, nil
		}
		if res.StatusCode == http.StatusUnauthorized && c.set.tokens != nil && attempt == 0 {
			if err := discard(res.Body); err != nil {
				return nil, asError("ask the hub", cluster, err)
			}
			continue
		}
		return nil, fromAnswer("ask the hub", cluster, res)
	}
}
