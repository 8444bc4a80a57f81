// Package bench measures the tunnel against the least that a two-hop tunnel can
// do, in one run: client - TCP - relay - TLS 1.3 - relay - TCP - server, with one
// TLS connection a session and io.Copy in between.
//
// Run it with make bench. Figures of one machine mean nothing by themselves;
// compare the rows of one run.
package bench
