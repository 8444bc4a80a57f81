package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/culvertdev/culvert/internal/fault"
	"github.com/culvertdev/culvert/internal/front"
	"github.com/culvertdev/culvert/internal/identity"
	"github.com/culvertdev/culvert/internal/kubeconfig"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/wire"
)

// reasonNotReady is the Status.reason while a kubeconfig would not work yet.
const reasonNotReady = "TunnelNotReady"

// causeWaitFor has what is waited for as its message.
const causeWaitFor = "WaitFor"

// What is waited for.
const (
	// waitAgent: an agent of the cluster is connected.
	waitAgent = "agent"
	// waitAnswer: the API server answers through the tunnel.
	waitAnswer = "answer"
	// waitCertificate: the hub shows a certificate for the name in the file that the
	// CA in the file verifies.
	waitCertificate = "hub-certificate"
	// waitClusterCertificate: the API server does.
	waitClusterCertificate = "cluster-certificate"
)

// kubeconfigRetry is what callers are told to wait.
const kubeconfigRetry = time.Second

// notReady is the answer while a kubeconfig would not work.
func notReady(cluster, wait string, err error, causes ...fault.Cause) error {
	return &fault.Error{
		Hop: wire.HopHub, Op: "kubeconfig", Code: wire.CodeUnavailable, Cluster: cluster, RetryAfter: kubeconfigRetry,
		Err: fmt.Errorf("the way to the cluster is not verified yet, it waits for %s: %w", wait, err),
		Answer: &fault.Answer{
			Status: http.StatusConflict, Reason: reasonNotReady,
			Causes: append([]fault.Cause{{Type: causeWaitFor, Message: wait}}, causes...),
		},
	}
}

// notReadyUnlessFinal passes on what no waiting changes: that the caller may not, or
// that there is no such cluster.
func notReadyUnlessFinal(cluster, wait string, err error) error {
	f := fault.As(err)
	if f == nil {
		return notReady(cluster, wait, err)
	}
	switch f.Code {
	case wire.CodePermissionDenied, wire.CodeUnauthenticated, wire.CodeTooManyRequests, wire.CodeCanceled:
		return f
	case wire.CodeNotFound, wire.CodeInvalidTarget:
		if f.Hop == wire.HopHub { // at another hop it is of an agent that cannot, or not yet
			return f
		}
	}
	return notReady(cluster, wait, f)
}

// shows makes a TLS handshake with what clients of the hub meet, for a name and with
// the CAs that a file will have (nil: those of this system). It goes over no network.
func (s *Server) shows(ctx context.Context, name string, ca []byte) error {
	cfg := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if ca != nil {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(ca) {
			return errors.New("no CA of the hub can be read")
		}
	}
	asked := name
	if net.ParseIP(name) != nil {
		asked = "" // addresses are not sent (RFC 6066 section 3)
	}
	server := s.names.byName(asked).TLS
	if server == nil {
		return fmt.Errorf("the hub shows no certificate for %s", name)
	}
	server = server.Clone()
	server.SessionTicketsDisabled = true // nobody would read one
	here, there := net.Pipe()
	ended := make(chan struct{})
	go func() {
		_ = tls.Server(there, server).HandshakeContext(ctx) // the other side of our own error
		close(ended)
	}()
	client := tls.Client(here, cfg)
	err := client.HandshakeContext(ctx)
	_ = here.Close() // a pipe, which cannot fail
	<-ended
	_ = there.Close()
	if err != nil {
		return fmt.Errorf("the hub's certificate for %s: %w", name, err)
	}
	return nil
}

// passthroughEntry fills in the form in which the API server's own certificate has
// the name of the cluster at the hub.
func (s *Server) passthroughEntry(ctx context.Context, q kubeconfigQuery, e *kubeconfig.Entry) error {
	name, err := s.nameFor(q, true)
	if err != nil {
		return err
	}
	ca, err := clusterCA(ctx, q)
	if err != nil {
		return err
	}
	// By a name, the hub never learns who calls.
	leaf, err := s.apiServer(ctx, q, identity.JudgedByTarget(), ca, name)
	if err != nil {
		return err
	}
	snippets := kubeconfig.SAN(name)
	e.Info.Snippets = &snippets
	if missing, yes := snippets.Missing(leaf); yes {
		return notReady(q.Cluster, waitClusterCertificate, errors.New(missing.Message), fault.Cause{Type: missing.Type, Message: missing.Message})
	}
	e.Endpoint = kubeconfig.Named(name, q.port, ca)
	return nil
}

