package install

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// hubService is what docs/install.md installs, without its pods.
const hubService = `apiVersion: v1
kind: Namespace
metadata: {name: culvert}
---
apiVersion: v1
kind: Service
metadata: {name: culvert-hub, namespace: culvert}
spec:
  type: LoadBalancer
  selector: {app: culvert-hub}
  ports: [{name: https, port: 443, targetPort: 8443}]
`

func TestEndpoints(t *testing.T) {
	ctx := within(t, time.Minute)
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(kubeconfig, testbed.Kubeconfigs(the.managed.AdminContext()), 0o600))
	cli := filepath.Join(unpack(t, "culvert"), "culvert")
	endpoints := func(ctx context.Context, more ...string) (string, string, error) {
		cmd := exec.CommandContext(ctx, cli, append([]string{"endpoints", "--kubeconfig", kubeconfig}, more...)...)
		var out, complaint strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &complaint
		err := cmd.Run()
		return out.String(), complaint.String(), err
	}
	if _, complaint, err := endpoints(ctx); err == nil || !strings.Contains(complaint, `services "culvert-hub" not found: is the hub installed there?`) {
		t.Errorf("no Service: %v: %s", err, complaint)
	}
	must(t, the.managed.Apply(ctx, hubService))
	if _, complaint, err := endpoints(ctx); err == nil || !strings.Contains(complaint, "the load balancer has no address yet: kubectl -n culvert describe service culvert-hub") {
		t.Errorf("no address yet: %v: %s", err, complaint)
	}
	_, err := the.managed.Kubectl(ctx, "-n", "culvert", "patch", "service", "culvert-hub", "--subresource=status", "--type=merge",
		"-p", `{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.7"},{"hostname":"hub.example.com"}]}}}`)
	must(t, err)
	t.Run("P11: culvert endpoints prints the addresses of the load balancer that kubectl shows", func(t *testing.T) {
		out, complaint, err := endpoints(ctx)
		if err != nil {
			t.Fatalf("%v: %s", err, complaint)
		}
		const want = "ADDRESS                       PORT    FROM\n203.0.113.7:443               https   everywhere\nhub.example.com:443           https   everywhere\nculvert-hub.culvert.svc:443   https   cluster\n"
		if out != want {
			t.Errorf("it prints\n%swant\n%s", out, want)
		}
		shown, err := the.managed.Kubectl(ctx, "-n", "culvert", "get", "service", "culvert-hub", "--no-headers")
		must(t, err)
		if !strings.Contains(shown, "203.0.113.7,hub.example.com") {
			t.Errorf("kubectl shows %s", shown)
		}
		out, complaint, err = endpoints(ctx, "-o", "json")
		if err != nil {
			t.Fatalf("%v: %s", err, complaint)
		}
		var list []struct{ Address, Port, From string }
		must(t, json.Unmarshal([]byte(out), &list))
		if len(list) != 3 || list[0].Address != "203.0.113.7:443" || list[0].From != "everywhere" {
			t.Errorf("as JSON: %s", out)
		}
	})
}
