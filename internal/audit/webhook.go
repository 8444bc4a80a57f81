package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// HeaderBatch is an id of a batch. It stays the same when the batch is sent
// again, so that a server which already has it can tell.
const HeaderBatch = "Culvert-Audit-Batch"

const (
	// maxAnswer is what is read of an answer, in bytes.
	maxAnswer = 4 << 10
	// maxToken bounds a token file, in bytes.
	maxToken = 64 << 10
)

// webhook posts lines to a server. One goroutine uses it.
type webhook struct {
	cfg     WebhookConfig
	size    int
	timeout time.Duration
	run     string

	client *http.Client // nil until the next batch, and after a failure
	number int
	// pending is how many bytes the batch has that is to be sent again.
	pending int
}

func newWebhook(cfg WebhookConfig) *webhook {
	return &webhook{
		cfg: cfg, size: int(orSize(cfg.BatchSize, DefaultBatchSize)), timeout: orDuration(cfg.Timeout, DefaultTimeout), run: rand.Text(),
	}
}

// write implements sink: it posts one batch.
func (w *webhook) write(ctx context.Context, p []byte) (int, error) {
	if w.pending == 0 {
		w.pending = len(fitting(p, int64(w.size)))
		w.number++
	}
	batch := p[:w.pending]
	err := w.post(ctx, batch)
	if _, refused := errors.AsType[*refusedError](err); err != nil && !refused {
		w.drop()
		return 0, err
	}
	w.pending = 0
	return len(batch), err
}

// drop makes the next attempt begin with a new connection and with what the
// files say then.
func (w *webhook) drop() {
	if w.client != nil {
		w.client.CloseIdleConnections()
		w.client = nil
	}
}

func (w *webhook) post(ctx context.Context, batch []byte) error {
	if w.client == nil {
		client, err := w.connect()
		if err != nil {
			return err
		}
		w.client = client
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(batch))
	if err != nil {
		return withoutURL(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("User-Agent", "culvert")
	r.Header.Set(HeaderBatch, w.run+"-"+strconv.Itoa(w.number))
	if w.cfg.TokenFile != "" {
		token, err := readToken(w.cfg.TokenFile)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return withoutURL(err)
	}
	// The status alone counts; the rest is read so that the connection lives.
	_, readErr := io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	if err := errors.Join(readErr, answer.Body.Close()); err != nil && answer.StatusCode/100 != 2 {
		return fmt.Errorf("status %d: %w", answer.StatusCode, err)
	}
	return verdict(answer)
}

// verdict says what a status means for a batch.
func verdict(answer *http.Response) error {
	switch status := answer.StatusCode; status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return &refusedError{fmt.Errorf("the server refused the batch with status %d", status)}
	default:
		if status/100 == 2 {
			return nil
		}
		err := fmt.Errorf("the server answered status %d", status)
		if seconds, parseErr := strconv.Atoi(answer.Header.Get("Retry-After")); parseErr == nil && seconds > 0 {
			return &laterError{err: err, after: time.Duration(min(seconds, int(maxPause/time.Second))) * time.Second}
		}
		return err
	}
}

// connect makes a client with what the files have now.
func (w *webhook) connect() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if w.cfg.CAFile != "" {
		pem, err := os.ReadFile(w.cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("webhook.caFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("webhook.caFile: %s has no certificate", w.cfg.CAFile)
		}
	}
	if w.cfg.CertFile != "" {
		certificate, err := tls.LoadX509KeyPair(w.cfg.CertFile, w.cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("webhook.certFile, webhook.keyFile: %w", err)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		// What another server would get is not only events but the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// readToken reads a token that may have white space around it.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("webhook.tokenFile: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("webhook.tokenFile: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return "", fmt.Errorf("webhook.tokenFile: %s has no token: want one word of ASCII", path)
	}
	return token, nil
}

// withoutURL leaves the URL out of an error: its query may have a key.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func (w *webhook) close() error {
	w.drop()
	return nil
}
