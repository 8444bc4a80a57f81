package kube

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// manifest is a ConfigMap.
func manifest(name, value string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: work}, data: {key: %q}}\n", name, value)
}

func testKubectl(t *testing.T, w *world) {
	ctx := within(t, 3*time.Minute)
	k := w.ops.kubectl
	run := func(t *testing.T, want string, stdin string, args ...string) {
		t.Helper()
		out, err := k.Input(ctx, stdin, args...)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("kubectl %s: %q, %v; want %q", strings.Join(args, " "), out, err, want)
		}
	}
	value := func(t *testing.T, name string) string {
		t.Helper()
		var object struct{ Data map[string]string }
		res := w.direct(t, "GET", "/api/v1/namespaces/work/configmaps/"+name, nil)
		must(t, json.Unmarshal(res.body, &object))
		return object.Data["key"]
	}
	t.Run("O3,O20: kubectl apply, get, edit by patch, and delete", func(t *testing.T) {
		run(t, "created", manifest("applied", "1"), "apply", "-f", "-")
		run(t, "configured", manifest("applied", "2"), "apply", "-f", "-")
		if got := value(t, "applied"); got != "2" {
			t.Errorf("the API server has %q", got)
		}
		run(t, "applied", "", "-n", "work", "get", "configmap", "applied", "-o", "name")
		run(t, "patched", "", "-n", "work", "patch", "configmap", "applied", "--type=json", "-p", `[{"op":"replace","path":"/data/key","value":"3"}]`)
		run(t, "deleted", "", "-n", "work", "delete", "configmap", "applied", "--wait=true")
		if res := w.direct(t, "GET", "/api/v1/namespaces/work/configmaps/applied", nil); res.status != 404 {
			t.Errorf("after delete: %d", res.status)
		}
	})
	t.Run("O3,O20: kubectl apply --server-side, with a conflict that is told", func(t *testing.T) {
		run(t, "serverside-applied", manifest("owned", "1"), "apply", "--server-side", "-f", "-")
		_, err := k.Input(ctx, manifest("owned", "2"), "apply", "--server-side", "--field-manager=other", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), "conflict") {
			t.Errorf("got %v, want a conflict of field managers", err)
		}
		run(t, "serverside-applied", manifest("owned", "2"), "apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-")
		if got := value(t, "owned"); got != "2" {
			t.Errorf("the API server has %q", got)
		}
	})
	t.Run("O20: discovery: api-resources, api-versions, explain, version", func(t *testing.T) {
		run(t, "deployments", "", "api-resources")
		run(t, "rbac.authorization.k8s.io/v1", "", "api-versions")
		run(t, "DESCRIPTION", "", "explain", "pods.spec.containers")
		run(t, "Server Version: v1.35", "", "version")
	})
	t.Run("O20: kubectl over HTTP/1.1 alone", func(t *testing.T) {
		cmd := k.Command(ctx, "-n", "work", "get", "configmaps", "-o", "name")
		cmd.Env = append(cmd.Env, http1...)
		out, err := cmd.Output()
		if err != nil || !bytes.Contains(out, []byte("configmap/first")) {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("O20: a list in pages", func(t *testing.T) {
		var yaml strings.Builder
		for i := range 25 {
			yaml.WriteString("---\n" + manifest(fmt.Sprintf("page-%d", i), "x"))
		}
		run(t, "created", yaml.String(), "apply", "--server-side=false", "-f", "-")
		out, err := k.Run(ctx, "-n", "work", "get", "configmaps", "--chunk-size=7", "-o", "name")
		if n := strings.Count(out, "configmap/page-"); err != nil || n != 25 {
			t.Errorf("kubectl --chunk-size: %d of 25, %v", n, err)
		}
		for name, version := range versions {
			pages, names := w.pages(t, version, "/api/v1/namespaces/work/configmaps", 10)
			slices.Sort(names)
			if names = slices.Compact(names); pages < 3 || len(slices.DeleteFunc(names, notPage)) != 25 {
				t.Errorf("%s: %d pages with %v", name, pages, names)
			}
		}
	})
	t.Run("O20: --raw with a query whose equals sign is escaped", func(t *testing.T) {
		out, err := k.Run(ctx, "get", "--raw", "/api/v1/namespaces/work/configmaps?fieldSelector=metadata.name%3Dfirst&limit=500")
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		must(t, err)
		must(t, json.Unmarshal([]byte(out), &list))
		if len(list.Items) != 1 || list.Items[0].Metadata.Name != "first" {
			t.Errorf("got %+v", list)
		}
		run(t, "configmap/first\n", "", "-n", "work", "get", "configmaps", "--field-selector=metadata.name=first", "-o", "name")
		run(t, "ok", "", "get", "--raw", "/readyz")
	})
}

func notPage(name string) bool { return !strings.HasPrefix(name, "page-") }

// pages lists by limit and continue and returns how many pages came, and the
// names in them.
func (w *world) pages(t *testing.T, version int, path string, limit int) (pages int, names []string) {
	t.Helper()
	client := w.caller(t, version)
	for next := ""; ; {
		var list struct {
			Metadata struct{ Continue string }
			Items    []struct{ Metadata struct{ Name string } }
		}
		res := get(t, client, fmt.Sprintf("%s%s?limit=%d&continue=%s", managedURL, path, limit, next), w.ops.token, 200)
		must(t, json.Unmarshal(res.body, &list))
		pages++
		for _, item := range list.Items {
			names = append(names, item.Metadata.Name)
		}
		if next = list.Metadata.Continue; next == "" {
			return pages, names
		}
	}
}

func testBulk(t *testing.T, w *world) {
	const objects, size = 500, 10 << 20
	t.Run("O20: kubectl apply of 500 objects from one file of 10 MiB", func(t *testing.T) {
		ctx := within(t, 5*time.Minute)
		file := filepath.Join(tempDir(t, "bulk-"), "bulk.yaml")
		hashes := writeBulk(t, file, objects, size)
		started := time.Now()
		out, err := w.ops.kubectl.Run(ctx, "apply", "-f", file)
		must(t, err)
		t.Logf("%d objects in %v", objects, time.Since(started))
		if n := strings.Count(out, " created\n"); n != objects {
			t.Errorf("%d of %d created", n, objects)
		}
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Data     map[string]string
			}
		}
		must(t, json.Unmarshal(w.direct(t, "GET", "/api/v1/namespaces/bulk/configmaps", nil).body, &list))
		for _, item := range list.Items {
			if hashes[item.Metadata.Name] != hash([]byte(item.Data["noise"])) {
				t.Errorf("ConfigMap %s is not what was applied", item.Metadata.Name)
			}
			delete(hashes, item.Metadata.Name)
		}
		if len(hashes) > 0 {
			t.Errorf("%d objects are missing", len(hashes))
		}
	})
}

// writeBulk writes a file of exactly size bytes with ConfigMaps and returns the
// hash of each one's data.
func writeBulk(t *testing.T, file string, objects, size int) map[string]string {
	t.Helper()
	const line = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: bulk-%03d, namespace: bulk}, data: {noise: %q}}\n"
	overhead := len(fmt.Sprintf(line, 0, ""))
	source := noise()
	hashes := map[string]string{}
	var text bytes.Buffer
	for i := range objects {
		// The last one takes what the division leaves over.
		length := (size-text.Len())/(objects-i) - overhead
		raw := make([]byte, (length+1)/2)
		_, err := source.Read(raw)
		must(t, err)
		data := hex.EncodeToString(raw)[:length]
		fmt.Fprintf(&text, line, i, data)
		hashes[fmt.Sprintf("bulk-%03d", i)] = hash([]byte(data))
	}
	if text.Len() != size {
		t.Fatalf("the file has %d bytes, want %d", text.Len(), size)
	}
	must(t, os.WriteFile(file, text.Bytes(), 0o600))
	return hashes
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
