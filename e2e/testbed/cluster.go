package testbed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"
)

// ServiceRange is the range of cluster IPs of every cluster.
var ServiceRange = netip.MustParsePrefix("10.96.0.0/16")

var loopback = netip.MustParseAddr("127.0.0.1")

// ClusterConfig says how to start a cluster.
type ClusterConfig struct {
	// Name is the name in logs, of the folder and of the prefix in etcd. It must be
	// unique in a bed.
	Name string
	// Namespace is the network the API server runs in; nil is the caller's own.
	// It listens on 127.0.0.1 of that network.
	Namespace *Namespace
	// Tokens are users known to the API server by a static token, next to the
	// administrator.
	Tokens []StaticToken
	// Names are further ones of the API server's certificate.
	Names []string
	// Issuer is that of the tokens of service accounts. Default
	// https://kubernetes.default.svc.cluster.local.
	Issuer string
	// ExtraArgs are added to the flags of kube-apiserver.
	ExtraArgs []string
}

// Cluster is a real kube-apiserver with RBAC, TokenReview and TokenRequest. Its
// methods are safe for concurrent use.
type Cluster struct {
	// Name is that of the config.
	Name string
	// URL is https://127.0.0.1:PORT in the network of Namespace.
	URL string
	// Dir holds the files below and the logs.
	Dir string
	// CAFile verifies the API server's certificate.
	CAFile string
	// AdminKubeconfig is a file with a user in group system:masters.
	AdminKubeconfig string
	// TokenFile is the API server's --token-auth-file.
	TokenFile string
	// Namespace is the network of the cluster; nil is the caller's own.
	Namespace *Namespace
	// APIServer is the process, to be killed or restarted by tests; its port
	// stays the same.
	APIServer *Process
	// StartTime is how long the first start took until /readyz.
	StartTime time.Duration

	kubectl    string
	adminToken string
	ca         []byte
	args       []string // of its API servers, without the port
}

// StartClusters starts clusters in parallel. On an error it returns none; those
// that started are stopped by the bed's Close.
func (b *Bed) StartClusters(ctx context.Context, cfgs ...ClusterConfig) ([]*Cluster, error) {
	clusters := make([]*Cluster, len(cfgs))
	results := make(chan error, len(cfgs))
	for i, cfg := range cfgs {
		go b.startOne(ctx, cfg, &clusters[i], results)
	}
	var errs []error
	for range cfgs {
		errs = append(errs, <-results)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return clusters, nil
}

// startOne sends exactly one result and ends.
func (b *Bed) startOne(ctx context.Context, cfg ClusterConfig, to **Cluster, result chan<- error) {
	cluster, err := b.StartCluster(ctx, cfg)
	*to = cluster
	result <- err
}

// StartCluster starts a cluster and waits until its /readyz says ok. The bed's
// Close ends it.
func (b *Bed) StartCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	c, err := b.startCluster(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", cfg.Name, err)
	}
	return c, nil
}

func (b *Bed) startCluster(ctx context.Context, cfg ClusterConfig) (*Cluster, error) {
	dir, err := b.mkdir(cfg.Name)
	if err != nil {
		return nil, err
	}
	creds, err := newCredentials(dir, cfg.Tokens, cfg.Names)
	if err != nil {
		return nil, err
	}
	port, err := ReservePort(cfg.Namespace, loopback)
	if err != nil {
		return nil, err
	}
	b.onClose(func() error { port.Close(); return nil })
	c := &Cluster{
		Name:            cfg.Name,
		URL:             "https://" + port.Addr(),
		Dir:             dir,
		CAFile:          creds.caFile,
		AdminKubeconfig: filepath.Join(dir, "admin.kubeconfig"),
		TokenFile:       creds.tokenFile,
		Namespace:       cfg.Namespace,
		kubectl:         b.cfg.Servers.Kubectl,
		adminToken:      creds.adminToken,
		ca:              creds.ca,
	}
	if err := writeFile(c.AdminKubeconfig, Kubeconfig(c.URL, c.ca, c.adminToken)); err != nil {
		return nil, err
	}
	c.args = append([]string{
		"--etcd-servers=unix://" + b.socket,
		"--etcd-prefix=/" + cfg.Name,
		"--bind-address=" + loopback.String(),
		// Only written into Endpoints; the default would be read from the
		// machine's routes, which an isolated network does not have.
		"--advertise-address=" + HubAddress.String(),
		"--cert-dir=" + dir,
		"--tls-cert-file=" + creds.servingCert,
		"--tls-private-key-file=" + creds.servingKey,
		"--kubelet-certificate-authority=" + creds.caFile,
		"--kubelet-client-certificate=" + creds.kubeletCert,
		"--kubelet-client-key=" + creds.kubeletKey,
		"--service-account-issuer=" + cmp.Or(cfg.Issuer, "https://kubernetes.default.svc.cluster.local"),
		"--service-account-key-file=" + creds.serviceAccountPublic,
		"--service-account-signing-key-file=" + creds.serviceAccountPrivate,
		"--authorization-mode=RBAC",
		"--token-auth-file=" + creds.tokenFile,
		"--service-cluster-ip-range=" + ServiceRange.String(),
		// There is no controller that would make default service accounts, so
		// pods must be accepted without one.
		"--disable-admission-plugins=ServiceAccount",
	}, cfg.ExtraArgs...)
	return c, b.startAPIServer(ctx, c, "kube-apiserver", port)
}

// startAPIServer starts the process of c.
func (b *Bed) startAPIServer(ctx context.Context, c *Cluster, name string, port *Port) error {
	started := time.Now()
	var err error
	c.APIServer, err = StartProcess(ctx, ProcessConfig{
		Name: name, Path: b.cfg.Servers.KubeAPIServer, Args: append([]string{"--secure-port=" + port.Number()}, c.args...),
		LogDir: c.Dir, Namespace: c.Namespace, Ready: c.ready,
	})
	if err != nil {
		return err
	}
	c.StartTime = time.Since(started)
	b.onClose(c.APIServer.Kill9)
	return nil
}

// StartReplica starts another API server of a cluster, with the same objects,
// certificate and credentials on a port of its own, and waits until its /readyz
// says ok. What it returns is the cluster as seen by that one; its log is name.log
// in the cluster's folder. The bed's Close ends it.
func (b *Bed) StartReplica(ctx context.Context, c *Cluster, name string) (*Cluster, error) {
	port, err := ReservePort(c.Namespace, loopback)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	b.onClose(func() error { port.Close(); return nil })
	replica := *c
	replica.URL = "https://" + port.Addr()
	replica.AdminKubeconfig = filepath.Join(c.Dir, name+".kubeconfig")
	if err := writeFile(replica.AdminKubeconfig, Kubeconfig(replica.URL, c.ca, c.adminToken)); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	if err := b.startAPIServer(ctx, &replica, name, port); err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return &replica, nil
}

// ready asks /readyz, which is ok once RBAC's own roles are there too.
func (c *Cluster) ready(ctx context.Context) error {
	client, err := c.HTTPClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	return expectOK(ctx, client, c.URL+"/readyz", c.adminToken)
}

// HTTPClient returns a client that verifies the API server's certificate and
// dials from the cluster's own network. It adds no credential. The caller closes
// its idle connections.
func (c *Cluster) HTTPClient() (*http.Client, error) {
	tls, err := clientTLS(c.ca)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	return &http.Client{Transport: &http.Transport{
		DialContext:       c.Namespace.Dial,
		TLSClientConfig:   tls,
		ForceAttemptHTTP2: true,
	}}, nil
}
