package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front/https"
	"github.com/culvertdev/culvert/internal/kubeconfig"
	"github.com/culvertdev/culvert/internal/wire"
)

const (
	// maxKubeconfigWait bounds ?wait=.
	maxKubeconfigWait = 2 * time.Minute
	// kubeconfigTry bounds one look at a tunnel, and kubeconfigPause is between two.
	kubeconfigTry   = 20 * time.Second
	kubeconfigPause = 500 * time.Millisecond
	// maxClusterCA bounds ?ca=, in bytes of PEM.
	maxClusterCA = 32 << 10
)

// kubeconfigQuery is what a caller wants.
type kubeconfigQuery struct {
	https.KubeconfigRequest

	// host and port are those of the hub, port "443" where the caller gave none.
	host, port string
	mode       kubeconfig.Mode
	access     kubeconfig.Access
	wait       time.Duration
	// ca is that of the cluster, where the caller knows it.
	ca []byte
}

// kubeconfig makes a kubeconfig once the way that it describes has been verified, and
// waits for that as long as the caller wants.
func (s *Server) kubeconfig(ctx context.Context, ask https.KubeconfigRequest) (https.Kubeconfig, error) {
	q, err := readKubeconfigQuery(ask)
	if err != nil {
		return https.Kubeconfig{}, &fault.Error{Hop: wire.HopHub, Op: "read query", Code: wire.CodeInvalidTarget, Err: err}
	}
	deadline := time.Now().Add(q.wait)
	for {
		entry, err := s.tryKubeconfig(ctx, q)
		if err == nil {
			text, err := kubeconfig.Encode(entry)
			return https.Kubeconfig{Text: text, Generation: entry.Generation()}, err
		}
		if ctx.Err() != nil || !passes(err) || time.Until(deadline) < kubeconfigPause {
			return https.Kubeconfig{}, err
		}
		select {
		case <-time.After(kubeconfigPause):
		case <-ctx.Done():
			return https.Kubeconfig{}, err
		}
	}
}

// passes tells whether what is wrong may be right in a while: a tunnel that is not
// there yet, or a cluster that has not joined yet.
func passes(err error) bool {
	f := fault.As(err)
	return f != nil && (f.Answer != nil && f.Answer.Reason == reasonNotReady || f.Code == wire.CodeNotFound && f.Hop == wire.HopHub && f.Op == opRoute)
}

const opRoute = "route"

func readKubeconfigQuery(ask https.KubeconfigRequest) (q kubeconfigQuery, err error) {
	q.KubeconfigRequest = ask
	for name, values := range ask.Query {
		if len(values) != 1 {
			return q, fmt.Errorf("%.32q: given %d times", name, len(values))
		}
		value := values[0]
		switch name {
		case "mode":
			q.mode, err = kubeconfig.ParseMode(value)
		case "access":
			q.access, err = kubeconfig.ParseAccess(value)
		case "wait":
			q.wait, err = parseWait(value)
		case "ca":
			q.ca, err = parseClusterCA(value)
		default:
			err = fmt.Errorf("%.32q: there is no such parameter, want mode, access, wait or ca", name)
		}
		if err != nil {
			return q, err
		}
	}
	q.mode, _ = kubeconfig.ParseMode(string(q.mode)) // the defaults of what was not given
	q.access, _ = kubeconfig.ParseAccess(string(q.access))
	// The name that the caller has for the hub is the one that works for them.
	u := url.URL{Host: ask.Host}
	if q.host, q.port = u.Hostname(), u.Port(); q.host == "" {
		return q, errors.New("host: the request names none")
	}
	if q.port == "" {
		q.port = "443"
	}
	return q, nil
}

func parseWait(text string) (time.Duration, error) {
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 || wait > maxKubeconfigWait {
		return 0, fmt.Errorf("wait: %.32q: want a duration such as 60s, at most %v", text, maxKubeconfigWait)
	}
	return wait, nil
}

func parseClusterCA(text string) ([]byte, error) {
	pem, err := base64.URLEncoding.DecodeString(text)
	if err != nil {
		pem, err = base64.RawURLEncoding.DecodeString(text)
	}
	if err != nil || len(pem) == 0 || len(pem) > maxClusterCA {
		return nil, fmt.Errorf("ca: want at most %d bytes of PEM, in base64 for URLs", maxClusterCA)
	}
	return pem, nil
}

// tryKubeconfig looks once, and gives the entry only when everything is verified.
func (s *Server) tryKubeconfig(ctx context.Context, q kubeconfigQuery) (kubeconfig.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, kubeconfigTry)
	defer cancel()
	e := kubeconfig.Entry{Name: q.Cluster, Info: kubeconfig.Info{
		Cluster: q.Cluster, Hub: (&url.URL{Scheme: "https", Host: q.Host}).String(), Mode: q.mode, Access: kubeconfig.AccessTunnel,
	}}
	direct, err := s.directFor(q)
	if err != nil {
		return e, err
	}
	if direct != nil {
		e.Endpoint, e.Info.Access, e.Info.Mode = *direct, kubeconfig.AccessDirect, ""
		setUser(&e, q, false)
		return e, nil
	}
	if err := s.checkTunnel(ctx, q); err != nil {
		return e, err
	}
	switch q.mode {
	case kubeconfig.ModePath:
		err = s.pathEntry(ctx, q, &e)
	case kubeconfig.ModeSNI:
		err = s.sniEntry(ctx, q, &e)
	case kubeconfig.ModePassthrough:
		err = s.passthroughEntry(ctx, q, &e)
	case kubeconfig.ModeEndToEnd:
		err = s.endToEndEntry(ctx, q, &e)
	}
	setUser(&e, q, q.mode.Foreign())
	return e, err
}

