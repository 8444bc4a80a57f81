package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/upstream"
)

// StateSecret names a Secret that keeps what the agents of a Deployment share: a
// certificate, its key and the hub's CAs. It has to be there; it may be empty.
type StateSecret struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// User is whom the agent acts as when it reads and writes the Secret, so that its
	// own account needs no right but to impersonate. It begins with
	// "system:culvert:", which no caller of the hub can become. Default: the account
	// itself, which then needs get and patch.
	User string `json:"user,omitempty"`
}

// stateUserPrefix begins the names of users that agents are for themselves. The
// agent acts for nobody whose name begins with "system:" when the hub asks for it.
const stateUserPrefix = "system:culvert:"

func (c *Config) stateSecretProblems() []error {
	s := c.StateSecret
	if s == nil {
		return nil
	}
	var problems []error
	if c.State != "" || c.operator() {
		problems = append(problems, errors.New("stateSecret: not together with state, cert, key or certDir: the certificate is in one place"))
	}
	for _, reason := range validation.IsDNS1123Label(s.Namespace) {
		problems = append(problems, fmt.Errorf("stateSecret.namespace: %.64q: %s", s.Namespace, reason))
	}
	for _, reason := range validation.IsDNS1123Subdomain(s.Name) {
		problems = append(problems, fmt.Errorf("stateSecret.name: %.64q: %s", s.Name, reason))
	}
	if s.User != "" && (!strings.HasPrefix(s.User, stateUserPrefix) || s.User == stateUserPrefix) {
		problems = append(problems, fmt.Errorf("stateSecret.user: %.64q does not begin with %q and a name: callers of the hub could become it", s.User, stateUserPrefix))
	}
	return problems
}

const (
	// secretTime bounds one request about the Secret.
	secretTime = 10 * time.Second
	// secretLook is how often the Secret is asked for what another agent has saved.
	secretLook = 30 * time.Second
	// fileJoinKey is the key that agents join with, until one of them has.
	fileJoinKey = "join.key"
	// secretManager owns the fields in the API server's records.
	secretManager = "culvert-agent"
)

// secretState is a Secret of Kubernetes. The name of what it has is its
// resourceVersion, so that the API server refuses a change of something older.
type secretState struct {
	name   types.NamespacedName
	client *rest.RESTClient

	mu     sync.Mutex // guards what follows
	looked time.Time  // when seen was current
	seen   string
	loaded string // what load has found
}

func newSecretState(cfg Config) (*secretState, error) {
	kubernetes := cfg.Kubernetes
	if kubernetes == nil {
		var err error
		if kubernetes, err = upstream.LoadKubernetes(cfg.Kubeconfig, cfg.Context); err != nil {
			return nil, fmt.Errorf("state secret: %w", err)
		}
	}
	kubernetes = rest.CopyConfig(kubernetes)
	kubernetes.Timeout = secretTime
	kubernetes.Impersonate = rest.ImpersonationConfig{UserName: cfg.StateSecret.User}
	kubernetes.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	client, err := rest.UnversionedRESTClientFor(kubernetes)
	if err != nil {
		return nil, fmt.Errorf("state secret: %w", err)
	}
	return &secretState{name: types.NamespacedName{Namespace: cfg.StateSecret.Namespace, Name: cfg.StateSecret.Name}, client: client}, nil
}

func (s *secretState) where() string { return "secret " + s.name.String() }

func (s *secretState) rejoin() string {
	return "let the agents start with that token: in the chart it is join.token"
}

// path is that of the Secret at the API server.
func (s *secretState) path() string {
	return "/api/v1/namespaces/" + s.name.Namespace + "/secrets/" + s.name.Name
}

// get reads the Secret.
func (s *secretState) get() (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(context.Background(), secretTime)
	defer cancel()
	return s.answer(s.client.Get().AbsPath(s.path()).DoRaw(ctx))
}

