// Package mux carries many sessions over one stream of frames.
//
// A [Link] is one end of such a stream. It knows nothing of gRPC, TLS or
// Kubernetes: a [Transport] moves batches of frames, and each [Session] is a
// full [net.Conn] with half-close. docs/protocol.md is the normative text.
//
// # Usage
//
//	link := mux.New(transport, mux.Config{Dialler: true, Handler: handle})
//	go link.Run(ctx)
//	conn, err := link.Open(ctx, mux.Request{Target: target})
//
// # Who runs what
//
// [Link.Run] owns three goroutines: receive, send and keepalive. One mutex, that
// of the Link, guards all state of the link and its sessions; whoever holds it
// never blocks and never copies more than a few KiB. The receive loop therefore
// never waits for a reader: credit covers what it appends.
//
// # Flow control
//
// Each half of a session has an absolute offset up to which its sender may
// send. The receiver starts with a window, doubles it while its reader keeps up,
// and draws all windows from a [Budget]. A session always gets
// [Config.MinWindow], whatever the budget says, so that no set of stalled
// sessions can stop another. Credit that idle sessions hold is reclaimed when
// the budget runs short.
//
// # Limitations
//
// Payload is not compressed. A session does not survive the loss of its link.
package mux
