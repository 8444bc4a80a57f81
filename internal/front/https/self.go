package https

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/version"
	"github.com/culvertdev/culvert/internal/wire"
)

// The paths by which a caller asks about itself and what it may reach. Package client
// has the other end.
const (
	selfPath     = "v1/self"
	selfClusters = "v1/self/clusters"
	pingPrefix   = "v1/self/clusters/"
	pingSuffix   = "/ping"
)

// Self is what the paths under /-/v1/self need. All of it is required.
type Self struct {
	// Clusters returns all clusters that are known, by name.
	Clusters func() ([]SelfCluster, error)
	// Changed returns what is closed when an agent comes or goes after the call.
	Changed func() <-chan struct{}
	// Ping measures the round trip to an agent of a cluster.
	Ping func(ctx context.Context, cluster string) (SelfAgent, time.Duration, error)
}

// SelfCluster is a cluster as its callers see it.
type SelfCluster struct {
	Name      string            `json:"name"`
	Connected bool              `json:"connected"`
	Labels    map[string]string `json:"labels,omitempty"`
	Agents    []SelfAgent       `json:"agents,omitempty"`
	LastSeen  time.Time         `json:"lastSeen,omitzero"`
}

// SelfAgent is an agent as callers of its cluster see it.
type SelfAgent struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Since   time.Time `json:"since,omitzero"`
}

// selfEvent is a line of a watch.
type selfEvent struct {
	Type    string       `json:"type"`
	Cluster *SelfCluster `json:"cluster,omitempty"`
}

// selfLook is how often a watch looks for what no agent tells: clusters that joined,
// policies and credentials that changed.
const selfLook = 30 * time.Second

// isSelf tells whether a path of the hub's own is about the caller.
func (h *Handler) isSelf(own string) bool {
	return h.cfg.Self != nil && (own == selfPath || own == selfClusters || pinged(own) != "")
}

// pinged is the cluster of a path for a ping, or "".
func pinged(own string) string {
	name, ok := strings.CutPrefix(own, pingPrefix)
	if !ok {
		return ""
	}
	name, ok = strings.CutSuffix(name, pingSuffix)
	if !ok {
		return ""
	}
	return name
}

// serveSelf answers what a caller asks about itself.
func (h *Handler) serveSelf(v *visit) error {
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		return &fault.Error{Hop: wire.HopHub, Op: "read request", Code: wire.CodeInvalidTarget, Err: errors.New("method: want GET or HEAD")}
	}
	if cluster := pinged(v.to.Own); cluster != "" {
		return h.servePing(v, cluster)
	}
	v.takeCredential()
	credential := v.r.Header.Clone()
	if err := h.authenticateSelf(v); err != nil {
		return err
	}
	switch {
	case v.to.Own == selfPath:
		return h.serveWho(v)
	case v.r.URL.Query().Get("watch") == "true":
		return h.watchClusters(v, credential)
	}
	clusters, err := h.reached(v)
	if err != nil {
		return err
	}
	return h.json(v, struct {
		Items []SelfCluster `json:"items"`
	}{clusters})
}

// authenticateSelf takes a request to who sent it. A caller asks as itself: who may act
// as somebody else is decided for each cluster.
func (h *Handler) authenticateSelf(v *visit) error {
	if err := h.admit(v); err != nil {
		return err
	}
	if err := h.identify(v, ""); err != nil {
		return err
	}
	switch as, err := identity.ParseAssumed(v.r.Header); {
	case err != nil:
		return err
	case as != nil:
		return &fault.Error{Hop: wire.HopHub, Op: "ask about oneself", Code: wire.CodePermissionDenied,
			Err: errors.New("this path is about the caller: leave the Impersonate headers out")}
	}
	return h.limit(v)
}

func (h *Handler) serveWho(v *visit) error {
	u := v.caller.User
	return h.json(v, struct {
		Name    string   `json:"name"`
		UID     string   `json:"uid,omitempty"`
		Groups  []string `json:"groups,omitempty"`
		Method  string   `json:"method"`
		Version string   `json:"hubVersion"`
	}{u.GetName(), u.GetUID(), u.GetGroups(), string(v.caller.Method), version.String()})
}

func (h *Handler) json(v *visit, value any) error {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(value); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "answer", Code: wire.CodeInternal, Err: err}
	}
	return h.text(v.x, "application/json", body.Bytes())
}

// reached are the clusters of which the policy lets the caller reach something.
func (h *Handler) reached(v *visit) ([]SelfCluster, error) {
	all, err := h.cfg.Self.Clusters()
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "list clusters", Code: wire.CodeUnavailable, Err: err}
	}
	reached := make([]SelfCluster, 0, len(all))
	for _, c := range all {
		may, err := h.mayReach(v, c.Name)
		if err != nil {
			return nil, err
		}
		if may {
			reached = append(reached, c)
		}
	}
	return reached, nil
}

