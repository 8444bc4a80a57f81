package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/enrol"
	"github.com/culvertdev/culvert/internal/outbound"
	"github.com/culvertdev/culvert/internal/pki"
	"github.com/culvertdev/culvert/internal/route"
	"github.com/culvertdev/culvert/internal/version"
)

// JoinConfig says with what an agent joins. Exactly one of Token and
// ServiceAccountTokenFile is set.
type JoinConfig struct {
	// Token is the text of a join token, a secret.
	Token string
	// ServiceAccountTokenFile holds a token of a Kubernetes service account, read
	// once. Config.Hub and Config.HubCA are needed with it.
	ServiceAccountTokenFile string
	// Cluster is the one to join as, needed where the hub's rules allow the service
	// account several. A certificate of another cluster is refused.
	Cluster string
	// Force replaces what the state folder has.
	Force bool
	// AcceptTimeout is how long to wait until the cluster is accepted at the hub.
	// Default an hour.
	AcceptTimeout time.Duration
}

// String is for people; the token is not shown.
func (c JoinConfig) String() string {
	return fmt.Sprintf("{cluster:%s force:%v}", c.Cluster, c.Force)
}

// GoString implements [fmt.GoStringer]: the token is not shown.
func (c JoinConfig) GoString() string { return c.String() }

// maxAccountToken bounds the file of a service account's token, in bytes.
const maxAccountToken = 16 << 10

