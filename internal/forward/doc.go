// Package forward carries connections from listeners on a user's machine to targets
// behind agents.
//
// A [Spec] is what a user writes: where to listen, and to which address of which
// cluster each connection goes. A [Server] accepts on any number of listeners and
// carries each connection until both of its directions have ended, each on its own. How
// a connection gets its target is a function of the listener, [Open]: [Fixed] is that of
// a Spec, and package socks has one that asks the peer.
//
// # Bounds
//
// A Server carries at most Config.MaxConnections at a time; one more is refused at once,
// and the observer is told why. A connection costs two goroutines. When the context of
// [Server.Serve] ends, everything ends with it.
package forward
