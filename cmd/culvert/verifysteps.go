package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/culvertdev/culvert/client"
	"github.com/culvertdev/culvert/internal/kubeconfig"
)

// soon is when the end of a certificate is worth a word.
const soon = 7 * 24 * time.Hour

// findHub looks the hub's name up, unless a proxy does that.
func findHub(ctx context.Context, base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		return "left to the proxy " + proxy.Host, nil
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return u.Hostname() + " is an address", nil
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, u.Hostname())
	if err != nil {
		return "", &client.Error{Op: "look up", Code: client.Unreachable, Hop: client.HopClient, Target: u.Hostname(), Err: err}
	}
	return u.Hostname() + " is " + strings.Join(addresses, ", "), nil
}

// shakeHands makes a TLS handshake with the hub, as every caller does, and tells what
// its certificate says.
func shakeHands(ctx context.Context, hub *hubCaller) (string, error) {
	failed := func(err error) error {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		code, hop := client.Unreachable, client.HopTunnel
		if errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError)) {
			code, hop = client.TLSFailure, client.HopHub
		}
		return &client.Error{Op: "handshake", Code: code, Hop: hop, Target: hub.base, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, hub.base+"/-/healthz", http.NoBody)
	if err != nil {
		return "", err
	}
	res, err := hub.http.Do(req)
	if err != nil {
		return "", failed(err)
	}
	if err := res.Body.Close(); err != nil {
		return "", failed(err)
	}
	if res.TLS == nil || len(res.TLS.PeerCertificates) == 0 {
		return "", failed(errors.New("the hub has shown no certificate"))
	}
	return certificateText(res.TLS), nil
}

// certificateText is what a person wants to know of a server's certificate.
func certificateText(state *tls.ConnectionState) string {
	leaf := state.PeerCertificates[0]
	chain := "NOT VERIFIED"
	if len(state.VerifiedChains) > 0 {
		verified := state.VerifiedChains[0]
		chain = "issued by " + nameOf(verified[len(verified)-1])
	}
	names := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	text := fmt.Sprintf("%s, for %s, %s, good until %s", tls.VersionName(state.Version), strings.Join(names, ", "), chain, until(leaf.NotAfter))
	if time.Until(leaf.NotAfter) < soon {
		text += ": RENEW IT"
	}
	return text
}

func nameOf(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return c.Subject.String()
}

// whoAmI is what the hub says of the caller.
func whoAmI(ctx context.Context, c *client.Client) (string, error) {
	user, err := c.WhoAmI(ctx)
	if err != nil {
		return "", err
	}
	text := user.Name + " by " + user.Method
	if len(user.Groups) > 0 {
		text += ", in " + strings.Join(user.Groups, ", ")
	}
	if !user.Expires.IsZero() {
		text += ", until " + until(user.Expires)
	}
	return text + "; hub " + user.Hub, nil
}

// findClusters returns the names of the clusters to test: the one that is named, or all
// that are connected.
func findClusters(ctx context.Context, c *client.Client, name string) (names []string, detail string, err error) {
	all, err := c.Clusters(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, one := range all {
		switch {
		case name == "" && one.Connected:
			names = append(names, one.Name)
		case name != "" && one.Name == name && !one.Connected:
			return nil, "", &client.Error{
				Op: "find", Code: client.Unavailable, Hop: client.HopHub, Cluster: name,
				Err: errors.New("no agent of the cluster is connected"),
			}
		case name != "" && one.Name == name:
			return []string{name}, "connected, " + counted(len(one.Agents), "agent"), nil
		}
	}
	if name != "" {
		return nil, "", &client.Error{
			Op: "find", Code: client.NotFound, Hop: client.HopHub, Cluster: name,
			Err: errors.New("the hub has no such cluster, or you may not reach its API"),
		}
	}
	return names, fmt.Sprintf("%d, of which %d are connected", len(all), len(names)), nil
}

// roundTrip sends a message to a cluster's agent and its API server.
func roundTrip(ctx context.Context, c *client.Client, cluster string) (string, error) {
	p, err := c.Ping(ctx, cluster)
	switch {
	case err != nil:
		return "", err
	case p.TargetError != "":
		return "", &client.Error{Op: "ping", Code: client.Unreachable, Hop: client.HopTarget, Cluster: cluster, Err: errors.New(p.TargetError)}
	}
	server := "API server"
	if p.TargetVersion != "" { // what is no API server says none
		server += " " + p.TargetVersion
	}
	return fmt.Sprintf("hub %s in %s, agent %s %s in %s, %s in %s", p.HubVersion, short(p.Hub), p.AgentName, p.AgentVersion,
		short(p.Agent), server, short(p.Target)), nil
}

// tryKubeconfig gets a cluster's entry, compares it with what is set here, and makes a
// request with it as kubectl would.
func tryKubeconfig(ctx context.Context, hub *hubCaller, flags *callerFlags, cluster string) (string, error) {
	maker := &entryMaker{hub: hub, o: &kubeconfigOptions{
		caller: *flags, clusters: []string{cluster}, mode: string(kubeconfig.ModePath), access: string(kubeconfig.AccessTunnel),
	}}
	entries, err := maker.make(ctx, cluster)
	if err != nil {
		return "", err
	}
	want := hub.base + "/" + cluster
	if got := entries[0].Server; got != want {
		return "", fmt.Errorf("the hub gives the URL %s, and you reach it by %s: its host names or --tls-name are not what you use", printable(got), want)
	}
	if err := tryEntries(ctx, entries); err != nil {
		return "", err
	}
	return want + ", verified", nil
}
