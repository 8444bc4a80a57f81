package service

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/store"
)

// Issuer signs the certificates of agents. A pki.Authority of the role agents is
// one.
type Issuer interface {
	// SignAgent decides every field but the key.
	SignAgent(pub crypto.PublicKey, trustDomain, cluster string, lifetime time.Duration) (*pki.Issued, error)
	// CanSign tells whether the hub has the key.
	CanSign() bool
	// Pool returns what certificates of this issuer lead to.
	Pool() *x509.CertPool
}

// Tokens judges join tokens. The hub's store does.
type Tokens interface {
	// UseToken is as store.Store.UseToken has it.
	UseToken(use store.Use) (store.Token, error)
}

// Approvals keeps who waits to be accepted. The hub's store does.
type Approvals interface {
	// Ask is as store.Store.Ask has it.
	Ask(want store.Pending, at time.Time) (store.Pending, error)
	// RemovePending is as store.Store.RemovePending has it.
	RemovePending(cluster, key string) error
}

// Certificates remembers what was issued, and refuses what was revoked. The hub's
// store does both.
type Certificates interface {
	// RecordCertificate is as store.Store.RecordCertificate has it.
	RecordCertificate(c store.Certificate) error
	// CheckCertificate is as store.Store.CheckCertificate has it.
	CheckCertificate(cluster string, cert *x509.Certificate) error
}

// State is what a hub remembers. store.Store is one; another engine is put in by
// implementing it.
type State interface {
	Tokens
	Approvals
	Certificates
}

// Accounts judges tokens of service accounts: audience, namespace and name, by
// explicit rules. identity.ServiceAccounts does, by a TokenReview.
type Accounts interface {
	// Verify returns the cluster that a token may join as and, for logs, whose it
	// is. wanted may be empty where the rules leave no choice. The error is a
	// fault.Error and never has anything of the token.
	Verify(ctx context.Context, token, wanted string) (cluster, account string, err error)
}

// Config sets up a [Service]. All fields but Accounts, Lifetime and HubCA are
// required.
type Config struct {
	Issuer Issuer
	State  State
	// Accounts judges service accounts' tokens. Nil: they are not taken.
	Accounts Accounts
	// TrustDomain is that of the certificates.
	TrustDomain string
	// Lifetime is how long certificates are valid. Default
	// pki.DefaultAgentLifetime, least [MinLifetime].
	Lifetime time.Duration
	// HubCA returns, PEM, the CAs that agents have to trust for the hub's
	// certificates, old ones included as long as they are trusted. Nil, or an empty
	// text: the CAs of their systems. It is called for each answer.
	HubCA func() []byte
	// Logger gets a line for each certificate and each refusal.
	Logger *slog.Logger
}

// MinLifetime is the least of Config.Lifetime: a certificate has to be renewed
// some seconds before it ends.
const MinLifetime = 10 * time.Second

// Service decides who gets a certificate. It is safe for concurrent use and has
// nothing to close.
type Service struct {
	cfg      Config
	log      *slog.Logger
	callers  *limiter // of Enroll, by network
	renewals *limiter // by cluster
}

// New checks cfg.
func New(cfg Config) (*Service, error) {
	if cfg.Lifetime == 0 {
		cfg.Lifetime = pki.DefaultAgentLifetime
	}
	if cfg.HubCA == nil {
		cfg.HubCA = func() []byte { return nil }
	}
	switch {
	case cfg.Issuer == nil || cfg.State == nil || cfg.Logger == nil:
		return nil, errors.New("enrolment: Issuer, State and Logger are required")
	case cfg.Lifetime < MinLifetime:
		return nil, fmt.Errorf("enrolment: lifetime: %v, want at least %v", cfg.Lifetime, MinLifetime)
	}
	if err := pki.CheckTrustDomain(cfg.TrustDomain); err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	return &Service{
		cfg: cfg, log: cfg.Logger,
		callers:  newLimiter(enrolEvery, enrolBurst),
		renewals: newLimiter(renewEvery, renewBurst),
	}, nil
}

// basis is what a certificate is issued for.
type basis struct {
	cluster string
	remote  string
	// credential names what was shown, for the log.
	credential string
	// token is the id of a join token, previous the serial number of the
	// certificate before; empty otherwise.
	token, previous string
}

// issue signs, remembers and returns a certificate.
func (s *Service) issue(request *pki.Request, b basis) (*pki.Issued, error) {
	issued, err := s.cfg.Issuer.SignAgent(request.Key, s.cfg.TrustDomain, b.cluster, s.cfg.Lifetime)
	if err != nil {
		return nil, err
	}
	cert := issued.Certificate
	// Whoever signs, nobody gets a certificate of another cluster from here.
	if name, err := pki.ClusterOf(cert, s.cfg.TrustDomain); err != nil || name != b.cluster {
		return nil, errors.Join(fmt.Errorf("the issuer made a certificate of %q where one of %q is wanted", name, b.cluster), err)
	}
	// Before the agent gets it: a revocation that came meanwhile bites here.
	err = s.cfg.State.RecordCertificate(store.Certificate{
		Cluster: b.cluster, Serial: store.SerialOf(cert.SerialNumber),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Issued: time.Now(),
		Token: b.token, Previous: b.previous,
	})
	if err != nil {
		return nil, err
	}
	if len(request.Ignored) > 0 {
		s.log.Warn("certificate request asked for more than a certificate for its key, which is ignored",
			"cluster", b.cluster, "remote", b.remote, "ignored", request.Ignored)
	}
	return issued, nil
}

// answer is what an agent keeps.
func (s *Service) answer(issued *pki.Issued, cluster string) *culvertv1.EnrollResponse {
	return &culvertv1.EnrollResponse{Outcome: &culvertv1.EnrollResponse_Issued{Issued: &culvertv1.IssuedCertificate{
		CertificateChain: issued.PEM, HubCa: s.cfg.HubCA(), TrustDomain: s.cfg.TrustDomain, Cluster: cluster,
	}}}
}
