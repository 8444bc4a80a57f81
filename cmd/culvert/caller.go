package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/cmd/internal/cli"
	"github.com/culvertdev/culvert/cmd/internal/exitcode"
	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/credential"
	credkube "github.com/culvertdev/culvert/internal/credential/kube"
	"github.com/culvertdev/culvert/internal/kubeconfig"
	"github.com/culvertdev/culvert/internal/profile"
	"github.com/culvertdev/culvert/internal/route"
)

// hubCaller calls a hub as its caller.
type hubCaller struct {
	profile profile.Profile
	base    string            // https://host:port
	source  credential.Source // nil for a client certificate
	cache   credential.Cache
	http    *http.Client
	close   func()
}

// open checks the flags; the caller calls close.
func (c *callerFlags) open(say io.Writer) (*hubCaller, error) {
	p, err := c.resolve()
	if err != nil {
		return nil, err
	}
	source, err := source(p, say)
	if err != nil {
		return nil, err
	}
	t, err := transport(p)
	if err != nil {
		return nil, err
	}
	return &hubCaller{
		profile: p, base: p.Hub, source: source, cache: credential.Cache{Dir: cacheDir(), Scope: p.Hub},
		http: &http.Client{
			Transport: t,
			// A token must not follow wherever an answer points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		close: t.CloseIdleConnections,
	}, nil
}

// token is the caller's own.
func (h *hubCaller) token(ctx context.Context) (credential.Token, error) {
	if h.source == nil {
		return credential.Token{}, &exitcode.Error{Code: exitcode.Usage, Err: errNoToken}
	}
	return h.cache.Token(ctx, h.source)
}

// clusters are those that the caller may reach.
func (h *hubCaller) clusters(ctx context.Context) ([]string, error) {
	text, err := h.get(ctx, "/-/v1/kubeconfig", 0)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Cluster string `json:"cluster"`
		} `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("ask the hub at %s: an answer that is not of a hub: %w", h.base, err)
	}
	var names []string
	for _, item := range list.Items {
		if err := route.CheckCluster(item.Cluster); err != nil { // it becomes a name in files
			return nil, fmt.Errorf("ask the hub at %s: an answer that is not of a hub: %w", h.base, err)
		}
		names = append(names, item.Cluster)
	}
	return names, nil
}

// kubeconfig gets a cluster's entry.
func (h *hubCaller) kubeconfig(ctx context.Context, cluster string, query url.Values) (kubeconfig.Entry, error) {
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		return kubeconfig.Entry{}, err
	}
	text, err := h.get(ctx, "/-/v1/clusters/"+url.PathEscape(cluster)+"/kubeconfig?"+query.Encode(), wait)
	if err != nil {
		return kubeconfig.Entry{}, err
	}
	entries, err := kubeconfig.Decode(text)
	if err != nil || len(entries) != 1 || entries[0].Info.Cluster != cluster {
		return kubeconfig.Entry{}, fmt.Errorf("ask the hub at %s: an answer that is not of a hub", h.base)
	}
	return entries[0], nil
}

// clusterCA is what the cluster publishes, read as the caller.
func (h *hubCaller) clusterCA(ctx context.Context, cluster string, wait time.Duration) ([]byte, error) {
	// The cluster may not be there yet; the form by path says when it is.
	if _, err := h.kubeconfig(ctx, cluster, url.Values{"access": {string(kubeconfig.AccessTunnel)}, "wait": {wait.String()}}); err != nil {
		return nil, err
	}
	text, err := h.get(ctx, "/"+url.PathEscape(cluster)+"/api/v1/namespaces/default/configmaps/kube-root-ca.crt", 0)
	if err != nil {
		return nil, fmt.Errorf("the cluster's CA: %w; --from takes it from a context that you have", err)
	}
	var published corev1.ConfigMap
	if err := json.Unmarshal(text, &published); err != nil || published.Data["ca.crt"] == "" {
		return nil, errors.New("the cluster's CA: the ConfigMap kube-root-ca.crt has none: --from takes it from a context that you have")
	}
	return []byte(published.Data["ca.crt"]), nil
}

func encodeCA(pem []byte) string { return base64.URLEncoding.EncodeToString(pem) }

// tokenRequest asks the cluster for tokens of a service account, as the caller.
func (h *hubCaller) tokenRequest(cluster, account string, duration time.Duration) (credential.Source, error) {
	namespace, name, err := credkube.ParseAccount(account)
	if err != nil {
		return nil, cli.Usagef("--token-request: %w", err)
	}
	return throughHub{h.base, credkube.Request{
		ID: strings.Join(append([]string{cluster}, arguments(h.profile, true)...), "\x00"), Namespace: namespace, Name: name, Duration: duration,
		Cluster: func(ctx context.Context) (*rest.Config, error) {
			how := &rest.Config{Host: h.base + "/" + cluster, TLSClientConfig: restTLS(h.profile)}
			if h.source == nil {
				return how, nil
			}
			own, err := h.token(ctx)
			how.BearerToken = own.Value
			return how, err
		},
	}}, nil
}

// throughHub is a request that a hub carries, whose failure may be the hub's.
type throughHub struct {
	hub string
	credkube.Request
}

// Fetch implements [credential.Source].
func (t throughHub) Fetch(ctx context.Context) (credential.Token, error) {
	token, err := t.Request.Fetch(ctx)
	if call, ok := errors.AsType[*credkube.CallError](err); ok {
		err = hubError(t.hub, call.Err)
	}
	return token, err
}

// get asks the hub, for at most half a minute more than it may wait.
func (h *hubCaller) get(ctx context.Context, path string, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask the hub at %s: %w", h.base, err)
	}
	if h.source != nil {
		token, err := h.token(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token.Value)
	}
	res, err := h.http.Do(req)
	if err != nil {
		return nil, hubError(h.base, err)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, kubeconfig.MaxFile))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, hubError(h.base, fmt.Errorf("the answer broke off: %w", err))
	}
	if res.StatusCode == http.StatusOK {
		return text, nil
	}
	refusal := answer.Read(res, text)
	if refusal.Reason == "" {
		return nil, fmt.Errorf("ask the hub at %s: %w", h.base, refusal)
	}
	return nil, fmt.Errorf("%s: %w", refusal.Reason, refusal)
}
