package charts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// module is a Go module with definitions of kinds in it, of which nothing is built.
type module struct {
	path, version, sum string
	files              []string
}

// kinds are those of cert-manager and of Prometheus' operator, as they publish them.
var kinds = []module{
	{
		"github.com/cert-manager/cert-manager", "v1.21.2", "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
		[]string{"deploy/crds/cert-manager.io_certificates.yaml", "deploy/crds/cert-manager.io_issuers.yaml"},
	},
	{
		"github.com/prometheus-operator/prometheus-operator", "v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
		[]string{"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"},
	},
}

// fetchKinds puts the definitions into a folder. It needs the network.
func fetchKinds(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, m := range kinds {
		fmt.Fprintln(os.Stderr, "charts: definitions of", m.path, m.version)
		cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", m.path+"@"+m.version)
		cmd.Dir = dir // in no module
		out, err := cmd.Output()
		var got struct{ Dir, Sum, Error string }
		err = errors.Join(err, json.Unmarshal(out, &got))
		if err == nil && got.Sum != m.sum {
			err = fmt.Errorf("its sum is %q, want %q", got.Sum, m.sum)
		}
		if err != nil {
			return fmt.Errorf("download %s@%s: %w %s", m.path, m.version, err, got.Error)
		}
		for _, file := range m.files {
			text, err := os.ReadFile(filepath.Join(got.Dir, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyKinds makes the kinds known to a cluster.
func applyKinds(ctx context.Context, c *testbed.Cluster) error {
	files, err := filepath.Glob(filepath.Join(testbed.Dir(), "kinds", "*.yaml"))
	if err != nil {
		return err
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		all.WriteString("\n---\n" + string(text))
	}
	if err := apply(ctx, c, all.String()); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
		return err
	}
	// They are served, and in what the API server tells of its kinds, a moment later.
	return testbed.Poll(ctx, "the kinds to be served", func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "get", "certificates.cert-manager.io,issuers.cert-manager.io,servicemonitors", "--all-namespaces")
		return err
	})
}
