package kubeconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/url"
)

// Endpoint is how a client reaches a cluster's API server: the cluster entry of a
// kubeconfig. It is plain data.
type Endpoint struct {
	// Server is the URL.
	Server string
	// CA are the certificates that verify it, PEM; nil for the client's own system.
	// client-go uses them for the TLS with an https:// proxy as well.
	CA []byte
	// TLSServerName is the name that the certificate has to have; empty for that in
	// Server. client-go uses it for the TLS with an https:// proxy as well.
	TLSServerName string
	// ProxyURL is the HTTP proxy on the way. It may have credentials in it.
	ProxyURL string
	// Insecure switches the verification off.
	Insecure bool
}

// Path is the endpoint below the hub's own URL. hub is host or host:port, ca is the
// hub's.
func Path(hub, cluster string, ca []byte) Endpoint {
	return Endpoint{Server: (&url.URL{Scheme: "https", Host: hub, Path: "/" + cluster}).String(), CA: ca}
}

// Named is the endpoint at the name that a cluster has on the hub's port. ca is the
// hub's where the hub has the TLS ([ModeSNI]), the cluster's own where it passes
// through ([ModePassthrough]).
func Named(name, port string, ca []byte) Endpoint {
	return Endpoint{Server: "https://" + net.JoinHostPort(name, port), CA: ca}
}

// EndToEnd is the cluster itself, by way of an HTTP proxy. serverName is one that
// the API server's certificate has. With an https:// proxy hubCA is needed beside
// the cluster's, since client-go verifies both with the same certificates; with
// another it has to be nil.
func EndToEnd(name, serverName, proxyURL string, hubCA, clusterCA []byte) Endpoint {
	return Endpoint{Server: "https://" + name, CA: join(hubCA, clusterCA), TLSServerName: serverName, ProxyURL: proxyURL}
}

// join puts PEM texts one after the other.
func join(parts ...[]byte) []byte {
	var out []byte
	for _, part := range parts {
		if len(out) > 0 && len(part) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
			out = append(out, '\n')
		}
		out = append(out, part...)
	}
	return out
}

// Generation names the content of the endpoint: a kubeconfig with another one was
// made for other circumstances, and should be made again. Credentials in ProxyURL do
// not count.
func (e Endpoint) Generation() string {
	if u, err := url.Parse(e.ProxyURL); err == nil {
		u.User = nil
		e.ProxyURL = u.String()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %t", e.Server, e.CA, e.TLSServerName, e.ProxyURL, e.Insecure))
	return hex.EncodeToString(sum[:8])
}
