// Package limit bounds what one caller, one cluster and one network can ask of
// the hub: requests per second, requests at a time, sessions at a time, and the
// size of a body.
//
// [Limits] has a table of keys for each [Scope]. A table is bounded: a key that
// has all of its tokens again and holds nothing is forgotten when room is needed,
// and where none can be forgotten, new keys share one. So nobody gets a fresh
// start by coming under many names, and nobody makes the hub remember more.
//
// A request is admitted for each scope in turn, and one [Hold] keeps what it
// takes:
//
//	var hold limit.Hold
//	defer hold.Release()
//	if err := limits.Admit(&hold, limit.Remote, limit.Network(r.RemoteAddr), kind); err != nil { … }
//	… authenticate …
//	if err := limits.Admit(&hold, limit.User, caller.GetName(), kind); err != nil { … }
//	if err := limits.Admit(&hold, limit.Cluster, cluster, kind); err != nil { … }
//
// A refusal is a [*fault.Error] of code too-many-requests, HTTP 429, with the time
// after which another try makes sense, and a [*RefusalError] in its chain.
//
// # Limitations
//
// The bounds are of one hub: several hubs do not count together. A refused
// request gives back what it held of other scopes, and not the tokens it used.
package limit
