package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/culvertdev/culvert/internal/wire"
)

// Defaults and bounds of [Config].
const (
	DefaultInterval   = 5 * time.Minute
	LeastInterval     = time.Second
	DefaultQueue      = 4 << 20 // bytes
	LeastQueue        = 128 << 10
	MostQueue         = 256 << 20
	DefaultMaxSize    = 100 << 20 // bytes
	LeastMaxSize      = 64 << 10
	DefaultMaxBackups = 10
	DefaultBatchSize  = 512 << 10 // bytes
	LeastBatchSize    = 32 << 10
	DefaultBatchWait  = time.Second
	DefaultTimeout    = 10 * time.Second
)

// WhenFull says what happens to an event that a sink's queue has no room for.
type WhenFull string

// What can happen.
const (
	// WhenFullDrop loses the event and counts it. It is the default.
	WhenFullDrop WhenFull = "drop"
	// WhenFullBlock lets callers wait: [Log.Record] until there is room, and
	// [Log.Admit] for some seconds, after which it refuses.
	WhenFullBlock WhenFull = "block"
)

// Config says where events go. The JSON names are those of the configuration
// file. Without any sink there is no log.
type Config struct {
	// File, Stdout and Webhook are the sinks; each that is set gets every event.
	File    *FileConfig    `json:"file,omitempty"`
	Stdout  *StdoutConfig  `json:"stdout,omitempty"`
	Webhook *WebhookConfig `json:"webhook,omitempty"`
	// Interval is how often an open session gets a line. Default 5 minutes.
	Interval metav1.Duration `json:"interval,omitzero"`
	// Queue is how many bytes of events wait for each sink at most. Twice as much
	// can be in memory while a sink does not work. Default 4 MiB.
	Queue resource.Quantity `json:"queue,omitzero"`
}

// FileConfig is a file that is rotated.
type FileConfig struct {
	// Path is required. The file is created with mode 0600, missing folders with
	// 0700. Rotated ones are beside it: audit.log becomes
	// audit-2026-02-03T16-05-06.789012.log. Other programs may rename or delete
	// the file: it is created again.
	Path string `json:"path,omitempty"`
	// MaxSize is when it is rotated, in bytes. Default 100 MiB.
	MaxSize resource.Quantity `json:"maxSize,omitzero"`
	// MaxAge is how long rotated files are kept. Default: their age is no matter.
	MaxAge metav1.Duration `json:"maxAge,omitzero"`
	// MaxBackups is how many rotated files are kept. Default 10; below 0, all.
	MaxBackups int `json:"maxBackups,omitempty"`
	// WhenFull is for a disk that is full or too slow. Default "drop".
	WhenFull WhenFull `json:"whenFull,omitempty"`
}

// StdoutConfig is the standard output of the process.
type StdoutConfig struct {
	// WhenFull is for a reader that does not read. Default "drop".
	WhenFull WhenFull `json:"whenFull,omitempty"`
}

// WebhookConfig is a URL that lines are posted to, as application/x-ndjson. A
// batch that was not accepted is sent again, with the same [HeaderBatch], after a
// pause of up to 30 s or of Retry-After. Statuses 400, 413, 415 and 422 refuse a
// batch for good: its events are lost and counted.
type WebhookConfig struct {
	// URL is required: https, without user and password.
	URL string `json:"url,omitempty"`
	// CAFile has the CAs of the server's certificate, PEM. Default: the system's.
	// The files are read again for each new connection after a failure, and at the
	// start of each batch in case of TokenFile.
	CAFile string `json:"caFile,omitempty"`
	// CertFile and KeyFile are a client certificate, PEM. Default none.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
	// TokenFile has a bearer token. Default none.
	TokenFile string `json:"tokenFile,omitempty"`
	// BatchSize bounds a body, in bytes. Default 512 KiB.
	BatchSize resource.Quantity `json:"batchSize,omitzero"`
	// BatchWait is how long a batch waits for more events. Default 1 s.
	BatchWait metav1.Duration `json:"batchWait,omitzero"`
	// Timeout is for one attempt, answer included. Default 10 s.
	Timeout metav1.Duration `json:"timeout,omitzero"`
	// WhenFull is for a server that does not accept. Default "drop".
	WhenFull WhenFull `json:"whenFull,omitempty"`
}

