package install

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// clusterName is the managed cluster's at every hub; token is a caller's.
const (
	clusterName = "edge-1"
	token       = "ada-token"
	tokensFile  = token + ",ada,1,\"dev\"\n"
)

// the is what the tests share.
var the *world

// world is a real cluster, and a kubeconfig for its agents.
type world struct {
	bed        *testbed.Bed
	managed    *testbed.Cluster
	kubeconfig string
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.stop())
		}
	}()
	servers, err := testbed.ServerBinaries(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(testbed.Dir(), "k")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if w.bed, err = testbed.New(ctx, testbed.Config{Dir: dir, Servers: servers}); err != nil {
		return nil, err
	}
	if w.managed, err = w.bed.StartCluster(ctx, testbed.ClusterConfig{Name: "managed"}); err != nil {
		return nil, err
	}
	w.kubeconfig, err = w.managed.AgentKubeconfig(ctx)
	return w, err
}

func (w *world) stop() error {
	if w.bed == nil {
		return nil
	}
	return w.bed.Close()
}

// layout returns the folder of one of the two builds.
func built(which string, more ...string) string {
	return filepath.Join(append([]string{testbed.Dir(), which}, more...)...)
}

// throughTunnel asks the cluster's API server by a hub, whose CA is the content of a
// file, which may not be there yet.
func throughTunnel(ctx context.Context, address, caFile string) error {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate", caFile)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/"+clusterName+"/version", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, text)
	}
	return nil
}

// folder makes one for a user and group of a jail.
func folder(t *testing.T, path string, mode os.FileMode, user, group int) string {
	t.Helper()
	must(t, os.MkdirAll(path, 0o755))
	must(t, os.Chmod(path, mode))
	own(t, path, user, group)
	return path
}

// secret writes a file that its group may read, as docs/install.md has it.
func secret(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
	own(t, path, 0, readers)
	must(t, os.Chmod(path, 0o640))
}
