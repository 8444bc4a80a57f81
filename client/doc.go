// Package client reaches clusters and services in private networks through a Culvert
// hub: connections and requests of a program, over one connection to the hub.
//
//	c, err := client.New(client.Config{}) // from the environment, or the profile of culvert login
//	if err != nil { … }
//	defer c.Close()
//	conn, err := c.DialContext(ctx, "edge-1", "tcp", "db.prod.svc:5432")
//
// # What goes where
//
// [Client.DialContext] gives a [net.Conn] to a TCP address, which is resolved and
// dialled by the agent of the cluster. [Client.Dialer] gives the same as a function of
// one cluster, in the form that [http.Transport], client-go and database drivers take,
// and [Client.DialerFor] in that of [google.golang.org/grpc.WithContextDialer].
// [Client.RoundTripper] sends HTTP requests to the Kubernetes API of the cluster that
// the request's context names. Package client/kube makes a rest.Config of it, so that
// who needs no client-go does not get it.
//
// # One connection
//
// A [Client] has one connection to the hub, made when it is first needed, for all that
// goes over it: one TLS handshake, one port, one credential. When it is lost the client
// makes a new one by itself, and says so once in its log. What was open on the old one
// has failed with it, as a TCP connection fails; what is opened meanwhile waits, see
// Config.Patience.
//
// # Errors
//
// What fails at the hub, the agent or the target is an [*Error], by [errors.As]: it has a
// code, which does not change, and the hop that failed. So have errors of Read and Write
// of connections. An error never has a credential in it.
package client
