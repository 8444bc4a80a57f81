package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/culvertdev/culvert/cmd/internal/clitest"
	"github.com/culvertdev/culvert/deploy/charts"
)

func TestManifests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"first.yaml": "hub: {publicHost: first.example.com, logLevel: debug}\n", "second.yaml": "hub: {publicHost: second.example.com}\n",
		"join.sh": "culvert-agent join --token culvert-join.abc.def\n", "broken.yaml": "hub: [\n", "twice.yaml": "hub: {}\nhub: {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) clitest.Result {
		t.Helper()
		return clitest.Run(t, dir, append([]string{"manifests"}, args...)...)
	}
	t.Run("P3: plain manifests are what the chart renders, with Helm's order of values", func(t *testing.T) {
		got := run("hub", "-f", "first.yaml", "-f", "second.yaml", "--set", "service.port=8443", "--set-string", "podLabels.build=7", "-n", "there", "--name", "gate")
		want, err := charts.Render(charts.Hub, charts.Options{Release: "gate", Namespace: "there", Values: map[string]any{
			"hub":     map[string]any{"publicHost": "second.example.com", "logLevel": "debug"},
			"service": map[string]any{"port": 8443}, "podLabels": map[string]any{"build": "7"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if got.Code != 0 || got.Stderr != "" || got.Stdout != want.Text() {
			t.Errorf("%+v, want\n%s", got, want.Text())
		}
	})
	t.Run("P3: the namespace and the next commands are printed when they are asked for", func(t *testing.T) {
		got := run("agent", "--set-file", "join.token=join.sh", "--set", "cluster.uid=edge-1", "--create-namespace", "--notes")
		if got.Code != 0 || !strings.HasPrefix(got.Stdout, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: cluster-edge-1\n") ||
			!strings.Contains(got.Stdout, "enforce: restricted") || !strings.Contains(got.Stdout, "token: Y3VsdmVydC1qb2luLmFiYy5kZWY=\n") ||
			!strings.Contains(got.Stderr, "rollout status deployment/culvert-agent") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("P7: a hub that is switched off is nothing", func(t *testing.T) {
		if got := run("hub", "--set", "frps.frps.enabled=false", "--create-namespace"); got.Code != 0 || got.Stdout != "" {
			t.Errorf("%+v", got)
		}
	})
	clitest.Refuses(t, dir, "culvert", []clitest.Failure{
		clitest.Fails("P8: a scheme", []string{"manifests", "hub", "--set", "hub.publicHost=https://hub.example.com"}, `hub.publicHost: "https://hub.example.com" has a scheme`),
		clitest.Fails("an unknown value", []string{"manifests", "hub", "-f", "first.yaml", "--set", "hubs.x=1"}, "values:", "hubs"),
		clitest.Fails("a file that is broken", []string{"manifests", "hub", "-f", "broken.yaml"}, "--values broken.yaml: yaml"),
		clitest.Fails("a value twice", []string{"manifests", "hub", "-f", "twice.yaml"}, "--values twice.yaml", `"hub" already set`),
		clitest.Fails("a file that is not there", []string{"manifests", "hub", "-f", "no.yaml"}, "--values no.yaml", "no such file"),
		clitest.Fails("half a value", []string{"manifests", "agent", "--set", "join.token"}, "--set join.token"),
		clitest.Fails("a token that is not there", []string{"manifests", "agent", "--set-file", "join.token=no"}, "--set-file join.token=no", "no such file"),
		clitest.Fails("no chart", []string{"manifests", "client"}, `"client"`),
		clitest.Fails("no cluster", []string{"endpoints", "--kubeconfig", "no"}, "kubeconfig"),
	})
}
