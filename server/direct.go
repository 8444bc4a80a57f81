package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"

	"github.com/culvertdev/culvert/internal/front/admin"
	"github.com/culvertdev/culvert/internal/store"
	"github.com/culvertdev/culvert/internal/wire"
)

// SetDirect implements [admin.Hub].
func (a administration) SetDirect(ctx context.Context, who, name string, direct admin.Direct) (admin.Cluster, error) {
	const op = "set cluster"
	if err := checkCluster(op, name); err != nil {
		return admin.Cluster{}, err
	}
	if err := checkDirect(direct); err != nil {
		return admin.Cluster{}, refuse(op, wire.CodeInvalidTarget, name, "%w", err)
	}
	if err := a.s.store.SetDirect(name, store.Direct{URL: direct.URL, CA: direct.CA}); err != nil {
		return admin.Cluster{}, err
	}
	a.s.log.Info("direct URL of a cluster set", "cluster", name, "who", who, "url", direct.URL)
	return a.GetCluster(ctx, name)
}

// checkDirect refuses what would not work in a kubeconfig, and what would be a secret
// in one.
func checkDirect(direct admin.Direct) error {
	var problems []error
	if direct.URL == "" {
		if direct.CA != "" {
			problems = append(problems, errors.New("ca: there is no url that it is for"))
		}
		return errors.Join(problems...)
	}
	u, err := url.Parse(direct.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(direct.URL) > 1024 {
		problems = append(problems, errors.New("url: want https://host[:port][/path] of the API server and nothing more"))
	}
	if direct.CA != "" && (len(direct.CA) > maxClusterCA || !x509.NewCertPool().AppendCertsFromPEM([]byte(direct.CA))) {
		problems = append(problems, fmt.Errorf("ca: want certificates in PEM, at most %d bytes", maxClusterCA))
	}
	return errors.Join(problems...)
}
