package identity

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/culvertdev/culvert/internal/fault"
)

const saName = "system:serviceaccount:open-cluster-management-hub:test-sa"

// backend speaks the TokenReview API, version v1, over HTTPS. It knows the token
// "good" of saName for the audience "hub"; answer replaces what it says.
type backend struct {
	requests atomic.Int64
	mu       sync.Mutex
	tokens   map[string]int
	answer   http.HandlerFunc
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.requests.Add(1)
	var review authenticationv1.TokenReview
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &review) != nil ||
		r.Method != http.MethodPost || r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" {
		http.Error(w, "not a token review", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(&readOnce{data: body})
	b.mu.Lock()
	if b.tokens == nil {
		b.tokens = map[string]int{}
	}
	b.tokens[review.Spec.Token]++
	answer := b.answer
	b.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	if review.Spec.Token == "good" && (len(review.Spec.Audiences) == 0 || slices.Contains(review.Spec.Audiences, "hub")) {
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{
			Username: saName, UID: "uid-1", Groups: []string{"system:serviceaccounts", "system:authenticated"},
			Extra: map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/credential-id": {"JTI=1"}},
		}}
		if len(review.Spec.Audiences) > 0 {
			review.Status.Audiences = []string{"hub"}
		}
	} else {
		// A kube-apiserver puts the reason here, and echoes spec with the token.
		review.Status.Error = "[invalid bearer token, token lookup failed]"
	}
	writeReview(w, review.Spec, review.Status)
}

func (b *backend) say(answer http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// readOnce is the request's body again, for an answer that looks at it.
type readOnce struct{ data []byte }

func (r *readOnce) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func writeReview(w http.ResponseWriter, spec authenticationv1.TokenReviewSpec, status authenticationv1.TokenReviewStatus) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(authenticationv1.TokenReview{
		TypeMeta: metav1.TypeMeta{Kind: "TokenReview", APIVersion: "authentication.k8s.io/v1"},
		Spec:     spec, Status: status,
	})
}

// writeStatus answers as a kube-apiserver does when it fails.
func writeStatus(code int, reason metav1.StatusReason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
		})
	}
}

// as answers that every token is of user.
func as(user authenticationv1.UserInfo) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		writeReview(w, authenticationv1.TokenReviewSpec{}, authenticationv1.TokenReviewStatus{Authenticated: true, User: user})
	}
}

// startBackend serves b over HTTPS on a port of its own and returns its address
// and a kubeconfig for it.
func startBackend(t *testing.T, b *backend) (server *httptest.Server, kubeconfig string) {
	t.Helper()
	server = httptest.NewUnstartedServer(b)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, writeKubeconfig(t, &clientcmdapi.Cluster{Server: server.URL, CertificateAuthorityData: certPEM(server)})
}

func certPEM(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

func writeKubeconfig(t *testing.T, cluster *clientcmdapi.Cluster) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["hub"] = cluster
	config.AuthInfos["hub"] = &clientcmdapi.AuthInfo{Token: "own-credential-of-the-hub"}
	config.Contexts["hub"] = &clientcmdapi.Context{Cluster: "hub", AuthInfo: "hub"}
	config.CurrentContext = "hub"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeTokenFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens.csv")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func startChain(t testing.TB, cfg Config) *Chain {
	t.Helper()
	chain, err := New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chain.Close)
	return chain
}

func request(ctx context.Context, authorization ...string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "https://hub/edge-1/api/v1/pods", nil)
	for _, value := range authorization {
		r.Header.Add("Authorization", value)
	}
	return r
}

// wantStatus checks that err is a fault of the hub with that HTTP status.
func wantStatus(t *testing.T, err error, status int) *fault.Error {
	t.Helper()
	f := fault.As(err)
	if f == nil || f.HTTPStatus() != status || f.Hop.String() != "hub" {
		t.Fatalf("got %v, want a fault of the hub with status %d", err, status)
	}
	return f
}

// pipeListener accepts what dial makes, all in memory, so that a server and its
// clients can live in one synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func wantStatusOf(err error) int {
	if f := fault.As(err); f != nil {
		return f.HTTPStatus()
	}
	return http.StatusInternalServerError
}
