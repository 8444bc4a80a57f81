package agent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/telemetry"
)

// Health is the state of something that an agent keeps current by itself: its
// certificate, the hub's CAs. It holds nothing secret.
type Health = telemetry.Health

// SystemCA as Config.HubCA stands for the CAs that the operating system trusts.
const SystemCA = "system"

// trust is what an agent shows to the hub, and what it believes. Its methods are
// safe for concurrent use; what they return is what is in force at that moment.
type trust interface {
	// hub is the address of the hub, and the name in its certificate.
	hub() (address, name string)
	// certificate is the agent's.
	certificate() *tls.Certificate
	// roots are what the hub's certificate must come from.
	roots() *x509.CertPool
	// reload reads the files now.
	reload() error
	// health says what is in force.
	health() []Health
}

// newTrust reads what cfg names.
func newTrust(cfg Config) (trust, error) {
	if cfg.operator() {
		return newFileTrust(cfg)
	}
	return newStateTrust(cfg)
}

// hubRoots are the CAs of a file, or the system's.
type hubRoots struct {
	bundle *pki.Bundle // nil: the system's
	system pki.Roots
}

func loadHubRoots(file string, log *slog.Logger) (*hubRoots, error) {
	if file == SystemCA {
		system, err := pki.SystemRoots()
		if err != nil {
			return nil, fmt.Errorf("hub CA: %w", err)
		}
		return &hubRoots{system: system}, nil
	}
	bundle, err := pki.LoadBundle(file, pki.WithLogger(log), pki.WithName(nameHubCA))
	if err != nil {
		return nil, fmt.Errorf("hub CA: %w", err)
	}
	return &hubRoots{bundle: bundle}, nil
}

func (r *hubRoots) pool() *x509.CertPool {
	if r.bundle == nil {
		return r.system.Pool()
	}
	return r.bundle.Pool()
}

// reload reads the file again, or asks the system again.
func (r *hubRoots) reload() error {
	if r.bundle == nil {
		return nil // the process has what the system had at its start
	}
	return r.bundle.Reload()
}

func (r *hubRoots) health() []Health {
	if r.bundle == nil {
		return nil
	}
	return []Health{healthOf(r.bundle.Status())}
}

// What health and log lines call things.
const (
	nameCertificate = "agent certificate"
	nameHubCA       = "hub CA"
)

func healthOf(s pki.Status) Health {
	h := Health{Name: s.Name, Subject: s.Subject, NotAfter: s.NotAfter, LastError: s.Err, Failures: uint64(max(s.Failures, 0))}
	if len(s.Files) > 0 {
		h.File = s.Files[0]
	}
	return h
}

// fileTrust are files of an operator, or of a tool such as cert-manager, which
// are followed.
type fileTrust struct {
	cfg  Config
	pair *pki.KeyPair
	ca   *hubRoots
}

func newFileTrust(cfg Config) (*fileTrust, error) {
	t := &fileTrust{cfg: cfg}
	var err error
	t.pair, err = pki.LoadPair(pki.Source{CertFile: cfg.Cert, KeyFile: cfg.Key, Dir: cfg.CertDir},
		pki.WithLogger(cfg.Logger), pki.WithName(nameCertificate))
	if err != nil {
		return nil, fmt.Errorf("agent certificate: %w", explainExpired(err))
	}
	ca := cfg.HubCA
	if ca == "" {
		ca = filepath.Join(cfg.CertDir, fileCA)
	}
	if t.ca, err = loadHubRoots(ca, cfg.Logger); err != nil {
		return nil, err
	}
	return t, nil
}

// explainExpired adds what mends a certificate that nobody renews here.
func explainExpired(err error) error {
	expired, ok := errors.AsType[*pki.ExpiredError](err)
	if !ok {
		return err
	}
	whose := expired.Certificate.Subject.CommonName
	if uris := expired.Certificate.URIs; len(uris) > 0 {
		whose = uris[0].String()
	}
	return fmt.Errorf("%w (it is of %q): whoever made it has to replace it, or let the hub do so: culvert token create there, then culvert-agent join --token here", err, whose)
}

func (t *fileTrust) hub() (address, name string) { return t.cfg.Hub, t.cfg.HubName }

func (t *fileTrust) certificate() *tls.Certificate {
	cert, err := t.pair.GetClientCertificate(nil)
	if err != nil { // never, as its documentation says
		return &tls.Certificate{}
	}
	return cert
}

func (t *fileTrust) roots() *x509.CertPool { return t.ca.pool() }

func (t *fileTrust) reload() error { return errors.Join(t.pair.Reload(), t.ca.reload()) }

func (t *fileTrust) health() []Health {
	return append([]Health{healthOf(t.pair.Status())}, t.ca.health()...)
}

// stateTrust is a vault that an agent has joined from: a state folder or a Secret.
// What another process saves there is taken up at the next handshake.
type stateTrust struct {
	cfg   Config
	vault vault
	log   *slog.Logger
	// override takes the place of the hub's CAs in the folder; nil: it does not.
	override *hubRoots

	current atomic.Pointer[identity]

	mu       sync.Mutex // guards what follows; held while the folder is read
	problem  string     // why the folder could not be read
	failures uint64

	renewals, bundles attempts
}

