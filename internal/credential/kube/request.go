package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/culvertdev/culvert/internal/answer"
	"github.com/culvertdev/culvert/internal/credential"
)

const (
	// requestTime bounds one request for a token.
	requestTime = 30 * time.Second
	// maxAnswer bounds its answer, in bytes.
	maxAnswer = 1 << 20
)

// Request asks a Kubernetes cluster for a bound token of a service account that
// expires (TokenRequest,
// https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/).
// Who asks needs the right to create serviceaccounts/token there.
type Request struct {
	// Cluster says how the cluster is reached, and as whom.
	Cluster func(ctx context.Context) (*rest.Config, error)
	// ID names the cluster and who asks, for Key.
	ID string
	// Namespace and Name are those of the service account.
	Namespace, Name string
	// Audiences are whom the token is for; none for the API server itself.
	Audiences []string
	// Duration is how long it lasts; 0 leaves that to the cluster. The cluster may
	// give a longer or a shorter one.
	Duration time.Duration
}

// Key implements [credential.Source].
func (r Request) Key() string {
	return strings.Join(append([]string{"request", r.ID, r.Namespace, r.Name, r.Duration.String()}, r.Audiences...), "\x00")
}

// Fetch implements [credential.Source].
func (r Request) Fetch(ctx context.Context) (credential.Token, error) {
	token, err := r.fetch(ctx)
	if err != nil {
		return credential.Token{}, fmt.Errorf("request a token of service account %s/%s: %w", r.Namespace, r.Name, err)
	}
	return token, nil
}

func (r Request) fetch(ctx context.Context) (credential.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	how, err := r.Cluster(ctx)
	if err != nil {
		return credential.Token{}, err
	}
	// A function of its own keeps client-go from sharing the transport.
	own := rest.CopyConfig(how)
	if own.Proxy == nil {
		own.Proxy = http.ProxyFromEnvironment
	}
	client, err := rest.HTTPClientFor(own)
	if err != nil {
		return credential.Token{}, err
	}
	defer client.CloseIdleConnections()
	ask := authenticationv1.TokenRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest"},
		Spec:     authenticationv1.TokenRequestSpec{Audiences: r.Audiences},
	}
	if r.Duration > 0 {
		seconds := int64((r.Duration + time.Second - 1) / time.Second)
		ask.Spec.ExpirationSeconds = &seconds
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return credential.Token{}, err
	}
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", url.PathEscape(r.Namespace), url.PathEscape(r.Name))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(own.Host, "/")+path, bytes.NewReader(body))
	if err != nil {
		return credential.Token{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	now := time.Now()
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return credential.Token{}, &CallError{err}
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return credential.Token{}, &CallError{err}
	}
	if res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusOK {
		return credential.Token{}, refusal(res, text)
	}
	var got authenticationv1.TokenRequest
	if err := json.Unmarshal(text, &got); err != nil {
		return credential.Token{}, errors.New("the answer is no TokenRequest")
	}
	token, err := credential.ParseToken([]byte(got.Status.Token), now)
	if err != nil {
		return credential.Token{}, fmt.Errorf("the answer's token: %w", err)
	}
	if !got.Status.ExpirationTimestamp.IsZero() {
		token.Expires = got.Status.ExpirationTimestamp.UTC()
	}
	return token, nil
}

// refusal is what the cluster, or the hub before it, said.
func refusal(res *http.Response, text []byte) error {
	return fmt.Errorf("%s: %w", res.Status, answer.Read(res, text))
}

// CallError says why the cluster could not be asked.
type CallError struct{ Err error }

// Error says what is wrong.
func (e *CallError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

// ParseAccount reads NAMESPACE/NAME of a service account.
func ParseAccount(text string) (namespace, name string, err error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q: want NAMESPACE/NAME of a service account", text)
	}
	return namespace, name, nil
}
