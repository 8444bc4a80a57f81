package subject

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/relay"
	"github.com/culvertdev/culvert/bench/internal/service"
	"github.com/culvertdev/culvert/internal/pki"
)

// Roles are what this executable can be as a child.
func Roles() map[string]process.Role {
	return map[string]process.Role{
		service.RoleName: process.As(service.Role),
		relay.NearRole:   process.As(relay.Near),
		relay.FarRole:    process.As(relay.Far),
		relay.ProxyRole:  process.As(relay.Proxy),
		hubRole:          process.As(runHub),
		agentRole:        process.As(runAgents),
	}
}

// Side is one end of the tunnel.
type Side struct {
	// Host is its IPv4 address, Within what is put before command lines to run
	// them there, see [process.Spec].
	Host   string
	Within []string
}

// Kube is a real API server beside the service.
type Kube struct {
	// URL is its base, CA the file that verifies it, Path what is asked for.
	URL, CA, Path string
	// Token is the agent's, which may impersonate.
	Token string
}

// Env is where subjects run. It is not changed once it is made.
type Env struct {
	// Dir is an existing folder for keys, state and logs; the caller removes it.
	Dir string
	// Near is the side of the client and the hub, Far that of the agent and the
	// service.
	Near, Far Side
	// Cert and Key are the files of the key pair of every TLS server of the
	// benchmark itself, CA the file that verifies it, Roots the same.
	Cert, Key, CA string
	Roots         *x509.CertPool
	// Service is what tunnels lead to.
	Service service.Addresses
	// Kube is nil when there is none.
	Kube *Kube
}

// serviceName is how the trivial service is called in the agent's cluster.
const (
	serviceNamespace = "bench"
	serviceName      = "web"
)

// NewEnv returns an environment with a key pair for both sides; Service is still
// to be filled in.
func NewEnv(dir string, near, far Side) (*Env, error) {
	certs := filepath.Join(dir, "certs")
	authority, err := pki.LoadOrCreate(certs, pki.RoleServing)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	names := []string{near.Host, serviceName + "." + serviceNamespace + ".svc"}
	if far.Host != near.Host {
		names = append(names, far.Host)
	}
	cert, err := authority.IssueServing(key.Public(), names, pki.DefaultLifetime)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	encoded, err := pki.EncodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if err := pki.WriteKeyPair(certs, cert, encoded, authority.PEM()); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	return &Env{
		Dir: dir, Near: near, Far: far, Roots: authority.Pool(),
		Cert: filepath.Join(certs, "tls.crt"), Key: filepath.Join(certs, "tls.key"), CA: filepath.Join(certs, "ca.crt"),
	}, nil
}

// folder makes a new folder for a subject that is started.
func (e *Env) folder(name string) (string, error) {
	dir, err := os.MkdirTemp(e.Dir, name+"-")
	if err != nil {
		return "", fmt.Errorf("folder of %s: %w", name, err)
	}
	return dir, nil
}

// trustedPool returns a pool of the certificates in a PEM file.
func trustedPool(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("CA: " + file + " holds no certificate")
	}
	return pool, nil
}