// answer reads what the API server has said, without anything of the Secret in an
// error.
func (s *secretState) answer(raw []byte, err error) (*corev1.Secret, error) {
	if err != nil {
		return nil, fmt.Errorf("state: %s: %w%s", s.where(), err, explainSecret(err))
	}
	var secret corev1.Secret
	if err := json.Unmarshal(raw, &secret); err != nil {
		return nil, fmt.Errorf("state: %s: the API server's answer is no Secret", s.where())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked, s.seen = time.Now(), secret.ResourceVersion
	return &secret, nil
}

// explainSecret is the remedy for what an owner can mend.
func explainSecret(err error) string {
	switch {
	case apierrors.IsNotFound(err):
		return ": create it, empty"
	case apierrors.IsForbidden(err):
		return ": stateSecret.user needs get and patch for it, and the agent's account to impersonate that user"
	}
	return ""
}

// current implements vault. The API server is asked once in a while, and what it
// does not answer changes nothing.
func (s *secretState) current() (string, error) {
	s.mu.Lock()
	looked, seen := s.looked, s.seen
	s.mu.Unlock()
	if time.Since(looked) < secretLook {
		return seen, nil
	}
	secret, err := s.get()
	if err == nil {
		return secret.ResourceVersion, nil
	}
	s.mu.Lock()
	s.looked = time.Now() // not at each handshake
	s.mu.Unlock()
	return seen, nil // that the API server is away is reported by who asks it for more
}

// load implements vault.
func (s *secretState) load() (*identity, error) {
	secret, err := s.get()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.loaded = secret.ResourceVersion
	s.mu.Unlock()
	if len(secret.Data[fileCert]) == 0 {
		return nil, fmt.Errorf("state: %s: %w", s.where(), errNoState)
	}
	var about info
	if err := json.Unmarshal(secret.Data[fileInfo], &about); err != nil {
		return nil, fmt.Errorf("state: %s: %s: %w", s.where(), fileInfo, err)
	}
	id, err := newIdentity(about, secret.Data[fileCert], secret.Data[fileKey], secret.Data[fileCA])
	if err != nil {
		return nil, fmt.Errorf("state: %s: damaged: %w", s.where(), err)
	}
	id.generation = secret.ResourceVersion
	return id, nil
}

// save implements vault.
func (s *secretState) save(id *identity, basis string) error {
	about, err := json.Marshal(id.info)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	secret, err := s.patch(basis, map[string][]byte{
		fileCert: id.chain, fileKey: id.key, fileCA: id.ca, fileInfo: about, fileJoinKey: nil,
	})
	if err != nil {
		return err
	}
	id.generation = secret.ResourceVersion
	return nil
}

// errJoinedMeanwhile says that another agent has changed the vault since it was
// loaded, so that it has to be loaded again.
var errJoinedMeanwhile = errors.New("another agent joins, too")

// joinKey implements vault. Agents that start together have one join token, which
// is good for one key: the first of them writes its key down before it uses it. So
// one that ends in between, too, leaves behind what the next one joins with.
func (s *secretState) joinKey(fresh []byte) ([]byte, error) {
	secret, err := s.get()
	if err != nil {
		return nil, err
	}
	if key := secret.Data[fileJoinKey]; len(key) > 0 {
		return key, nil
	}
	s.mu.Lock()
	loaded := s.loaded
	s.mu.Unlock()
	_, err = s.patch(loaded, map[string][]byte{fileJoinKey: fresh})
	if apierrors.IsConflict(err) {
		return nil, errJoinedMeanwhile
	}
	return fresh, err
}

// patch changes the entries of the Secret, and removes those that are nil. With a
// basis the API server does so only as long as it is what is there.
func (s *secretState) patch(basis string, entries map[string][]byte) (*corev1.Secret, error) {
	change := map[string]any{"data": entries}
	if basis != "" {
		change["metadata"] = map[string]string{"resourceVersion": basis}
	}
	body, err := json.Marshal(change)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), secretTime)
	defer cancel()
	secret, err := s.answer(s.client.Patch(types.MergePatchType).AbsPath(s.path()).
		Param("fieldManager", secretManager).Body(body).DoRaw(ctx))
	if apierrors.IsConflict(err) {
		s.mu.Lock()
		s.looked = time.Time{}
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: was changed by another agent", err)
	}
	return secret, err
}
