package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	// keysInterval is how long an issuer's answer is used again. Without it, each
	// token with an invented key name would be one request to the issuer.
	keysInterval = time.Second
	// maxComplaint bounds what is kept of an answer that is not 200, in bytes.
	maxComplaint = 256
)

// issuerTransport carries all that is fetched for one issuer: over verified TLS
// alone, since its keys come this way, and bounded in size. It is safe for
// concurrent use.
type issuerTransport struct {
	next     *http.Transport
	interval time.Duration

	mu      sync.Mutex
	failure error // of the newest request; nil when it was answered with 200
	url     string
	at      time.Time
	answer  http.Response // without a body
	body    []byte
}

// newIssuerTransport trusts the CAs in bundle, PEM; those of the system where it is
// empty.
func newIssuerTransport(bundle string, dial dialFunc) (*issuerTransport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if bundle != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(bundle)) {
			return nil, errors.New("has no certificate in PEM")
		}
	}
	next := utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: config, DialContext: dial})
	return &issuerTransport{next: next, interval: keysInterval}, nil
}

// WrappedRoundTripper lets k8s.io/apimachinery find the connections below.
func (t *issuerTransport) WrappedRoundTripper() http.RoundTripper { return t.next }

// RoundTrip implements http.RoundTripper.
func (t *issuerTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	repeatable := request.Method == http.MethodGet && request.Header.Get(headerAuthorization) == ""
	if repeatable {
		if response := t.again(request); response != nil {
			return response, nil
		}
	}
	response, body, err := t.fetch(request)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		t.failure = err
		return nil, err
	case response.StatusCode == http.StatusOK:
		t.failure = nil
		if repeatable {
			t.url, t.at, t.answer, t.body = request.URL.String(), time.Now(), *response, body
			t.answer.Body, t.answer.Request = nil, nil
		}
	case response.StatusCode >= http.StatusBadRequest:
		t.failure = fmt.Errorf("answered with status %d", response.StatusCode)
	}
	return response, nil
}

// again returns the last answer where it is of the same request and still new.
func (t *issuerTransport) again(request *http.Request) *http.Response {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.url != request.URL.String() || time.Since(t.at) >= t.interval {
		return nil
	}
	response := t.answer
	response.Header = t.answer.Header.Clone()
	response.Body, response.Request = io.NopCloser(bytes.NewReader(t.body)), request
	return &response
}

func (t *issuerTransport) fetch(request *http.Request) (*http.Response, []byte, error) {
	// Also what an answer redirects to comes here.
	if request.URL.Scheme != "https" {
		return nil, nil, errors.New("an address that is not https was named: keys are not fetched in clear text")
	}
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxAnswer {
		return nil, nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if response.StatusCode != http.StatusOK {
		body = body[:min(len(body), maxComplaint)] // it comes to be logged
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, body, nil
}

// lastFailure returns why the newest request failed; nil when it did not.
func (t *issuerTransport) lastFailure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failure
}

func (t *issuerTransport) close() { t.next.CloseIdleConnections() }