// Join makes a key, gets a certificate for it from the hub, and keeps both in
// Config.State or Config.StateSecret, where [New] finds them. Of cfg the hub, the state and the proxy
// count.
//
// A folder whose certificate is still good for the same hub and cluster is left as
// it is, so that a command line which joins can be run again; with another join
// token than that of the certificate the agent joins anew, and keeps what it has
// when the hub refuses. Anything else in the folder is an error without Force.
func Join(ctx context.Context, cfg Config, join JoinConfig) error {
	cfg = cfg.withDefaults()
	j := &joiner{cfg: cfg, join: join}
	err := j.prepare()
	if err == nil {
		j.vault, err = newVault(cfg)
	}
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	var before *identity
	for {
		var again bool
		if before, again, err = j.before(); err != nil {
			return fmt.Errorf("join: %w", err)
		}
		if before != nil && !again {
			cfg.Logger.Info("joined already", "cluster", before.Cluster, "hub", before.Hub, "state", j.vault.where(), "expires", timestamp(before.cert.Leaf.NotAfter))
			return nil
		}
		if err = j.enrol(ctx, before != nil); !errors.Is(err, errJoinedMeanwhile) || ctx.Err() != nil {
			break
		}
	}
	if err != nil && before != nil && ctx.Err() == nil {
		cfg.Logger.Warn("could not join anew, what was joined before goes on", "cluster", before.Cluster, "state", j.vault.where(),
			"expires", timestamp(before.cert.Leaf.NotAfter), "reason", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}

// joiner is one call of Join.
type joiner struct {
	cfg   Config
	join  JoinConfig
	vault vault

	token enrol.Token // zero without a join token
	hub   string
	roots pki.Roots // nil: the token's pins
}

// prepare reads and checks what was given, before anything is sent.
func (j *joiner) prepare() error {
	if err := j.cfg.Proxy.Validate(); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	if j.cfg.operator() {
		return errors.New("cert, key, certDir: not together with joining, which makes a certificate of its own")
	}
	if (j.join.Token == "") == (j.join.ServiceAccountTokenFile == "") {
		return errors.New("token, serviceAccountTokenFile: give one of them: a token is made by culvert token create at the hub")
	}
	if j.join.Cluster != "" {
		if err := route.CheckCluster(j.join.Cluster); err != nil {
			return err
		}
	}
	j.hub = j.cfg.Hub
	if j.join.Token == "" {
		return j.prepareAccount()
	}
	var err error
	if j.token, err = enrol.DecodeToken(j.join.Token); err != nil {
		return err
	}
	if j.join.Cluster == "" {
		j.join.Cluster = j.token.Cluster
	}
	if j.join.Cluster != j.token.Cluster {
		return fmt.Errorf("cluster: the join token is for %s and not for %s: make one with culvert token create --cluster %s", j.token.Cluster, j.join.Cluster, j.join.Cluster)
	}
	if j.hub == "" {
		j.hub = j.token.Hub
	}
	if j.token.System {
		j.roots, err = pki.SystemRoots()
	}
	return err
}

func (j *joiner) prepareAccount() error {
	var problems []error
	if j.hub == "" {
		problems = append(problems, errors.New("hub: required: the hub's host:port, which a service account's token does not say"))
	}
	if j.cfg.HubCA == "" {
		problems = append(problems, fmt.Errorf("hubCA: required: a PEM file that verifies the hub, which a service account's token does not, or %q for the CAs of this system", SystemCA))
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	if j.cfg.HubCA == SystemCA {
		var err error
		j.roots, err = pki.SystemRoots()
		return err
	}
	bundle, err := pki.LoadBundle(j.cfg.HubCA, pki.WithLogger(j.cfg.Logger), pki.WithName(nameHubCA))
	if err != nil {
		return fmt.Errorf("hubCA: %w", err)
	}
	j.roots = bundle
	return nil
}

// before returns what the folder has that can be used, nil for nothing, and
// whether to join all the same.
func (j *joiner) before() (id *identity, again bool, err error) {
	id, err = j.vault.load()
	switch {
	case errors.Is(err, errNoState), err != nil && j.join.Force:
		return nil, true, nil
	case err != nil:
		return nil, false, fmt.Errorf("%w: with --force it is replaced", err)
	case j.join.Force:
		return nil, true, nil
	case id.Hub != j.hub || j.join.Cluster != "" && id.Cluster != j.join.Cluster:
		return nil, false, fmt.Errorf("%s belongs to cluster %s at hub %s already: give another --state, or --force to replace it", j.vault.where(), id.Cluster, id.Hub)
	}
	if expired := checkDates(id, j.vault, time.Now()); expired != nil {
		j.cfg.Logger.Info("joining anew", "cluster", id.Cluster, "reason", expired)
		return nil, true, nil
	}
	return id, j.token.ID != "" && j.token.ID != id.Token, nil
}

// enrol gets a certificate and saves it. Once means that a hub which does not
// answer is not tried again.
func (j *joiner) enrol(ctx context.Context, once bool) error {
	log := j.cfg.Logger
	way, err := outbound.New(j.cfg.Proxy, log)
	if err != nil {
		return err
	}
	key, keyPEM, err := j.key()
	if err != nil {
		return err
	}
	cfg := enrol.JoinConfig{
		Hub: j.hub, HubName: j.cfg.HubName, Pins: j.token.Pins, Roots: j.roots,
		TokenID: j.token.ID, TokenSecret: j.token.Secret, Cluster: j.join.Cluster,
		Version: version.String(), Key: key, Dial: way.DialContext, AcceptTime: j.join.AcceptTimeout, Logger: log,
	}
	if once {
		cfg.RetryTime = -1
	}
	if file := j.join.ServiceAccountTokenFile; file != "" {
		if cfg.ServiceAccountToken, err = readAccountToken(file); err != nil {
			return err
		}
	}
	got, err := enrol.Join(ctx, cfg)
	if err != nil {
		return err
	}
	id, err := newIdentity(info{
		Hub: j.hub, HubName: j.cfg.HubName, Cluster: got.Cluster, TrustDomain: got.TrustDomain,
		SystemRoots: len(got.HubCA) == 0, Token: j.token.ID,
	}, got.Chain, keyPEM, got.HubCA)
	if err != nil {
		return err
	}
	if err := j.vault.save(id, ""); err != nil {
		return err
	}
	log.Info("joined", "cluster", id.Cluster, "hub", id.Hub, "state", j.vault.where(), "expires", timestamp(got.Leaf.NotAfter))
	return nil
}

// key is the one to join with.
func (j *joiner) key() (crypto.Signer, []byte, error) {
	fresh, err := pki.NewKey()
	if err != nil {
		return nil, nil, err
	}
	text, err := pki.EncodeKey(fresh)
	if err != nil {
		return nil, nil, err
	}
	if text, err = j.vault.joinKey(text); err != nil {
		return nil, nil, err
	}
	key, err := pki.DecodeKey(text)
	return key, text, err
}

// readAccountToken never has anything of the token in its errors.
func readAccountToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("serviceAccountTokenFile: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxAccountToken+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("serviceAccountTokenFile: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(text) > maxAccountToken {
		return "", fmt.Errorf("serviceAccountTokenFile: %s: empty, or too long to be a token", path)
	}
	return token, nil
}
