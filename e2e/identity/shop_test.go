package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// shopAddress is the cluster IP of the services of namespace shop.
var shopAddress = netip.MustParseAddr("10.96.7.7")

// shopObjects are services of the managed cluster: the hub's policy lets ada reach
// web and hidden, the agent's web alone.
const shopObjects = `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec: {clusterIP: 10.96.7.7, ports: [{name: https, port: 8443}, {name: admin, port: 9443}]}
- apiVersion: v1
  kind: Service
  metadata: {name: hidden, namespace: shop}
  spec: {clusterIP: 10.96.7.8, ports: [{name: https, port: 8443}]}
`

// shop is a real server behind these services, which answers as a recorder.
type shop struct {
	server *httptest.Server
	caFile string
}

// startShop starts it, and the DNS of the managed cluster.
func (w *world) startShop(ctx context.Context) error {
	var nowhere *testbed.Namespace // that is, the tests' own network
	if err := nowhere.AddAddress(shopAddress); err != nil {
		return err
	}
	ln, err := nowhere.Listen(ctx, netip.AddrPortFrom(shopAddress, 8443).String())
	if err != nil {
		return err
	}
	w.shop = &shop{caFile: filepath.Join(testbed.Dir(), "shop.crt"), server: &httptest.Server{
		Listener: ln, EnableHTTP2: true, Config: &http.Server{
			Handler: http.HandlerFunc(record), ReadHeaderTimeout: 10 * time.Second,
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), // of clients that hang up
		},
	}}
	signer, err := newAuthority()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	cert, err := signer.serving("web.shop.svc", "web.shop.svc.cluster.local", "hidden.shop.svc")
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	w.shop.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	w.shop.server.StartTLS()
	err = errors.Join(os.WriteFile(w.shop.caFile, signer.pem, 0o600), os.WriteFile(agentPolicyFile(), []byte(agentPolicy), 0o600),
		w.managed.Apply(ctx, shopObjects))
	if err != nil {
		return err
	}
	_, err = w.bed.StartDNS(ctx, w.managed)
	return err
}
