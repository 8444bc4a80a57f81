package kube

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// The cluster IPs of the services, as in serviceObjects.
const (
	webAddress, singleAddress, portsAddress     = "10.96.1.1", "10.96.1.2", "10.96.1.3"
	lockedAddress, databaseAddress, lostAddress = "10.96.1.4", "10.96.1.5", "10.96.1.6"
)

// relayPort is of a server on the private host itself, to which the API server
// proxies on its own.
const relayPort = "8081"

// serviceObjects are the services of the managed cluster. Nothing answers at
// the service lost.
var serviceObjects = fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: %s, ports: [{name: https, port: 443}, {name: http, port: 80}, {name: extra, port: 9443}]}
---
apiVersion: v1
kind: Service
metadata: {name: single, namespace: shop}
spec: {clusterIP: %s, ports: [{name: only, port: 7443}]}
---
apiVersion: v1
kind: Service
metadata: {name: ports, namespace: shop}
spec: {clusterIP: %s, ports: [{name: open, port: 443}, {name: closed, port: 9443}]}
---
apiVersion: v1
kind: Service
metadata: {name: locked, namespace: shop}
spec: {clusterIP: %s, ports: [{name: https, port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: database, namespace: shop}
spec: {clusterIP: %s, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: lost, namespace: shop}
spec: {clusterIP: %s, ports: [{name: https, port: 443}]}
---
apiVersion: v1
kind: Service
metadata: {name: relay, namespace: shop}
spec: {ports: [{name: http, port: 80, targetPort: %s}]}
---
apiVersion: v1
kind: Pod
metadata: {name: relay, namespace: shop}
spec: {containers: [{name: relay, image: relay}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: relay, namespace: shop}
subsets:
- addresses: [{ip: %s, targetRef: {kind: Pod, namespace: shop, name: relay}}]
  ports: [{name: http, port: %[7]s}]
`, webAddress, singleAddress, portsAddress, lockedAddress, databaseAddress, lostAddress, relayPort, testbed.InsideAddress)

// allowedServices is what the agent allows of them. The service ports is allowed
// at one number only.
var allowedServices = []string{"shop/web", "shop/single:7443", "shop/ports:443", "shop/lost"}

// services are real servers in the private network.
type services struct {
	caFile string
	// next lets the handler of /pieces send its next piece.
	next chan struct{}
	// heard has what the peer of an upgraded stream said, when it ended its side.
	heard chan digest
	// refused counts requests to what the agent must not reach.
	refused atomic.Int32
}

// digest is what arrived: how much, and its hash.
type digest struct {
	Bytes  int64
	SHA256 string
}

func startServices(ctx context.Context, t *testing.T, w *world) *services {
	t.Helper()
	s := &services{
		caFile: filepath.Join(w.dir, "services-ca.crt"),
		next:   make(chan struct{}), heard: make(chan digest, 1),
	}
	must(t, w.managed.Apply(ctx, serviceObjects))
	// The API server proxies to addresses of pods alone, which a kubelet reports.
	if res := w.direct(t, "PATCH", "/api/v1/namespaces/shop/pods/relay/status",
		fmt.Appendf(nil, `{"status":{"podIP":%[1]q,"podIPs":[{"ip":%[1]q}]}}`, testbed.InsideAddress),
		"Content-Type", "application/merge-patch+json"); res.status != http.StatusOK {
		t.Fatalf("address of pod relay: %d %s", res.status, res.body)
	}
	for _, ip := range []string{webAddress, singleAddress, portsAddress, lockedAddress, databaseAddress, lostAddress} {
		must(t, w.private.Inside.AddAddress(netip.MustParseAddr(ip)))
	}
	certificate := newServiceCertificate(t, s.caFile, "web.shop.svc", "single.shop.svc", "ports.shop.svc", "locked.shop.svc")
	inside := w.private.Inside
	for _, address := range []string{webAddress + ":443", webAddress + ":9443", singleAddress + ":7443", portsAddress + ":443"} {
		s.serve(ctx, t, inside, address, certificate, http.HandlerFunc(s.handle))
	}
	s.serve(ctx, t, inside, webAddress+":80", nil, http.HandlerFunc(s.handle))
	s.serve(ctx, t, inside, testbed.InsideAddress.String()+":"+relayPort, nil, http.HandlerFunc(s.handle))
	for _, address := range []string{lockedAddress + ":443", portsAddress + ":9443"} {
		s.serve(ctx, t, inside, address, certificate, http.HandlerFunc(s.refuse))
	}
	s.serveDatabase(ctx, t, inside)
	return s
}

// serve serves HTTP, or HTTPS with a certificate, until the end of t.
func (s *services) serve(ctx context.Context, t *testing.T, in *testbed.Namespace, address string, certificate *tls.Certificate, handler http.Handler) {
	t.Helper()
	listener, err := in.Listen(ctx, address)
	must(t, err)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	if certificate != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}
	}
	ended := make(chan error, 1)
	go serveHTTP(server, listener, ended)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close the server of %s: %v", address, err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("server of %s: %v", address, err)
		}
	})
}

// serveHTTP ends with the server and sends one result.
func serveHTTP(server *http.Server, listener net.Listener, ended chan<- error) {
	if server.TLSConfig != nil {
		ended <- server.ServeTLS(listener, "", "")
		return
	}
	ended <- server.Serve(listener)
}

func (s *services) refuse(http.ResponseWriter, *http.Request) { s.refused.Add(1) }

// handle answers by the first segment of the path. What it cannot do, it panics
// about, which the client sees as a broken answer.
func (s *services) handle(w http.ResponseWriter, r *http.Request) {
	switch first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); first {
	case "down":
		size, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64)
		check(err)
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, err = io.CopyN(w, noise(), size)
		check(err)
	case "up":
		hash := sha256.New()
		n, err := io.Copy(hash, r.Body)
		check(err)
		check(json.NewEncoder(w).Encode(digest{n, hex.EncodeToString(hash.Sum(nil))}))
	case "pieces":
		s.pieces(w, r)
	case "stream":
		stream(w, r)
	case "upgrade":
		s.upgrade(w, r)
	case "websocket":
		echoWebSocket(w, r)
	case "spdy":
		echoSPDY(w, r)
	default:
		check(json.NewEncoder(w).Encode(reflection{r.Method, r.RequestURI, r.Proto, r.Host, r.Header}))
	}
}

// reflection is what a service sees of a request.
type reflection struct {
	Method, Target, Proto, Host string
	Header                      http.Header
}

// pieceCount is how many pieces /pieces sends.
const pieceCount = 5

// pieces sends each piece only after the test has received the one before.
func (s *services) pieces(w http.ResponseWriter, r *http.Request) {
	for i := range pieceCount {
		fmt.Fprintf(w, "piece %d\n", i)
		check(http.NewResponseController(w).Flush())
		select {
		case <-s.next:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

// stream sends back what it receives as it arrives, and what it received in the
// trailer: the request's own trailer and the hash of its body.
func stream(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		check(http.NewResponseController(w).EnableFullDuplex())
	}
	w.Header().Set("Trailer", "Body-Sha256, Said-At-End")
	w.WriteHeader(http.StatusOK)
	check(http.NewResponseController(w).Flush())
	hash := sha256.New()
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buffer)
		hash.Write(buffer[:n])
		_, failed := w.Write(buffer[:n])
		check(failed)
		check(http.NewResponseController(w).Flush())
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
	}
	w.Header().Set("Body-Sha256", hex.EncodeToString(hash.Sum(nil)))
	w.Header().Set("Said-At-End", r.Trailer.Get("Said-At-End"))
}

// check aborts the answer of a handler.
func check(err error) {
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// noise is an endless source of bytes that do not compress; all are alike.
func noise() io.Reader {
	return randv2.NewChaCha8([32]byte([]byte("the same bytes at every reader!!")))
}

// newServiceCertificate makes a CA, written to caFile, and a certificate from it.
func newServiceCertificate(t *testing.T, caFile string, names ...string) *tls.Certificate {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "services"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	must(t, os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
