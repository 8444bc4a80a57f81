package kubectl

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/culvertdev/culvert/e2e/testbed"
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
	}
	list := make([]access, 0, len(ways))
	for _, way := range ways {
		list = append(list, access{name: way.name, row: way.row, kubeconfig: w.kubeconfig(t, way.name, way.text)})
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
