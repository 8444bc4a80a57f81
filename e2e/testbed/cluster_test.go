package testbed

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTwoClusters(t *testing.T) {
	ctx := within(t, 6*time.Minute)
	bed := startBed(ctx, t)
	started := time.Now()
	clusters, err := bed.StartClusters(ctx,
		ClusterConfig{Name: "hub"},
		ClusterConfig{Name: "managed", Tokens: []StaticToken{
			{Token: "ada-token", User: "ada", UID: "1", Groups: []string{"dev", "ops"}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("two clusters ready after %.1f s", time.Since(started).Seconds())
	hub, managed := clusters[0], clusters[1]

	t.Run("both answer readyz and report the pinned version", func(t *testing.T) {
		for _, c := range clusters {
			out, err := c.Kubectl(ctx, "get", "--raw", "/readyz")
			if err != nil || out != "ok" {
				t.Errorf("cluster %s: readyz = %q, %v", c.Name, out, err)
			}
			out, err = c.Kubectl(ctx, "version", "-o", "json")
			if err != nil {
				t.Fatal(err)
			}
			var version struct {
				ClientVersion, ServerVersion struct{ GitVersion string }
			}
			if err := json.Unmarshal([]byte(out), &version); err != nil {
				t.Fatal(err)
			}
			if version.ServerVersion.GitVersion != "v1.35.1" || version.ClientVersion != version.ServerVersion {
				t.Errorf("cluster %s: versions = %+v, want v1.35.1 on both sides", c.Name, version)
			}
		}
	})

	t.Run("a token of a service account is reviewed by its own cluster only", func(t *testing.T) {
		if _, err := hub.Kubectl(ctx, "create", "serviceaccount", "test-sa"); err != nil {
			t.Fatal(err)
		}
		token, err := hub.CreateToken(ctx, "default", "test-sa")
		if err != nil {
			t.Fatal(err)
		}
		if got := review(t, hub, token); !got.Authenticated || got.User.Username != "system:serviceaccount:default:test-sa" {
			t.Errorf("review in the hub cluster = %+v", got)
		}
		if got := review(t, managed, token); got.Authenticated {
			t.Errorf("the managed cluster accepts the hub's token: %+v", got)
		}
	})

	t.Run("the clusters do not share objects", func(t *testing.T) {
		if _, err := hub.Kubectl(ctx, "create", "namespace", "only-hub"); err != nil {
			t.Fatal(err)
		}
		if out, err := managed.Kubectl(ctx, "get", "namespace", "only-hub"); err == nil {
			t.Errorf("the managed cluster has the hub's namespace: %s", out)
		}
	})

	t.Run("a static token carries its user and groups", func(t *testing.T) {
		got := review(t, managed, "ada-token")
		if !got.Authenticated || got.User.Username != "ada" || !slices.Contains(got.User.Groups, "ops") {
			t.Errorf("review = %+v", got)
		}
	})

	t.Run("the agent's account may impersonate with uid and extra, and nothing else", func(t *testing.T) {
		path, err := managed.AgentKubeconfig(ctx)
		if err != nil {
			t.Fatal(err)
		}
		agent := managed.KubectlAs(path)
		if out, err := agent.Run(ctx, "get", "pods"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("get pods as the agent itself = %q, %v; want Forbidden", out, err)
		}
		out, err := agent.Run(ctx, "auth", "whoami", "-o", "json", "--as=cluster:hub:ada", "--as-uid=42", "--as-group=cluster:hub:dev",
			"--as-user-extra=authentication.kubernetes.io/credential-id=JTI=1")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"cluster:hub:ada", "cluster:hub:dev", `"42"`, "JTI=1"} {
			if !strings.Contains(out, want) {
				t.Errorf("whoami lacks %s: %s", want, out)
			}
		}
	})

	t.Run("the reviewer's account may review tokens", func(t *testing.T) {
		path, err := hub.ReviewerKubeconfig(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out, err := hub.KubectlAs(path).Run(ctx, "auth", "can-i", "create", "tokenreviews.authentication.k8s.io")
		if err != nil || strings.TrimSpace(out) != "yes" {
			t.Errorf("can-i = %q, %v", out, err)
		}
	})

	t.Run("an API server that crashed comes back at its address with its objects", func(t *testing.T) {
		pid := hub.APIServer.PID()
		if err := hub.APIServer.Kill9(); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.Kubectl(ctx, "get", "--raw", "/readyz"); err == nil {
			t.Fatal("the killed API server still answers")
		}
		if err := hub.APIServer.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if hub.APIServer.PID() == pid {
			t.Error("it is still the same process")
		}
		if _, err := hub.Kubectl(ctx, "get", "namespace", "only-hub"); err != nil {
			t.Error(err)
		}
	})

	t.Run("the memory of each process can be read", func(t *testing.T) {
		for name, p := range map[string]*Process{"etcd": bed.Etcd(), "hub": hub.APIServer, "managed": managed.APIServer} {
			m, err := p.Memory()
			if err != nil {
				t.Fatal(err)
			}
			if m.Resident < 1<<20 || m.Peak < m.Resident {
				t.Errorf("%s: implausible memory %+v", name, m)
			}
			t.Logf("%s: %d MiB, peak %d MiB", name, m.Resident>>20, m.Peak>>20)
		}
	})
}

// reviewStatus is the status of an authentication.k8s.io/v1 TokenReview.
type reviewStatus struct {
	Authenticated bool
	User          struct {
		Username, UID string
		Groups        []string
	}
	Error string
}

func review(t *testing.T, c *Cluster, token string) reviewStatus {
	t.Helper()
	out, err := c.Admin().Input(t.Context(), fmt.Sprintf(
		`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":%q}}`, token),
		"create", "-f", "-", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Status reviewStatus }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	return got.Status
}
