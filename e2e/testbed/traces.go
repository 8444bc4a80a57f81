package testbed

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

const (
	// maxExport bounds one message of an exporter.
	maxExport = 8 << 20
	// maxSpans bounds what a collector keeps; later spans are refused, which
	// exporters report.
	maxSpans = 200_000
)

// Span is one operation of a trace.
type Span struct {
	// TraceID, SpanID and ParentID are in hexadecimal; a root has no parent.
	TraceID, SpanID, ParentID string
	// Service is the service.name of the process, Name and Kind are of the span:
	// "server", "client", "internal".
	Service, Name, Kind string
	// Links are the trace ids of linked spans.
	Links []string
	// Attributes are those of the span as text.
	Attributes map[string]string
	// Failed is whether the status is an error, Status its text.
	Failed     bool
	Status     string
	Start, End time.Time
}

// Collector takes spans in the OpenTelemetry protocol, as a collector does
// (https://opentelemetry.io/docs/specs/otlp/). Its methods are safe for
// concurrent use.
type Collector struct {
	// HTTP is a URL for exporters over OTLP/HTTP with protobuf, GRPC an address
	// for those over OTLP/gRPC; both in clear text.
	HTTP, GRPC string

	http  *http.Server
	grpc  *grpc.Server
	ended chan error

	mu       sync.Mutex
	spans    []Span
	problems []error
}

// StartCollector listens on the loopback of the caller's network. Close it.
func StartCollector(ctx context.Context) (*Collector, error) {
	var listeners [2]net.Listener
	for i := range listeners {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(loopback.String(), "0"))
		if err != nil {
			if i > 0 {
				err = errors.Join(err, listeners[0].Close())
			}
			return nil, fmt.Errorf("trace collector: %w", err)
		}
		listeners[i] = ln
	}
	c := &Collector{HTTP: "http://" + listeners[0].Addr().String(), GRPC: listeners[1].Addr().String(), ended: make(chan error, 2)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.export)
	c.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	c.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxExport))
	collector.RegisterTraceServiceServer(c.grpc, exports{c: c})
	go c.serveHTTP(listeners[0])
	go c.serveGRPC(listeners[1])
	return c, nil
}

// serveHTTP ends with Close.
func (c *Collector) serveHTTP(ln net.Listener) {
	err := c.http.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	c.ended <- err
}

// serveGRPC ends with Close.
func (c *Collector) serveGRPC(ln net.Listener) { c.ended <- c.grpc.Serve(ln) }

// Close ends the collector, and reports what exporters sent that is no message of
// the protocol.
func (c *Collector) Close() error {
	err := c.http.Close()
	c.grpc.Stop()
	err = errors.Join(err, <-c.ended, <-c.ended)
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(append([]error{err}, c.problems...)...)
}

// export is OTLP/HTTP.
func (c *Collector) export(w http.ResponseWriter, r *http.Request) {
	message, err := readExport(w, r)
	if err != nil {
		c.mu.Lock()
		c.problems = append(c.problems, fmt.Errorf("trace collector: message from %s: %w", r.UserAgent(), err))
		c.mu.Unlock()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !c.add(message) {
		http.Error(w, "full", http.StatusInsufficientStorage)
		return
	}
	w.Header().Set("Content-Type", protobufType)
	w.WriteHeader(http.StatusOK) // an empty message is ExportTraceServiceResponse
}

const protobufType = "application/x-protobuf"

func readExport(w http.ResponseWriter, r *http.Request) (*collector.ExportTraceServiceRequest, error) {
	if t := r.Header.Get("Content-Type"); t != protobufType {
		return nil, fmt.Errorf("content type %q, want %s", t, protobufType)
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, maxExport)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzip, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = io.LimitReader(unzip, maxExport)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	message := new(collector.ExportTraceServiceRequest)
	return message, proto.Unmarshal(text, message)
}

// exports is OTLP/gRPC.
type exports struct {
	collector.UnimplementedTraceServiceServer

	c *Collector
}

// Export implements the trace service.
func (e exports) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	response := new(collector.ExportTraceServiceResponse)
	if !e.c.add(r) {
		response.PartialSuccess = &collector.ExportTracePartialSuccess{ErrorMessage: "full"}
	}
	return response, nil
}

// add keeps spans; it reports whether there was room.
func (c *Collector) add(r *collector.ExportTraceServiceRequest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		service := attributes(resource.GetResource().GetAttributes())["service.name"]
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				if len(c.spans) == maxSpans {
					return false
				}
				c.spans = append(c.spans, newSpan(service, s))
			}
		}
	}
	return true
}

func newSpan(service string, s *trace.Span) Span {
	span := Span{
		TraceID: hex.EncodeToString(s.GetTraceId()), SpanID: hex.EncodeToString(s.GetSpanId()), ParentID: hex.EncodeToString(s.GetParentSpanId()),
		Service: service, Name: s.GetName(), Kind: strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")),
		Attributes: attributes(s.GetAttributes()),
		Failed:     s.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR, Status: s.GetStatus().GetMessage(),
		Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
	}
	for _, link := range s.GetLinks() {
		span.Links = append(span.Links, hex.EncodeToString(link.GetTraceId()))
	}
	return span
}

// attributes are as text; lists and maps are in protobuf's own text form.
func attributes(all []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range all {
		switch v := kv.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			out[kv.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		case *common.AnyValue_BoolValue:
			out[kv.GetKey()] = strconv.FormatBool(v.BoolValue)
		default:
			out[kv.GetKey()] = kv.GetValue().String()
		}
	}
	return out
}

// Find returns the spans that match, in the order of their start.
func (c *Collector) Find(match func(Span) bool) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Span
	for _, s := range c.spans {
		if match(s) {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return found
}

// Trace returns the spans of one trace, in the order of their start.
func (c *Collector) Trace(id string) []Span {
	return c.Find(func(s Span) bool { return s.TraceID == id })
}

// TraceText draws spans of one trace as a tree, with times since the first. Spans
// whose parent is not among them are roots.
func TraceText(spans []Span) string {
	var b strings.Builder
	known := map[string]bool{}
	for _, s := range spans {
		known[s.SpanID] = true
	}
	var draw func(parent Span, depth int)
	draw = func(parent Span, depth int) {
		for _, s := range spans {
			if depth > 0 && s.ParentID != parent.SpanID || depth == 0 && known[s.ParentID] {
				continue
			}
			fmt.Fprintf(&b, "%8.2f ms %8.2f ms  %s%s: %s (%s)\n", milliseconds(s.Start.Sub(spans[0].Start)), milliseconds(s.End.Sub(s.Start)),
				strings.Repeat("  ", depth), s.Service, s.Name, s.Kind)
			draw(s, depth+1)
		}
	}
	draw(Span{}, 0)
	return b.String()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
