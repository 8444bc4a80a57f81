// Package kube proves with real parts what a user of a hub gets: kubectl, curl,
// client-go and plain TCP against real API servers, through culvert-hub and
// culvert-agent.
//
// The managed cluster's kube-apiserver, its DNS, its services and the agents
// live in a private network behind a router that lets nothing in. The hub, the
// hub's own cluster and the callers are outside:
//
//	callers, kubectl, curl      hub network                private network
//	------------------------    ------------------------   ---------------------------
//	office (behind a router) -> culvert-hub :9092 :8091 <- culvert-agent "managed"
//	hub network itself       -> hub in this process     <- culvert-agent "edge"
//	                            kube-apiserver "hub"       kube-apiserver "managed"
//	                                                       CoreDNS, services
//
// TestHub shares this world. It runs in one order on purpose: watches that stay
// idle for over a minute are opened first and looked at last, and latencies are
// measured while nothing else runs.
package kube
