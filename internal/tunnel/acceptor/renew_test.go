package acceptor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	culvertv1 "github.com/culvertdev/culvert/gen/culvert/v1"
	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/tunnel"
	"github.com/culvertdev/culvert/internal/tunnel/acceptor"
	"github.com/culvertdev/culvert/internal/wire"
)

// issue makes a client's certificate of ca, until a time.
func issue(t *testing.T, ca tls.Certificate, cluster string, until time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cluster},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, key.Public(), ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// changedHub serves with a configuration of one's own. Its Register says which
// clusters come.
func changedHub(t *testing.T, change func(*acceptor.ServerConfig)) (h *hub, clusters chan string) {
	t.Helper()
	pool, cert := authority(t)
	h = &hub{t: t, pool: pool, cert: cert, address: "127.0.0.1:0", links: make(chan *mux.Link, 16)}
	clusters = make(chan string, 16)
	h.change = func(c *acceptor.ServerConfig) {
		c.Register = func(p acceptor.Peer, l *mux.Link) func() {
			h.links <- l
			clusters <- p.Cluster
			return func() {}
		}
		change(c)
	}
	h.start()
	t.Cleanup(func() { h.stop(0) })
	return h, clusters
}

// renewed is false where the first certificate was over too early.
func renewed(t *testing.T, life time.Duration) bool {
	t.Helper()
	asked := make(chan acceptor.Renewal, 8)
	var next tls.Certificate
	h, _ := changedHub(t, func(c *acceptor.ServerConfig) {
		c.Renew = func(_ context.Context, r acceptor.Renewal, req *culvertv1.RenewRequest) (*culvertv1.RenewResponse, *x509.Certificate, error) {
			asked <- r
			if len(req.GetCsr()) == 0 {
				return &culvertv1.RenewResponse{HubCa: []byte("ca")}, nil, nil
			}
			return &culvertv1.RenewResponse{CertificateChain: []byte("chain")}, next.Leaf, nil
		}
	})
	first := issue(t, h.cert, "test", time.Now().Add(life))
	next = issue(t, h.cert, "test", time.Now().Add(2*life))
	d, _ := rotating(t, h, first)
	link, conn := firstLink(h, first), d.Conn()
	if link == nil || conn == nil {
		return false
	}
	s, failed := link.Open(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
	client := culvertv1.NewEnrolmentServiceClient(conn)
	bundle, err1 := client.Renew(t.Context(), &culvertv1.RenewRequest{})
	chain, err2 := client.Renew(t.Context(), &culvertv1.RenewRequest{Csr: []byte("csr")})
	if time.Now().After(first.Leaf.NotAfter) {
		return false
	}
	if failed != nil {
		t.Fatal(failed)
	}
	if err1 != nil || string(bundle.GetHubCa()) != "ca" {
		t.Fatalf("the bundle alone: %v, %v", bundle, err1)
	}
	if err2 != nil || string(chain.GetCertificateChain()) != "chain" {
		t.Fatalf("a certificate: %v, %v", chain, err2)
	}
	<-asked
	if who := <-asked; who.Cluster != "test" || !who.Certificate.Equal(first.Leaf) || who.Addr == nil {
		t.Errorf("asked by %+v", who)
	}
	outlives(t, link, s, first, next, func() {
		// Who asks now has nothing but an expired certificate from the handshake.
		if _, err := client.Renew(t.Context(), &culvertv1.RenewRequest{}); err != nil {
			t.Errorf("after the end of the handshake's certificate: %v", err)
		}
		if who := <-asked; !who.Certificate.Equal(next.Leaf) {
			t.Errorf("asked by %v", who.Certificate.Subject)
		}
	})
	return true
}

func TestRenew(t *testing.T) {
	t.Run("O9,N7: a link lives as long as the newest certificate that was renewed over it, and ends with that", func(t *testing.T) {
		inTime(t, func(life time.Duration) bool { return renewed(t, life) })
	})
	t.Run("N7: a connection without a live link renews nothing", func(t *testing.T) {
		h, _ := changedHub(t, func(c *acceptor.ServerConfig) {
			c.Renew = func(context.Context, acceptor.Renewal, *culvertv1.RenewRequest) (*culvertv1.RenewResponse, *x509.Certificate, error) {
				t.Error("asked")
				return nil, nil, nil
			}
		})
		client := culvertv1.NewEnrolmentServiceClient(rawClient(t, h))
		_, err := client.Renew(t.Context(), &culvertv1.RenewRequest{Csr: []byte("csr")})
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "live link") {
			t.Errorf("%v", err)
		}
		if _, err := client.Enroll(t.Context(), &culvertv1.EnrollRequest{}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("enrol on a tunnel: %v", err)
		}
	})
	t.Run("a hub that does not renew says so", func(t *testing.T) {
		h := newHub(t)
		d := h.dial(t, io.Discard)
		<-h.links
		eventually(t, "the dialler has its connection", func() bool { return d.Conn() != nil })
		_, err := culvertv1.NewEnrolmentServiceClient(d.Conn()).Renew(t.Context(), &culvertv1.RenewRequest{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%v", err)
		}
	})
}

// rawClient is a client of the hub's gRPC server that opens no link.
func rawClient(t *testing.T, h *hub) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+h.address,
		grpc.WithTransportCredentials(tunnel.Credentials(tunnel.Protocol)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{
				RootCAs: h.pool, Certificates: []tls.Certificate{h.cert}, ServerName: "localhost",
				NextProtos: []string{tunnel.Protocol}, MinVersion: tls.VersionTLS13,
			}}
			return d.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func TestCut(t *testing.T) {
	t.Run("N7: cutting a cluster ends its sessions within a second with the reason, and nobody else's", func(t *testing.T) {
		var revoked atomic.Bool
		h, clusters := changedHub(t, func(c *acceptor.ServerConfig) {
			c.Cluster = func(cs tls.ConnectionState) (string, error) {
				name := cs.PeerCertificates[0].Subject.CommonName
				if name == "edge-1" && revoked.Load() {
					return "", errors.New("cluster edge-1 was revoked")
				}
				return name, nil
			}
		})
		ca := h.cert
		links := map[string]*mux.Link{}
		logs := map[string]*lockedBuffer{"edge-1": {}, "edge-2": {}}
		for _, cluster := range []string{"edge-1", "edge-2"} {
			h.cert = issue(t, ca, cluster, time.Now().Add(time.Hour))
			cert := h.cert
			one := &hub{t: t, pool: h.pool, cert: cert, address: h.address}
			one.dial(t, logs[cluster])
			link := <-h.links
			links[<-clusters] = link
		}
		var flood sync.WaitGroup
		ended := make(map[string]chan error)
		for cluster, link := range links {
			s, err := link.Open(t.Context(), mux.Request{Target: wire.KubernetesAPI()})
			if err != nil {
				t.Fatal(err)
			}
			end := make(chan error, 1)
			ended[cluster] = end
			flood.Go(func() {
				chunk := make([]byte, 64<<10)
				for {
					if _, err := s.Write(chunk); err != nil {
						return
					}
				}
			})
			flood.Go(func() {
				_, err := io.Copy(io.Discard, s)
				end <- err
			})
			t.Cleanup(func() { _ = s.Close() })
		}
		// A busy machine may need longer for everything: this is how long in such a flood.
		start := time.Now()
		if err := roundTrip(t.Context(), links["edge-2"], []byte("and back")); err != nil {
			t.Fatal(err)
		}
		pace := time.Since(start)
		revoked.Store(true)
		start = time.Now()
		if n := h.server.Cut("edge-1", wire.CodeUnauthenticated, "cluster edge-1 was revoked"); n != 1 {
			t.Errorf("%d links cut", n)
		}
		select {
		case err := <-ended["edge-1"]:
			if err == nil || !strings.Contains(err.Error(), "cluster edge-1 was revoked") {
				t.Errorf("the session ended with %v", err)
			}
			if took := time.Since(start); took > time.Second+10*pace {
				t.Errorf("after %v, where a round trip takes %v", took, pace)
			}
		case <-time.After(patience):
			t.Fatal("the session goes on")
		}
		<-links["edge-1"].Done()
		select {
		case err := <-ended["edge-2"]:
			t.Errorf("another cluster's session ended: %v", err)
		default:
		}
		eventually(t, "the agent knows why", func() bool {
			return strings.Contains(logs["edge-1"].String(), "cluster edge-1 was revoked")
		})
		if n := h.server.Cut("edge-1", wire.CodeUnauthenticated, "again"); n != 0 {
			t.Errorf("it came back: %d links", n)
		}
		_ = links["edge-2"].Drain(expired(), wire.CodeDraining, "the test is over")
		flood.Wait()
	})
	t.Run("N7: an agent without sessions gets a GOAWAY with the code", func(t *testing.T) {
		h := newHub(t)
		d := h.dial(t, io.Discard)
		<-h.links
		eventually(t, "the dialler publishes the link", func() bool { return d.Link() != nil })
		link := d.Link()
		h.server.Cut("test", wire.CodeUnauthenticated, "cluster test was revoked")
		<-link.Done()
		var e *mux.Error
		if err := link.Err(); !errors.As(err, &e) || e.Code != wire.CodeUnauthenticated || e.Message != "cluster test was revoked" {
			t.Errorf("%v", err)
		}
		<-h.links // nothing was revoked, so it may come back
	})
	t.Run("N7: a link that begins while its cluster is revoked does not come about", func(t *testing.T) {
		var looks atomic.Int32
		h, _ := changedHub(t, func(c *acceptor.ServerConfig) {
			c.Cluster = func(tls.ConnectionState) (string, error) {
				if looks.Add(1)%2 == 0 {
					return "", errors.New("revoked a moment ago")
				}
				return "test", nil
			}
		})
		var log lockedBuffer
		h.dial(t, &log)
		eventually(t, "the agent is refused", func() bool { return strings.Contains(log.String(), "revoked a moment ago") })
		if len(h.links) > 0 {
			t.Error("a link was registered")
		}
	})
}

// expired is a context that is done.
func expired() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
