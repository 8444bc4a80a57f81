package telemetry_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/culvertdev/culvert/internal/telemetry"
)

// spans is a collector: it takes what exporters send with OTLP over HTTP.
type spans struct {
	t      *testing.T
	server *httptest.Server

	mu   sync.Mutex
	raw  bytes.Buffer // all that came, decompressed
	got  []span
	path string
}

// span is one that was exported.
type span struct {
	*otlp.Span

	service string
	attrs   map[string]string
}

func (s span) trace() string  { return hex.EncodeToString(s.GetTraceId()) }
func (s span) id() string     { return hex.EncodeToString(s.GetSpanId()) }
func (s span) parent() string { return hex.EncodeToString(s.GetParentSpanId()) }

func newCollector(t *testing.T) *spans {
	t.Helper()
	c := &spans{t: t}
	c.server = httptest.NewServer(http.HandlerFunc(c.take))
	t.Cleanup(c.server.Close)
	return c
}

func (c *spans) take(w http.ResponseWriter, r *http.Request) {
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			c.t.Errorf("an export is not gzip: %v", err)
			return
		}
		in = unzipped
	}
	raw, err := io.ReadAll(in)
	var export collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(raw, &export)
	}
	if err != nil {
		c.t.Errorf("an export cannot be read: %v", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.path = r.URL.Path
	c.raw.Write(raw)
	for _, rs := range export.GetResourceSpans() {
		service := ""
		for _, a := range rs.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				attrs := make(map[string]string)
				for _, a := range s.GetAttributes() {
					attrs[a.GetKey()] = text(a.GetValue())
				}
				c.got = append(c.got, span{s, service, attrs})
			}
		}
	}
	answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
	if err != nil {
		c.t.Error(err)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	if _, err := w.Write(answer); err != nil {
		c.t.Error(err)
	}
}

func text(v interface {
	GetStringValue() string
	GetIntValue() int64
},
) string {
	if s := v.GetStringValue(); s != "" {
		return s
	}
	return fmt.Sprint(v.GetIntValue())
}

// all returns the spans that came, by start.
func (c *spans) all() []span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(c.got)
	slices.SortStableFunc(out, func(a, b span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
	return out
}

func (c *spans) sent() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// tracer returns a Tracer that sends to c, and what flushes and ends it.
func (c *spans) tracer(role telemetry.Role, sampling *float64) (*telemetry.Tracer, func()) {
	c.t.Helper()
	tracer, err := telemetry.NewTracer(c.t.Context(), telemetry.TracerConfig{
		Settings: telemetry.Settings{OTLPEndpoint: c.server.URL, Sampling: sampling}, Role: role, Version: "v1", Instance: "one",
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	closed := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := tracer.Close(ctx); err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(closed)
	return tracer, closed
}

// known reports attributes that are not in the table.
func known(t *testing.T, all []span) {
	t.Helper()
	for _, s := range all {
		for key := range s.attrs {
			if !slices.Contains(telemetry.Attributes(), key) {
				t.Errorf("span %s has the attribute %s, which is in no table", s.GetName(), key)
			}
		}
	}
}

// tree is the trace as text: a line a span, indented below its parent.
func tree(all []span) string {
	var out strings.Builder
	var below func(parent string, depth int)
	below = func(parent string, depth int) {
		for _, s := range all {
			if s.parent() == parent {
				fmt.Fprintf(&out, "%s%s %s %s\n", strings.Repeat("  ", depth), s.service, strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")), s.GetName())
				below(s.id(), depth+1)
			}
		}
	}
	ids := make(map[string]bool)
	for _, s := range all {
		ids[s.id()] = true
	}
	for _, s := range all {
		if !ids[s.parent()] {
			below(s.parent(), 0)
			break
		}
	}
	return out.String()
}