// endToEndEntry fills in the form that goes by the hub as an HTTP proxy.
func (s *Server) endToEndEntry(ctx context.Context, q kubeconfigQuery, e *kubeconfig.Entry) error {
	name, ok := s.names.hosts.ProxiedName(q.Cluster)
	if !ok {
		return &fault.Error{Hop: wire.HopHub, Op: "kubeconfig", Code: wire.CodeInvalidTarget, Cluster: q.Cluster, Err: errors.New("mode: " + noNames)}
	}
	ca, err := clusterCA(ctx, q)
	if err != nil {
		return err
	}
	leaf, err := s.apiServer(ctx, q, q.Caller, ca, name)
	if err != nil {
		return err
	}
	inside := kubeconfig.InternalName(leaf)
	if inside == "" {
		text := fmt.Sprintf("the API server's certificate has none of the names %q", kubeconfig.InternalNames)
		return notReady(q.Cluster, waitClusterCertificate, errors.New(text), fault.Cause{Type: kubeconfig.ConditionSANMissing, Message: text})
	}
	// client-go holds the proxy to the name and the CAs that the cluster is held to.
	// For these names the hub shows a certificate of its own serving CA.
	hubCA := encodeCertificates(s.trust.authorities[pki.RoleServing].Certificates())
	if err := s.shows(ctx, inside, append(append([]byte{}, hubCA...), ca...)); err != nil {
		return notReady(q.Cluster, waitCertificate, err)
	}
	proxy := &url.URL{Scheme: "https", Host: q.Host}
	e.Endpoint = kubeconfig.EndToEnd(name, inside, proxy.String(), hubCA, ca)
	return nil
}

// apiServer makes a TLS handshake with the cluster's API server through the tunnel,
// and returns its certificate once the CA verifies it, for whatever name.
func (s *Server) apiServer(ctx context.Context, q kubeconfigQuery, caller identity.Caller, ca []byte, sni string) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, &fault.Error{Hop: wire.HopHub, Op: "read query", Code: wire.CodeInvalidTarget, Cluster: q.Cluster,
			Err: errors.New("the cluster's CA: no certificate in PEM")}
	}
	session := &front.Session{Cluster: q.Cluster, Target: wire.KubernetesTLS(), Caller: caller, Source: q.Source, Start: time.Now()}
	stream, err := sessions{s}.Open(ctx, session)
	if err != nil {
		return nil, notReadyUnlessFinal(q.Cluster, waitAnswer, err)
	}
	conn := tls.Client(stream, &tls.Config{
		ServerName: sni, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does, apart from the name, which is held against it later
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	})
	err = conn.HandshakeContext(ctx)
	if closeErr := stream.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return nil, notReady(q.Cluster, waitClusterCertificate, fmt.Errorf("TLS with the API server: %w", err))
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// caPaths are where every cluster publishes its CA, in all of its namespaces.
var caPaths = []string{
	"/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
	"/api/v1/namespaces/kube-public/configmaps/kube-root-ca.crt",
}

// clusterCA returns what the caller gave, or what the cluster lets them read.
func clusterCA(ctx context.Context, q kubeconfigQuery) ([]byte, error) {
	if q.ca != nil {
		return q.ca, nil
	}
	said := errors.New("no answer")
	for _, path := range caPaths {
		ca, err := readCA(ctx, q, path)
		if err == nil {
			return ca, nil
		}
		said = err
	}
	return nil, &fault.Error{Hop: wire.HopHub, Op: "kubeconfig", Code: wire.CodePermissionDenied, Cluster: q.Cluster,
		Err: fmt.Errorf("the cluster's CA is not known: the ConfigMap kube-root-ca.crt cannot be read as you: %w; give the CA (culvert kubeconfig --from CONTEXT)", said)}
}

func readCA(ctx context.Context, q kubeconfigQuery, path string) ([]byte, error) {
	res, err := q.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(res.Status)
	}
	var config corev1.ConfigMap
	if err := json.Unmarshal(body, &config); err != nil {
		return nil, errors.New("the answer is no ConfigMap")
	}
	ca := config.Data["ca.crt"]
	if ca == "" || len(ca) > maxClusterCA {
		return nil, errors.New("the ConfigMap has no ca.crt")
	}
	return []byte(ca), nil
}
