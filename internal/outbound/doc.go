// Package outbound opens the TCP connections with which an agent leaves its
// network: directly, or through an HTTP proxy that allows CONNECT (RFC 9110
// section 9.3.6) and nothing else.
//
//	dialer, err := outbound.New(outbound.Config{URL: "http://proxy.example.com:3128"}, log)
//	if err != nil { … }
//	tunnel.NewDialer(tunnel.DialerConfig{Dial: dialer.DialContext, …})
//
// # Which way
//
// With an empty [Config] the environment decides, as it does for most programs:
// HTTPS_PROXY and NO_PROXY, in upper or lower case, with the meaning that
// golang.org/x/net/http/httpproxy gives them. A field that is set takes the place
// of its variable. Loopback addresses and "localhost" are never proxied.
//
// # Trust
//
// A proxy sees the hub's address and carries bytes; the TLS session inside is
// between agent and hub, so a proxy that breaks TLS open is refused like any
// other foreign certificate. Of the proxy's answer only the status and the names
// of its authentication schemes are looked at, and nothing else of it gets into
// an error or a log. Credentials for the proxy are sent to the proxy alone.
//
// # Limitations
//
// Basic is the only authentication (RFC 7617), and SOCKS proxies and proxy
// auto-configuration files are not understood.
package outbound