// setUser puts in what the hub knows of the user: how its callers get their
// credential. It knows nobody of a cluster's own users.
func setUser(e *kubeconfig.Entry, q kubeconfigQuery, foreign bool) {
	if foreign {
		e.Info.Conditions = append(e.Info.Conditions, kubeconfig.Condition{
			Type:    kubeconfig.ConditionUserMissing,
			Message: "the cluster itself authenticates the user, who is missing here: culvert kubeconfig --from CONTEXT puts one in",
		})
		return
	}
	e.User = kubeconfig.PluginUser("culvert", "--hub", (&url.URL{Scheme: "https", Host: q.Host}).String())
}

// directFor returns the endpoint without the hub where that is the one to use; nil
// where it is the tunnel.
func (s *Server) directFor(q kubeconfigQuery) (*kubeconfig.Endpoint, error) {
	if q.access == kubeconfig.AccessTunnel || q.access == kubeconfig.AccessAuto && len(s.registry.Agents(q.Cluster)) > 0 {
		return nil, nil
	}
	known, found, err := s.store.Cluster(q.Cluster)
	switch {
	case err != nil:
		return nil, &fault.Error{Hop: wire.HopHub, Op: "look up", Code: wire.CodeUnavailable, Cluster: q.Cluster, Err: err}
	case known.Direct.URL != "":
		e := &kubeconfig.Endpoint{Server: known.Direct.URL}
		if known.Direct.CA != "" {
			e.CA = []byte(known.Direct.CA)
		}
		return e, nil
	case q.access == kubeconfig.AccessAuto:
		return nil, nil
	case !found: // as every other request for such a cluster
		return nil, &fault.Error{Hop: wire.HopHub, Op: opRoute, Code: wire.CodeNotFound, Cluster: q.Cluster,
			Err: fmt.Errorf("no cluster named %q has joined this hub", q.Cluster)}
	}
	return nil, &fault.Error{Hop: wire.HopHub, Op: "kubeconfig", Code: wire.CodeInvalidTarget, Cluster: q.Cluster,
		Err: errors.New("access: no direct URL is recorded for the cluster: culvert clusters set --direct-url records one")}
}

// checkTunnel makes one request the whole way, as the caller.
func (s *Server) checkTunnel(ctx context.Context, q kubeconfigQuery) error {
	res, err := q.Get(ctx, q.Path)
	if err != nil {
		return notReadyUnlessFinal(q.Cluster, waitAgent, err)
	}
	if err := res.Body.Close(); err != nil {
		return notReady(q.Cluster, waitAnswer, err)
	}
	switch {
	case kubeconfig.Answered(res):
		return nil
	case res.StatusCode == http.StatusUnauthorized:
		return &fault.Error{Hop: wire.HopTarget, Op: "authenticate", Code: wire.CodeUnauthenticated, Cluster: q.Cluster,
			Err: errors.New("the cluster does not know the token")}
	}
	return notReady(q.Cluster, waitAnswer, fmt.Errorf("GET %s through the tunnel: %s", q.Path, res.Status))
}

// pathEntry fills in the form below the hub's own URL.
func (s *Server) pathEntry(ctx context.Context, q kubeconfigQuery, e *kubeconfig.Entry) error {
	ca := s.trust.serving.bundleFor(q.host)
	if err := s.shows(ctx, q.host, ca); err != nil {
		return notReady(q.Cluster, waitCertificate, err)
	}
	e.Endpoint = kubeconfig.Path(q.Host, q.Cluster, ca)
	return nil
}

// sniEntry fills in the form with a name of the cluster's own, terminated here.
func (s *Server) sniEntry(ctx context.Context, q kubeconfigQuery, e *kubeconfig.Entry) error {
	name, err := s.nameFor(q, false)
	if err != nil {
		return err
	}
	ca := s.trust.serving.bundleFor(name)
	if err := s.shows(ctx, name, ca); err != nil {
		return notReady(q.Cluster, waitCertificate, err)
	}
	e.Endpoint = kubeconfig.Named(name, q.port, ca)
	return nil
}

// nameFor returns the cluster's name on the hub's port, whose TLS has to end where the
// mode of the kubeconfig wants it.
func (s *Server) nameFor(q kubeconfigQuery, passThrough bool) (string, error) {
	if name, ok := s.names.hosts.NameFor(q.Cluster, passThrough); ok {
		return name, nil
	}
	text := noNames
	if _, ok := s.names.hosts.NameFor(q.Cluster, !passThrough); ok {
		text = "the hub passes the TLS of the cluster's name through: ask for mode=passthrough or mode=path"
		if passThrough {
			text = "the hub terminates the TLS of the cluster's name: ask for mode=sni or mode=path"
		}
	}
	return "", &fault.Error{Hop: wire.HopHub, Op: "kubeconfig", Code: wire.CodeInvalidTarget, Cluster: q.Cluster, Err: errors.New("mode: " + text)}
}

const noNames = "the hub has no name for the cluster: set hosts.domain in its configuration, or give it one in hosts.names, or ask for mode=path"

// bundleFor are the CAs that a client needs for a name, PEM; nil for those of its
// system.
func (s *serving) bundleFor(name string) []byte {
	return encodeCertificates(s.authoritiesFor(name))
}

// clusterNames are all clusters that are known.
func (s *Server) clusterNames() ([]string, error) {
	known, err := s.store.Clusters()
	names := make([]string, 0, len(known))
	for _, c := range known {
		names = append(names, c.Name)
	}
	return names, err
}