// Options is what a process gives to its log.
type Options struct {
	// Logger gets what goes wrong with sinks, not the events. It is required.
	Logger *slog.Logger
	// Meters makes the metrics of the log. Default: none.
	Meters metric.MeterProvider
	// Stdout is what Config.Stdout writes to. It is required with that.
	Stdout io.Writer
	// Hop is the hop of the errors of [Log.Admit]. Default: the hub.
	Hop wire.Hop
	// Hub is put into events that name no hub.
	Hub string
}

// Enabled reports whether there is any sink.
func (c *Config) Enabled() bool {
	return c != nil && (c.File != nil || c.Stdout != nil || c.Webhook != nil)
}

// Validate names everything that is wrong, with the path of the field below that
// of the Config itself.
func (c *Config) Validate() error {
	p := &problems{}
	p.duration("interval", c.Interval.Duration, LeastInterval)
	p.size("queue", c.Queue, LeastQueue, MostQueue)
	if f := c.File; f != nil {
		p.required("file.path", f.Path)
		p.size("file.maxSize", f.MaxSize, LeastMaxSize, 0)
		p.duration("file.maxAge", f.MaxAge.Duration, time.Minute)
		p.whenFull("file.whenFull", f.WhenFull)
	}
	if s := c.Stdout; s != nil {
		p.whenFull("stdout.whenFull", s.WhenFull)
	}
	if w := c.Webhook; w != nil {
		p.webhook(w)
	}
	return errors.Join(p.found...)
}

type problems struct{ found []error }

func (p *problems) addf(format string, args ...any) {
	p.found = append(p.found, fmt.Errorf(format, args...))
}

func (p *problems) required(field, value string) {
	if value == "" {
		p.addf("%s: required", field)
	}
}

func (p *problems) duration(field string, d, least time.Duration) {
	if d != 0 && d < least {
		p.addf("%s: %v is too short: want %v or more, or nothing for the default", field, d, least)
	}
}

// size checks a size in bytes; most 0 is no bound.
func (p *problems) size(field string, q resource.Quantity, least, most int64) {
	switch n := q.Value(); {
	case q.IsZero():
	case n < least:
		p.addf("%s: %s is too small: want %s or more, or nothing for the default", field, q.String(), inBytes(least))
	case most > 0 && n > most:
		p.addf("%s: %s is too large: want %s at most", field, q.String(), inBytes(most))
	}
}

func inBytes(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

func (p *problems) whenFull(field string, w WhenFull) {
	switch w {
	case "", WhenFullDrop, WhenFullBlock:
	default:
		p.addf("%s: %q: want %q or %q", field, w, WhenFullDrop, WhenFullBlock)
	}
}

func (p *problems) webhook(w *WebhookConfig) {
	p.required("webhook.url", w.URL)
	if w.URL != "" {
		// The URL is not quoted: it may have a password by mistake.
		switch u, err := url.Parse(w.URL); {
		case err != nil || u.Host == "" || !strings.EqualFold(u.Scheme, "https"):
			p.addf("webhook.url: want https://HOST[:PORT]/PATH: events and the token are not sent in clear text")
		case u.User != nil:
			p.addf("webhook.url: want no user and password in it: use tokenFile, or certFile and keyFile")
		case u.Fragment != "":
			p.addf("webhook.url: want no fragment in it")
		}
	}
	if (w.CertFile == "") != (w.KeyFile == "") {
		p.addf("webhook.certFile, webhook.keyFile: want both or neither")
	}
	p.size("webhook.batchSize", w.BatchSize, LeastBatchSize, MostQueue)
	p.duration("webhook.batchWait", w.BatchWait.Duration, time.Millisecond)
	p.duration("webhook.timeout", w.Timeout.Duration, time.Millisecond)
	p.whenFull("webhook.whenFull", w.WhenFull)
}

func orDuration(d metav1.Duration, otherwise time.Duration) time.Duration {
	if d.Duration == 0 {
		return otherwise
	}
	return d.Duration
}

func orSize(q resource.Quantity, otherwise int64) int64 {
	if q.IsZero() {
		return otherwise
	}
	return q.Value()
}
