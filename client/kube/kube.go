// Package kube makes configurations of client-go for clusters behind a Culvert hub.
//
//	cfg, err := kube.RESTConfig(c, "edge-1")
//	pods, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Pods("").List(ctx, metav1.ListOptions{})
//
// It is apart from package client so that programs without client-go do not get it.
package kube

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport/websocket"

	"github.com/culvertdev/culvert/client"
)

// RESTConfig returns a configuration for the Kubernetes API of a cluster, as the user that
// the client is; Impersonate may be set. Requests, and watches, go over the client's one
// connection. What client-go upgrades with a connection of its own, which are exec,
// attach and port-forward, goes to the hub by HTTPS, with the same credential.
//
// The configuration is good for as long as the client is open, and stays valid when tokens
// and certificates are renewed. The caller may change it.
func RESTConfig(c *client.Client, cluster string) (*rest.Config, error) {
	access, err := c.Access()
	if err != nil {
		return nil, err
	}
	cfg := &rest.Config{
		Host: access.URL + "/" + cluster,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: access.CA, ServerName: access.ServerName, Insecure: access.InsecureSkipVerify,
			CertFile: access.CertFile, KeyFile: access.KeyFile,
		},
		WrapTransport: func(own http.RoundTripper) http.RoundTripper {
			if upgrades(own) {
				return authorized{client: c, hub: access.URL, own: own}
			}
			return carried{client: c, cluster: cluster, way: c.RoundTripper()}
		},
	}
	if access.ProxyURL != "" {
		proxy, err := url.Parse(access.ProxyURL)
		if err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		cfg.Proxy = http.ProxyURL(proxy)
	}
	return cfg, nil
}

// upgrades tells what of client-go makes connections of its own.
func upgrades(rt http.RoundTripper) bool {
	switch rt.(type) {
	case httpstream.UpgradeRoundTripper, websocket.ConnectionHolder:
		return true
	}
	return false
}

// authorized adds the client's credential to requests that are sent beside its connection.
type authorized struct {
	client *client.Client
	hub    string // its URL: nobody else gets the credential
	own    http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (a authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	secure := r.URL.Scheme == "https" || r.URL.Scheme == "wss"
	if !secure || "https://"+r.URL.Host != a.hub {
		err := fmt.Errorf("host: %s://%s where %s is wanted: the configuration is for its own hub alone", r.URL.Scheme, r.URL.Host, a.hub)
		return nil, errors.Join(err, closeBody(r))
	}
	value, err := a.client.Authorization(r.Context())
	if err != nil {
		return nil, errors.Join(err, closeBody(r))
	}
	if value != "" && r.Header.Get("Authorization") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", value)
	}
	return a.own.RoundTrip(r)
}

// closeBody closes what is not sent.
func closeBody(r *http.Request) error {
	if r.Body == nil {
		return nil
	}
	return r.Body.Close()
}

// WrappedRoundTripper is how client-go finds what it has wrapped.
func (a authorized) WrappedRoundTripper() http.RoundTripper { return a.own }

// carried sends requests over the client's connection.
type carried struct {
	client  *client.Client
	cluster string
	way     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (c carried) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.WithContext(client.WithCluster(r.Context(), c.cluster))
	at := *r.URL
	at.Path = strings.TrimPrefix(at.Path, "/"+c.cluster)
	at.RawPath = strings.TrimPrefix(at.RawPath, "/"+c.cluster)
	out.URL = &at
	return c.way.RoundTrip(out)
}
