package acceptor

import (
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/culvertdev/culvert/internal/tunnel"
)

// connection is what the calls on one connection of an agent see of it.
type connection struct {
	credentials.TLSInfo

	lease *lease
}

// serverCredentials gives every connection a lease of its own.
func serverCredentials() credentials.TransportCredentials {
	return tunnel.CredentialsAs(tunnel.Protocol, func(i credentials.TLSInfo) credentials.AuthInfo {
		return connection{TLSInfo: i, lease: &lease{}}
	})
}

// lease is for how long, and as whom, the peer of one connection is believed. The
// certificate of the handshake begins it, each renewal over the connection
// prolongs it: the peer that asked is the one that holds the connection.
type lease struct {
	mu      sync.Mutex
	cluster string
	cert    *x509.Certificate // the newest; nil before the first link
	until   time.Time         // when the links end
	links   int               // alive on the connection
}

// begin is called for each link with what the handshake's certificate proves at
// that time.
func (l *lease) begin(cluster string, cert *x509.Certificate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links++
	if l.links == 1 {
		l.cluster, l.cert, l.until = cluster, cert, cert.NotAfter
	}
}

// end is called once for each begin.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links--
}

// holder returns whom the connection belongs to while a link is alive on it.
func (l *lease) holder() (cluster string, cert *x509.Certificate, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cluster, l.cert, l.links > 0
}

// expires is when the links end unless there is a renewal.
func (l *lease) expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

// errNoLink is a renewal that nothing stands for any more.
var errNoLink = errors.New("the link ended while the certificate was renewed: ask again over the new one")

// prolong makes cert the newest. One that ends before the one in force, because
// lifetimes were made shorter, takes nothing away.
func (l *lease) prolong(cert *x509.Certificate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.links == 0 {
		return errNoLink
	}
	l.cert = cert
	if cert.NotAfter.After(l.until) {
		l.until = cert.NotAfter
	}
	return nil
}
