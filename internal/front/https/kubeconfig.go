package https

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/policy"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/wire"
)

// KubeconfigRequest is the wish for a cluster's kubeconfig, of a caller whom the
// policy lets reach that cluster's Kubernetes API. It is good until the function
// that gets it returns.
type KubeconfigRequest struct {
	// Cluster is a cluster's name; whether there is one is not known.
	Cluster string
	// Caller is who asks, Source their address.
	Caller identity.Caller
	Source string
	// Host is the hub's name and port as the caller has them.
	Host string
	// Query are the parameters, as they came.
	Query url.Values
	// Path is one of the Kubernetes API that the caller may ask for.
	Path string
	// Get asks the cluster's Kubernetes API for a path as the caller, the whole way
	// through the tunnel. The policy is asked about the path. The error is a
	// [*fault.Error]; whoever gets an answer closes its body.
	Get func(ctx context.Context, path string) (*http.Response, error)
}

// Kubeconfig is a file for a caller.
type Kubeconfig struct {
	Text []byte
	// Generation is the name of its content.
	Generation string
}

const (
	// kubeconfigList is the path of the clusters that a caller may have a kubeconfig
	// of.
	kubeconfigList   = "v1/kubeconfig"
	kubeconfigPrefix = "v1/clusters/"
	kubeconfigSuffix = "/kubeconfig"
)

// HeaderGeneration is on the answer with a kubeconfig.
const HeaderGeneration = "Culvert-Generation"

// probes are what everybody may ask a Kubernetes API for who may ask it for anything,
// as its standard roles have it. The first that the policy allows will do.
var probes = [...]string{"/version", "/api", "/livez"}

// isKubeconfig tells whether a path of the hub's own is about kubeconfigs, which are
// for every caller and not for administrators alone.
func (h *Handler) isKubeconfig(own string) bool {
	return h.cfg.Kubeconfig != nil && (own == kubeconfigList ||
		strings.HasPrefix(own, kubeconfigPrefix) && strings.HasSuffix(own, kubeconfigSuffix) && len(own) > len(kubeconfigPrefix)+len(kubeconfigSuffix))
}

// serveKubeconfig takes a request through the steps of one to the cluster itself, so
// that who would be refused there is refused here, with the same answer.
func (h *Handler) serveKubeconfig(v *visit) error {
	if v.r.Method != http.MethodGet && v.r.Method != http.MethodHead {
		return &fault.Error{Hop: wire.HopHub, Op: "read request", Code: wire.CodeInvalidTarget, Err: errors.New("method: want GET or HEAD")}
	}
	if v.to.Own == kubeconfigList {
		return h.listKubeconfigs(v)
	}
	cluster := strings.TrimSuffix(strings.TrimPrefix(v.to.Own, kubeconfigPrefix), kubeconfigSuffix)
	if err := route.CheckCluster(cluster); err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "read path", Code: wire.CodeInvalidTarget, Err: err}
	}
	query, err := url.ParseQuery(v.r.URL.RawQuery)
	if err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "read query", Code: wire.CodeInvalidTarget, Err: errors.New("an escape is incomplete")}
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
	made, err := h.cfg.Kubeconfig(v.r.Context(), KubeconfigRequest{
		Cluster: cluster, Caller: v.caller, Source: v.r.RemoteAddr, Host: v.r.Host, Query: query, Path: path,
		Get: func(ctx context.Context, path string) (*http.Response, error) { return h.getAs(ctx, v, path) },
	})
	if err != nil {
		return err
	}
	return h.sendKubeconfig(v, made)
}

func (h *Handler) sendKubeconfig(v *visit, made Kubeconfig) error {
	tag := `"` + made.Generation + `"`
	v.x.Header().Set("Etag", tag)
	v.x.Header().Set(HeaderGeneration, made.Generation)
	v.x.Header().Set(answer.HeaderRequestID, answer.RequestID(v.r.Context()))
	if v.r.Header.Get("If-None-Match") == tag {
		v.x.WriteHeader(http.StatusNotModified)
		return nil
	}
	return h.text(v.x, "application/yaml", made.Text)
}

// probe returns a path of the Kubernetes API that the caller may ask for. The refusal
// is that of the first.
func (h *Handler) probe(v *visit) (string, error) {
	var refused error
	for _, path := range probes {
		err := h.mayGet(v.r.Context(), v, path)
		if err == nil {
			return path, nil
		}
		if f := fault.As(err); f == nil || f.Code != wire.CodePermissionDenied {
			return "", err
		}
		if refused == nil {
			refused = err
		}
	}
	return "", refused
}

// mayGet asks the policy whether the caller may ask the cluster for a path.
func (h *Handler) mayGet(ctx context.Context, v *visit, path string) error {
	labels, err := h.labels(v.to.Cluster)
	if err != nil {
		return err
	}
	attributes, err := policy.Attributes(v.caller.User, http.MethodGet, path, "")
	if err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "check policy", Code: wire.CodeInvalidTarget, Cluster: v.to.Cluster, Err: err}
	}
	decision, err := h.decide(ctx, policy.Request{
		User: v.caller.User, Cluster: policy.Cluster{Name: v.to.Cluster, Labels: labels}, Kubernetes: attributes,
	})
	if err != nil {
		return err
	}
	v.decision, v.decided = decision, true
	if !decision.Allowed {
		return Refused(v.caller.User, v.to.Cluster, v.to.Target, decision)
	}
	return nil
}

// getAs makes a request to the cluster as the caller.
func (h *Handler) getAs(ctx context.Context, v *visit, path string) (*http.Response, error) {
	if err := h.mayGet(ctx, v, path); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+poolKey(v.to.Cluster, v.to.Target)+path, http.NoBody)
	if err != nil {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "ask cluster", Code: wire.CodeInternal, Cluster: v.to.Cluster, Err: err}
	}
	r.Header.Set("Accept", "application/json")
	headerEditor{requestID: answer.RequestID(v.r.Context()), add: v.outgoing}.edit(r.Header)
	res, err := h.way.RoundTrip(r)
	switch {
	case err == nil:
		return res, nil
	case fault.As(err) != nil:
		return nil, fault.As(err)
	default:
		f := explain(err)
		f.Cluster = v.to.Cluster
		return nil, f
	}
}

// listKubeconfigs names the clusters that the caller may reach, and no others.
func (h *Handler) listKubeconfigs(v *visit) error {
	v.takeCredential()
	if err := h.authenticateSelf(v); err != nil {
		return err
	}
	names, err := h.cfg.Clusters()
	if err != nil {
		return &fault.Error{Hop: wire.HopHub, Op: "list clusters", Code: wire.CodeUnavailable, Err: err}
	}
	type item struct {
		Cluster string `json:"cluster"`
	}
	reached := struct {
		Items []item `json:"items"`
	}{Items: []item{}}
	for _, name := range names {
		may, err := h.mayReach(v, name)
		if err != nil {
			return err
		}
		if may {
			reached.Items = append(reached.Items, item{name})
		}
	}
	return h.json(v, reached)
}
