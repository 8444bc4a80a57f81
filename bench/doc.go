// Package bench holds the benchmark: one program, cmd/culvert-bench, that measures
// tunnels side by side. docs/performance.md says how to run it, what each measure
// is, and what the figures are worth.
//
// Its parts, from the bottom up:
//
//	internal/stats    medians and percentiles
//	internal/report   rows, bars, the table and the JSON list
//	internal/process  children: start, processor time, memory, profiles
//	internal/service  what stands behind every tunnel
//	internal/load     the load generator; knows a tunnel as a dialer or a URL
//	internal/relay    the reference
//	internal/subject  Culvert, the reference, and other tunnels by a file
//	internal/frames   the data path without a network
//	internal/kube     a real API server behind the tunnel
//	internal/netem    two network namespaces with a slow, lossy line between
//	internal/measure  the trials, their sizes and their order
package bench