// mayReach tells whether the policy lets the caller reach anything of a cluster.
func (h *Handler) mayReach(v *visit, cluster string) (bool, error) {
	labels, err := h.labels(cluster)
	if err != nil {
		return false, err
	}
	decision, err := h.decide(v.r.Context(), policy.Request{
		User: v.caller.User, Cluster: policy.Cluster{Name: cluster, Labels: labels}, Anything: true,
	})
	return decision.Allowed, err
}

// watchClusters tells of every change, a line of JSON each, until the client goes or its
// credential does.
func (h *Handler) watchClusters(v *visit, credential http.Header) error {
	v.x.Header().Set("Content-Type", "application/json")
	v.x.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(v.x)
	lines := json.NewEncoder(v.x)
	known := map[string]SelfCluster{}
	look := time.NewTicker(selfLook)
	defer look.Stop()
	for first := true; ; first = false {
		changed := h.cfg.Self.Changed()
		clusters, err := h.reached(v)
		if err != nil {
			return err
		}
		events := difference(known, clusters)
		if first {
			events = append(events, selfEvent{Type: "SYNCED"})
		}
		for _, e := range events {
			if err := lines.Encode(e); err != nil {
				return gone(err)
			}
		}
		if len(events) > 0 {
			if err := flush.Flush(); err != nil {
				return gone(err)
			}
		}
		select {
		case <-changed:
		case <-look.C:
		case <-v.r.Context().Done():
			return gone(context.Cause(v.r.Context()))
		}
		again := v.r.Clone(v.r.Context())
		again.Header = credential.Clone()
		if v.caller, err = h.cfg.Identify(again, ""); err != nil {
			return err
		}
	}
}

// gone is for a client that has ended its watch.
func gone(err error) error {
	return &fault.Error{Hop: wire.HopClient, Op: "write answer", Code: wire.CodeCanceled, Err: err}
}

// difference returns what has become of known, and brings it up to date.
func difference(known map[string]SelfCluster, now []SelfCluster) []selfEvent {
	var events []selfEvent
	there := make(map[string]bool, len(now))
	for _, c := range now {
		there[c.Name] = true
		before, was := known[c.Name]
		switch {
		case !was:
			events = append(events, selfEvent{"ADDED", &c})
		case !reflect.DeepEqual(before, c):
			events = append(events, selfEvent{"MODIFIED", &c})
		}
		known[c.Name] = c
	}
	for name, c := range known {
		if !there[name] {
			events = append(events, selfEvent{"DELETED", &c})
			delete(known, name)
		}
	}
	return events
}

// servePing measures the hops to a cluster's Kubernetes API, for who may ask it for its
// version.
func (h *Handler) servePing(v *visit, cluster string) error {
	if err := route.CheckCluster(cluster); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	v.to.Cluster, v.to.Target = cluster, wire.KubernetesAPI()
	v.seen.Route(v.to.Cluster, v.to.Target)
	for _, step := range [...]func(*Handler, *visit) error{(*Handler).admit, (*Handler).authenticate, (*Handler).limit} {
		if err := step(h, v); err != nil {
			return err
		}
	}
	path, err := h.probe(v)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), pingTime)
	defer cancel()
	agent, rtt, err := h.cfg.Self.Ping(ctx, cluster)
	if err != nil {
		return err
	}
	out := struct {
		Hub           string        `json:"hubVersion"`
		Agent         string        `json:"agentName"`
		Version       string        `json:"agentVersion"`
		RTT           time.Duration `json:"agent"`
		Target        time.Duration `json:"target,omitzero"`
		TargetError   string        `json:"targetError,omitempty"`
		TargetVersion string        `json:"targetVersion,omitempty"`
	}{Hub: version.String(), Agent: agent.Name, Version: agent.Version, RTT: rtt}
	began := time.Now()
	out.TargetVersion, err = h.askVersion(ctx, v, path)
	if err != nil {
		out.TargetError = err.Error()
	} else {
		out.Target = max(time.Since(began)-rtt, 1)
	}
	return h.json(v, out)
}

// pingTime bounds a ping.
const pingTime = 10 * time.Second

// maxVersion bounds the answer of an API server about itself, in bytes.
const maxVersion = 64 << 10

// askVersion asks the Kubernetes API for path, and what it says of its version.
func (h *Handler) askVersion(ctx context.Context, v *visit, path string) (string, error) {
	res, err := h.getAs(ctx, v, path)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxVersion))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", errors.New("the API server answers " + res.Status)
	}
	var says struct {
		Version string `json:"gitVersion"`
	}
	if err := json.Unmarshal(body, &says); err != nil {
		says.Version = "" // a path that says nothing of it will do for a measurement
	}
	return says.Version, nil
}
