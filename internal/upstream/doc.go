// Package upstream is the agent's side of a request: it decides what the hub may
// reach, dials it, and speaks HTTP to the managed cluster's API server and to
// services.
//
// # Trust
//
// What arrives from the hub is untrusted: targets are held against the rules of
// package route and the owner's allow lists, when a session opens and again for
// each request and, for a service, when its port is known. The agent's own
// credential goes to the API server only; the API server gets no request without
// an identity to impersonate, since that would run as the agent itself.
//
// # Usage
//
//	u, err := upstream.New(cfg)
//	err = u.Check(target)             // at OPEN
//	u.Serve(conn, target)             // HTTP: the Kubernetes API or a service
//	conn, err := u.Dial(ctx, target)  // raw bytes: an address
//
// # Limitations
//
// An allow rule that names a port by its name matches requests that use the name,
// not the number. A request by name or without a port is matched against rules by
// number once DNS gave the number.
package upstream
