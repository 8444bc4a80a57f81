// Package https is the hub's HTTP front end: the paths of clusters and services,
// and the hub's own.
//
// A request goes through these steps, and the first that fails answers it with a
// Kubernetes Status (see package answer):
//
//  1. it gets a request id;
//  2. its path is parsed by package route: 400 before anything else is decided;
//  3. the caller is authenticated (401, 503) and mapped (403);
//  4. it is sent on, HTTP/1.1 inside a session to the cluster, and the answer
//     comes back unchanged: status, headers and body are the target's.
//
// Sessions are pooled for each cluster and target. When a cluster's link goes
// away its pooled sessions fail and leave the pool; a request that met such a
// session and can be repeated safely is sent again on a fresh one.
//
// # The caller's own credential for a service
//
// A caller that needs Authorization for the service itself sends the hub's
// credential as Culvert-Authorization. Then Authorization passes to a service
// untouched, but never to a Kubernetes API.
//
// # Memory
//
// A response under way holds one buffer of 32 KiB, its session's window and what
// the server's socket takes; a client that does not read costs that and delays
// nobody else. There is no time limit on a stream.
//
// # Limitations
//
// A request target with an escape that is not one ("%zz") is refused by net/http
// itself: with a plain 400 in HTTP/1, as a stream error in HTTP/2.
package https
