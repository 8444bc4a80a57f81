// Package telemetry gives an operator's tools what they ask a process for: its
// metrics, its traces, whether it lives, whether it can serve, and what it does
// right now.
//
// Metrics are made with OpenTelemetry and read in the Prometheus text format,
// spans are sent with OTLP, so that no format is spread over the other packages.
// docs/telemetry.md lists all of them, and a test holds it against this package.
//
// # Parts
//
// Each part is made by itself, and each may be missing:
//
//	t, err := telemetry.New(telemetry.Config{Health: …, Ready: …, Links: links, Logger: log})    // metrics
//	tracer, err := telemetry.NewTracer(ctx, telemetry.TracerConfig{Settings: …, Logger: log})     // traces
//	live := telemetry.NewLive()                                                                 // what is under way
//	port, err := t.Listen(ctx, "127.0.0.1:9090")
//	debug, err := telemetry.ListenDebug(ctx, "127.0.0.1:6060", telemetry.DebugConfig{Links: links, Live: live, Logger: log})
//	observer := telemetry.Observer{Metrics: t.Metrics(), Tracer: tracer, Live: live}
//
// The port of the metrics answers without asking who calls, and is therefore for
// an address that strangers do not reach; the debug port refuses to be anywhere
// but on loopback.
//
// # Telling
//
// The other packages get an [Observer], whose zero value does nothing. An HTTP hop
// tells it of requests, who opens sessions of those:
//
//	x, r := relay.Begin(w, r)
//	seen, r := observer.Begin(r, x)
//	defer seen.End()
//	…
//	seen.Route(cluster, target)
//
//	ctx, open := observer.StartOpen(ctx, telemetry.OpenStart{Cluster: cluster, Target: target})
//	s, err := link.Open(ctx, mux.Request{Target: target, Trace: telemetry.TraceParent(ctx)})
//	open.End(err)
//
// # Bounds
//
// Labels of metrics come from bounded sets, whatever callers and targets send.
// Texts in spans are cut and made valid UTF-8. No credential is in any of them,
// and no identity outside of the live view.
package telemetry
