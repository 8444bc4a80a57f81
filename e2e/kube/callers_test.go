package kube

import (
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// testCallers shows from where the hub can be called.
func testCallers(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	t.Run("O23: kubectl works behind another router and beside the hub", func(t *testing.T) {
		for name, network := range map[string]*testbed.Namespace{"another private network": w.office.Inside, "the hub's network": nil} {
			k := w.ops.kubectl
			k.Namespace = network
			if out, err := k.Run(ctx, "-n", "work", "get", "configmap", "first", "-o", "name"); err != nil || out != "configmap/first\n" {
				t.Errorf("from %s: %q, %v", name, out, err)
			}
		}
	})
	t.Run("clients are served at every address of the hub, and agents have a port of their own", func(t *testing.T) {
		for _, url := range []string{hubURL, "https://127.0.0.1:" + clientPort} {
			res, err := w.curl(ctx, nil, "-H", "Authorization: Bearer "+w.ops.token, url+"/managed/version")
			if err != nil || res.status != 200 {
				t.Errorf("%s: %d %s, %v", url, res.status, res.body, err)
			}
		}
		if res, err := w.curl(ctx, nil, "https://"+testbed.HubAddress.String()+":"+agentPort+"/managed/version"); err == nil {
			t.Errorf("the agents' port served a client: %d %s", res.status, res.body)
		}
	})
	t.Run("O19: a bearer token and a URL are all that a call takes, with any HTTP client", func(t *testing.T) {
		for _, version := range versions {
			get(t, w.caller(t, version), managedURL+"/api/v1/namespaces/work/configmaps/first", w.ops.token, 200)
		}
	})
}
