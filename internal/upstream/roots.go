package upstream

import (
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// roots are the CAs that verify HTTPS services. A file is read again when it
// changed, which is looked at before each handshake; safe for concurrent use.
type roots struct {
	file string

	mu      sync.Mutex
	pool    *x509.CertPool // guarded by mu
	changed time.Time      // guarded by mu
	size    int64          // guarded by mu
}

// newRoots returns those of serviceCA, else those of the cluster, else those of
// the system (a nil pool).
func newRoots(serviceCA string, cluster *rest.Config) (*roots, error) {
	r := &roots{file: serviceCA}
	if serviceCA == "" && cluster != nil {
		if len(cluster.CAData) > 0 {
			pool, err := parsePool(cluster.CAData)
			if err != nil {
				return nil, fmt.Errorf("kubernetes: ca: %w", err)
			}
			r.pool = pool
			return r, nil
		}
		r.file = cluster.CAFile
	}
	if _, err := r.get(); err != nil {
		return nil, fmt.Errorf("serviceCA: %w", err)
	}
	return r, nil
}

func (r *roots) get() (*x509.CertPool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == "" {
		return r.pool, nil
	}
	info, err := os.Stat(r.file)
	if err != nil {
		return nil, err
	}
	if r.pool != nil && info.ModTime().Equal(r.changed) && info.Size() == r.size {
		return r.pool, nil
	}
	pem, err := os.ReadFile(r.file)
	if err != nil {
		return nil, err
	}
	pool, err := parsePool(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.file, err)
	}
	r.pool, r.changed, r.size = pool, info.ModTime(), info.Size()
	return pool, nil
}

func parsePool(pem []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in PEM form")
	}
	return pool, nil
}
