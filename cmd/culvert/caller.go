package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/credential"
	credkube "github.com/culvertdev/culvert/internal/credential/kube"
	"github.com/culvertdev/culvert/internal/kubeconfig"
	"github.com/culvertdev/culvert/internal/pki"
)

// callerFlags say which hub somebody calls, and with which credential.
type callerFlags struct {
	hub, hubCA              string
	tokenFile, tokenCommand string
	insecure                bool
}

func (c *callerFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.hub, "hub", "", "URL of the hub, https://host:port (required)")
	f.StringVar(&c.hubCA, "hub-ca", "", "PEM file of the CAs that verify the hub (default: the system's)")
	f.StringVar(&c.tokenFile, "token-file", "", "file with your bearer token")
	f.StringVar(&c.tokenCommand, "token-command", "", "line for the shell that prints your bearer token, in place of --token-file; it must have no secret in it")
	f.BoolVar(&c.insecure, "insecure-skip-tls-verify", false, "verify nobody, now and whenever the file is used: for tests on your own machine alone")
	required(cmd, "hub")
}

// source is where the caller's token comes from.
func (c *callerFlags) source(say io.Writer) (credential.Source, error) {
	switch {
	case c.tokenFile != "" && c.tokenCommand != "":
		return nil, errors.New("--token-command: leave it out with --token-file")
	case c.tokenFile != "":
		return credential.File{Path: c.tokenFile}, nil
	case c.tokenCommand != "":
		return credential.Command{Line: c.tokenCommand, Stderr: say}, nil
	}
	return nil, errors.New("--token-file, --token-command: say where your bearer token for the hub comes from")
}

// arguments are the flags by which culvert credential gets the same credential.
// Paths are made absolute: kubectl starts it anywhere.
func (c *callerFlags) arguments(callsHub bool) []string {
	args := []string{"--hub", c.hub}
	if callsHub && c.hubCA != "" {
		args = append(args, "--hub-ca", absolute(c.hubCA))
	}
	if c.tokenCommand != "" {
		return append(args, "--token-command", c.tokenCommand)
	}
	return append(args, "--token-file", absolute(c.tokenFile))
}

func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

// hubCaller calls a hub as its caller.
type hubCaller struct {
	flags  callerFlags
	base   string // https://host:port
	source credential.Source
	cache  credential.Cache
	http   *http.Client
	close  func()
}

// open checks the flags; the caller calls close.
func (c *callerFlags) open(say io.Writer) (*hubCaller, error) {
	base, err := hubBase(c.hub)
	if err != nil {
		return nil, err
	}
	c.hub = base
	source, err := c.source(say)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case c.insecure && c.hubCA != "":
		return nil, errors.New("--insecure-skip-tls-verify: leave it out with --hub-ca, which verifies the hub")
	case c.insecure:
		config.InsecureSkipVerify = true // which is what was asked for, and warned of
	case c.hubCA != "":
		bundle, err := pki.LoadBundle(c.hubCA)
		if err != nil {
			return nil, fmt.Errorf("--hub-ca: %w", err)
		}
		config.RootCAs = bundle.Pool()
	}
	transport := &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	return &hubCaller{
		flags: *c, base: base, source: source, cache: credential.Cache{Dir: cacheDir(), Scope: base},
		http: &http.Client{
			Transport: transport,
			// A token must not follow wherever an answer points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		close: transport.CloseIdleConnections,
	}, nil
}

// cacheDir is where tokens are kept; empty for a user without a folder, of whom
// nothing is kept.
func cacheDir() string {
	dir, err := credential.DefaultDir()
	if err != nil {
		return ""
	}
	return dir
}

// hubBase is the URL without what may follow the host.
func hubBase(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return "", errors.New("--hub: want https://host:port and nothing more")
	}
	return "https://" + u.Host, nil
}

// token is the caller's own.
func (h *hubCaller) token(ctx context.Context) (credential.Token, error) {
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
func (h *hubCaller) tokenRequest(cluster, account string, duration time.Duration) (credkube.Request, error) {
	namespace, name, err := credkube.ParseAccount(account)
	if err != nil {
		return credkube.Request{}, fmt.Errorf("--token-request: %w", err)
	}
	return credkube.Request{
		ID: strings.Join(append([]string{cluster}, h.flags.arguments(true)...), "\x00"), Namespace: namespace, Name: name, Duration: duration,
		Cluster: func(ctx context.Context) (*rest.Config, error) {
			own, err := h.token(ctx)
			if err != nil {
				return nil, err
			}
			return &rest.Config{
				Host: h.base + "/" + cluster, BearerToken: own.Value,
				TLSClientConfig: rest.TLSClientConfig{CAFile: h.flags.hubCA, Insecure: h.flags.insecure},
			}, nil
		},
	}, nil
}

// get asks the hub, for at most half a minute more than it may wait.
func (h *hubCaller) get(ctx context.Context, path string, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+fetchTime)
	defer cancel()
	token, err := h.token(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask the hub at %s: %w", h.base, err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Value)
	res, err := h.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("ask the hub at %s: %w", h.base, err)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, kubeconfig.MaxFile))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, fmt.Errorf("ask the hub at %s: the answer broke off: %w", h.base, err)
	}
	if res.StatusCode == http.StatusOK {
		return text, nil
	}
	var status metav1.Status
	if json.Unmarshal(text, &status) == nil && status.Kind == "Status" && status.Message != "" {
		return nil, fmt.Errorf("%s: %s", status.Reason, status.Message)
	}
	return nil, fmt.Errorf("ask the hub at %s: it answers %s", h.base, res.Status)
}