func newStateTrust(cfg Config) (*stateTrust, error) {
	v, err := newVault(cfg)
	if err != nil {
		return nil, err
	}
	t := &stateTrust{cfg: cfg, vault: v, log: cfg.Logger}
	id, err := v.load()
	if errors.Is(err, errNoState) {
		return nil, fmt.Errorf("%w: join with culvert-agent join --token TOKEN, with a token of culvert token create at the hub, or give a certificate with --cert-dir, or --cert and --key", err)
	}
	if err != nil {
		return nil, err
	}
	if err := checkDates(id, v, time.Now()); err != nil {
		return nil, err
	}
	if cfg.HubCA != "" {
		if t.override, err = loadHubRoots(cfg.HubCA, cfg.Logger); err != nil {
			return nil, err
		}
	}
	t.current.Store(id)
	return t, nil
}

// checkDates explains a certificate that cannot be used now.
func checkDates(id *identity, v vault, now time.Time) error {
	leaf := id.cert.Leaf
	switch {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate of cluster %s in %s is not valid before %s: check this machine's clock",
			id.Cluster, v.where(), timestamp(leaf.NotBefore))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate of cluster %s in %s expired at %s, and an expired one cannot be renewed: run culvert token create --cluster %s at the hub, and then %s",
			id.Cluster, v.where(), timestamp(leaf.NotAfter), id.Cluster, v.rejoin())
	}
	return nil
}

func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// now returns what is in force, after a look whether the folder has changed.
func (t *stateTrust) now() *identity {
	id := t.current.Load()
	if generation, err := t.vault.current(); err == nil && generation == id.generation {
		return id
	}
	if err := t.reload(); err != nil {
		return id // it was reported
	}
	return t.current.Load()
}

func (t *stateTrust) hub() (address, name string) {
	id := t.now()
	address, name = id.Hub, id.HubName
	if t.cfg.Hub != "" {
		address, name = t.cfg.Hub, ""
	}
	if t.cfg.HubName != "" {
		name = t.cfg.HubName
	}
	return address, name
}

func (t *stateTrust) certificate() *tls.Certificate { return t.now().cert }

func (t *stateTrust) roots() *x509.CertPool {
	if t.override != nil {
		return t.override.pool()
	}
	return t.now().roots.Pool()
}

// reload reads the folder. What cannot be used leaves what was there before in
// force, and is reported once.
func (t *stateTrust) reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	id, err := t.vault.load()
	if err == nil {
		err = checkDates(id, t.vault, time.Now())
	}
	if err != nil {
		if t.problem != err.Error() {
			t.problem = err.Error()
			t.failures++
			t.log.Error("changed files cannot be used, what was loaded before stays in force", "what", nameCertificate, "files", []string{t.vault.where()}, "err", err)
		}
		return err
	}
	t.problem = ""
	if before := t.current.Swap(id); before.generation != id.generation {
		t.log.Info("reloaded from files", "what", nameCertificate, "files", []string{t.vault.where()}, "expires", timestamp(id.cert.Leaf.NotAfter))
	}
	if t.override != nil {
		return t.override.reload()
	}
	return nil
}

// replace saves id in the place of before and puts it in force.
func (t *stateTrust) replace(before, id *identity) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.vault.save(id, before.generation); err != nil {
		return err
	}
	t.problem = ""
	t.current.Store(id)
	return nil
}

func (t *stateTrust) health() []Health {
	id := t.now()
	t.mu.Lock()
	problem, failures := t.problem, t.failures
	t.mu.Unlock()
	cert := Health{
		Name: nameCertificate, File: filepath.Join(t.vault.where(), fileCert), Subject: pki.AgentID(id.TrustDomain, id.Cluster),
		NotAfter: id.cert.Leaf.NotAfter, LastError: problem, Failures: failures + t.renewals.count(),
	}
	if cert.LastError == "" {
		cert.LastError = t.renewals.last()
	}
	if t.override != nil {
		return append([]Health{cert}, t.override.health()...)
	}
	ca := Health{Name: nameHubCA, File: filepath.Join(t.vault.where(), fileCA), LastError: t.bundles.last(), Failures: t.bundles.count()}
	for _, c := range id.cas {
		if c.NotAfter.After(ca.NotAfter) {
			ca.NotAfter, ca.Subject = c.NotAfter, c.Subject.String()
		}
	}
	if id.SystemRoots {
		ca.File, ca.Subject = "", "the system's"
	}
	return []Health{cert, ca}
}

// attempts remembers how something went. It is safe for concurrent use.
type attempts struct {
	mu       sync.Mutex
	err      string
	failures uint64
}

// add records an outcome, and tells whether it is news.
func (a *attempts) add(err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		news := a.err != ""
		a.err = ""
		return news
	}
	a.failures++
	news := a.err != err.Error()
	a.err = err.Error()
	return news
}

func (a *attempts) last() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *attempts) count() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failures
}

// certificates returns those of a PEM text.
func certificates(text []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(found)+1, err)
		}
		found = append(found, cert)
	}
	return found, nil
}
