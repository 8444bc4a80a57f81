// Package resilience proves with real processes that Culvert keeps working when
// something does not: an agent without any inbound route, parts that are killed,
// frozen or cut off, sessions that nobody reads, targets that hang up.
//
// The managed cluster's kube-apiserver and its agents live in a private network
// behind a router that lets nothing in; hubs and callers are outside. All tests
// share that network and that cluster, and each has hubs and agents of its own,
// since most of them end in a crash.
//
// TestResilience runs in one order on purpose: sessions that stall for a minute
// are measured first, while nothing else uses the machine, and the other tests
// run while they go on stalling.
package resilience
