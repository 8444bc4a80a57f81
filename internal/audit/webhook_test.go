package audit

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// received is one post that a webhook's server got.
type received struct {
	text, batch, token, contentType string
}

// hook is a real server of audit events.
type hook struct {
	*httptest.Server
	caFile string

	mu     sync.Mutex
	posts  []received
	answer func(n int, w http.ResponseWriter)
}

func newHook(t *testing.T, answer func(n int, w http.ResponseWriter)) *hook {
	t.Helper()
	h := &hook{answer: answer}
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.posts = append(h.posts, received{string(body), r.Header.Get(HeaderBatch), r.Header.Get("Authorization"), r.Header.Get("Content-Type")})
		if h.answer != nil {
			h.answer(len(h.posts), w)
		}
	}))
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	h.StartTLS()
	t.Cleanup(h.Close)
	h.caFile = filepath.Join(t.TempDir(), "ca.crt")
	h.trust(t)
	return h
}

// trust writes the server's certificate for the log.
func (h *hook) trust(t *testing.T) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(h.caFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *hook) got() []received {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]received(nil), h.posts...)
}

func (h *hook) config() *WebhookConfig {
	return &WebhookConfig{URL: h.URL + "/audit?key=hidden-in-logs", CAFile: h.caFile, BatchWait: metav1.Duration{Duration: time.Millisecond}}
}

func flush(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.Flush(ctx); err != nil {
		t.Error(err)
	}
}

// await polls what nothing signals.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// lockedLog is a log that can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestWebhook(t *testing.T) {
	t.Run("N11: events arrive in batches of whole lines, in order, with the token that the file has then", func(t *testing.T) {
		h := newHook(t, nil)
		cfg := h.config()
		cfg.BatchSize = *resource.NewQuantity(LeastBatchSize, resource.BinarySI)
		cfg.BatchWait = metav1.Duration{Duration: time.Hour}
		cfg.TokenFile = filepath.Join(t.TempDir(), "token")
		for round, token := range []string{"first-token", "second-token"} {
			if err := os.WriteFile(cfg.TokenFile, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, Config{Webhook: cfg}, Options{})
			for i := range 200 {
				e := typical()
				e.Status = i
				l.Record(e)
			}
			flush(t, l)
			posts := h.got()
			status, batches := 0, map[string]bool{}
			for _, p := range posts {
				if p.token != "Bearer "+token {
					continue
				}
				if len(p.text) > LeastBatchSize || p.contentType != "application/x-ndjson" || p.batch == "" || batches[p.batch] {
					t.Errorf("a batch %q of %d bytes, %s", p.batch, len(p.text), p.contentType)
				}
				batches[p.batch] = true
				for line := range strings.Lines(p.text) {
					if d := decode(t, line); d.Status != status {
						t.Fatalf("event %d, want %d", d.Status, status)
					}
					status++
				}
			}
			if status != 200 || len(batches) < 5 {
				t.Errorf("round %d: %d events in %d batches", round, status, len(batches))
			}
			shut(t, l)
		}
	})
	t.Run("N11: a server that fails gets the same batch again, and asks for a pause", func(t *testing.T) {
		h := newHook(t, func(n int, w http.ResponseWriter) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusTooManyRequests)
			}
		})
		l := open(t, Config{Webhook: h.config()}, Options{})
		start := time.Now()
		l.Record(typical())
		flush(t, l)
		posts := h.got()
		if len(posts) != 3 || posts[0] != posts[1] || posts[1] != posts[2] || time.Since(start) < time.Second {
			t.Errorf("%d posts in %v: %+v", len(posts), time.Since(start), posts)
		}
		l.Record(typical())
		flush(t, l)
		if posts = h.got(); posts[3].batch == posts[2].batch {
			t.Error("the next batch has the id of the one before")
		}
		shut(t, l)
	})
	t.Run("N11: a batch that the server refuses for good is lost and counted, and does not stop the others", func(t *testing.T) {
		var log strings.Builder
		h := newHook(t, func(n int, w http.ResponseWriter) {
			if n == 1 {
				w.WriteHeader(http.StatusBadRequest)
			}
		})
		l := open(t, Config{Webhook: h.config()}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l.Record(typical())
		flush(t, l)
		l.Record(typical())
		flush(t, l)
		d := l.drains[0]
		if len(h.got()) != 2 || d.dropped.Load() != 1 || d.written.Load() != 1 || d.failures.Load() != 1 {
			t.Errorf("%d posts, %d dropped, %d written, %d failures", len(h.got()), d.dropped.Load(), d.written.Load(), d.failures.Load())
		}
		shut(t, l)
		if text := log.String(); !strings.Contains(text, "refused events") || !strings.Contains(text, `msg="audit events are lost" sink=webhook events=1`) {
			t.Error(text)
		}
	})
	t.Run("D7: a redirect is not followed, with the token to nobody else", func(t *testing.T) {
		elsewhere := newHook(t, nil)
		h := newHook(t, func(_ int, w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
		l := open(t, Config{Webhook: h.config()}, Options{})
		l.Record(typical())
		await(t, "a second attempt, after all that came of the first", func() bool { return len(h.got()) > 1 })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := l.Close(ctx)
		if len(elsewhere.got()) != 0 || len(h.got()) == 0 || err == nil {
			t.Errorf("%d posts elsewhere, %d here, %v", len(elsewhere.got()), len(h.got()), err)
		}
	})
	t.Run("D7: a server that is not trusted gets nothing, and the log has no URL's query", func(t *testing.T) {
		var log lockedLog
		h, other := newHook(t, nil), newHook(t, nil)
		other.Close()
		cfg := h.config()
		cfg.CAFile = filepath.Join(t.TempDir(), "ca.crt")
		if err := os.WriteFile(cfg.CAFile, []byte("none"), 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Config{Webhook: cfg}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l.Record(typical())
		await(t, "an attempt has failed", func() bool { return strings.Contains(log.String(), "webhook.caFile") })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Flush(ctx); !errors.Is(err, context.Canceled) || len(h.got()) != 0 {
			t.Errorf("%v, %d posts", err, len(h.got()))
		}
		// A file that is mended is used without a new start.
		text, err := os.ReadFile(h.caFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cfg.CAFile, text, 0o600); err != nil {
			t.Fatal(err)
		}
		flush(t, l)
		shut(t, l)
		if len(h.got()) != 1 || strings.Contains(log.String(), "hidden") {
			t.Errorf("%d posts, log %s", len(h.got()), log.String())
		}
	})
	t.Run("D7: an error of the network names no URL", func(t *testing.T) {
		var log lockedLog
		h := newHook(t, nil)
		cfg := h.config()
		h.Close()
		l := open(t, Config{Webhook: cfg}, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		l.Record(typical())
		await(t, "an attempt was refused", func() bool { return strings.Contains(log.String(), "refused") })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := l.Close(ctx)
		if err == nil {
			t.Fatal("closed with an event that is not written")
		}
		if text := log.String() + err.Error(); strings.Contains(text, "hidden") {
			t.Error(text)
		}
	})
	t.Run("N11: the end does not wait for a server that does not answer", func(t *testing.T) {
		release := make(chan struct{})
		h := newHook(t, func(int, http.ResponseWriter) { <-release })
		l := open(t, Config{Webhook: h.config()}, Options{})
		l.Record(typical())
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := l.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 events are not written") {
			t.Error(err)
		}
		close(release)
	})
	t.Run("a token file without one word is an error that names the file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "token")
		for _, text := range []string{"", " \n", "two words", "a\nb", "ü"} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if token, err := readToken(path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%q: %q, %v", text, token, err)
			}
		}
	})
}
