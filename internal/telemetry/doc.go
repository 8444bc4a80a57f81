// Package telemetry gives an operator's tools what they ask a process for: its
// metrics, whether it lives, and whether it can serve.
//
// Metrics are made with OpenTelemetry and read in the Prometheus text format, so
// that neither format is spread over the other packages. [New] makes a
// [Telemetry], which belongs to its caller; its handler answers without asking
// who calls, and is therefore for a port of its own that strangers do not reach:
//
//	t, err := telemetry.New(telemetry.Config{Health: process.Health, Ready: process.Ready, Logger: log})
//	server, err := t.Listen(ctx, "127.0.0.1:9090")
//	go server.Serve()
//	…
//	err = errors.Join(server.Close(), t.Close())
//
// # Metrics
//
//	culvert_certificate_expiry_timestamp_seconds{name}  gauge: when it expires, Unix time
//	culvert_reload_failures_total{name}                 counter: changed files that could not be used
//
// The label name is that of a [Health]; the operator's files have few, fixed
// names, so that the number of series is bounded.
package telemetry
