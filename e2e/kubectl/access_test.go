package kubectl

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
)

const (
	// domain is the hub's for host names of clusters.
	domain = "kube.test"
	// terminatedHost is the name of the cluster by the template. TLS ends at the hub.
	terminatedHost = "cluster-" + clusterName + "." + domain
	// passThroughHost is another name of it, for which TLS ends at kube-apiserver,
	// which has it in its certificate.
	passThroughHost = "api." + domain
	// proxiedHost is what clients of the hub's CONNECT call it. It is in no
	// certificate and in no DNS.
	proxiedHost = clusterName + "." + domain
	// apiServerName is a name that every API server has in its certificate, and a hub
	// with host names has in one of its own.
	apiServerName = "kubernetes"
)

// access is a way to the cluster: a kubeconfig as a user has it.
type access struct {
	name       string
	kubeconfig string
	// row is the id of the promise that this way keeps; empty for the control.
	row string
}

// accesses are all ways, the one without Culvert first.
func (w *world) accesses(t *testing.T) []access {
	t.Helper()
	direct := w.managed.AdminContext()
	ways := []struct {
		name, row string
		text      []byte
	}{
		{"direct", "", testbed.Kubeconfigs(direct)},
		{"path", "O20", testbed.Kubeconfig(w.url(clusterName), w.ca, w.token)},
		{"SNI terminated", "S3,S16", testbed.Kubeconfig("https://"+terminatedHost+":"+w.hubPort.Number(), w.ca, w.token)},
		{"SNI pass-through", "S4,S15", testbed.Kubeconfig("https://"+passThroughHost+":"+w.hubPort.Number(), direct.CA, direct.Token)},
		// client-go holds an https proxy's certificate against tls-server-name too, and has
		// one list of CAs for both.
		{"end to end", "N6", testbed.Kubeconfigs(testbed.KubeContext{
			Name: clusterName, Server: "https://" + proxiedHost, ServerName: apiServerName, Token: direct.Token,
			CA: slices.Concat(w.ca, direct.CA), ProxyURL: "https://culvert:" + w.token + "@" + w.hubPort.Addr(),
		})},
	}
	list := make([]access, 0, len(ways))
	for _, way := range ways {
		file := w.kubeconfig(t, strings.ReplaceAll(way.name, " ", "-"), way.text)
		list = append(list, access{name: way.name, row: way.row, kubeconfig: file})
	}
	return list
}

// kubeconfig writes a file. The cache of discovery lies beside it.
func (w *world) kubeconfig(t *testing.T, name string, text []byte) string {
	t.Helper()
	dir := filepath.Join(w.dir, "access-"+name)
	path := filepath.Join(dir, "kubeconfig")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(path, text, 0o600))
	return path
}
