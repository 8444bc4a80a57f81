package carry

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPing(t *testing.T) {
	t.Run("each hop's latency and version, and a summary", func(t *testing.T) {
		out, err := output(command(t.Context(), "ping", "edge-1", "-c", "3", "-i", "100ms"))
		for _, want := range []string{
			`(?m)^edge-1: client \S+, hub \S+, agent \S+ \S+, API server v1\.\d+`, `(?m)^3: hub [\d.]+[µm]?s, agent [\d.]+[µm]?s, API server [\d.]+[µm]?s$`,
			`(?m)^3 sent, 0 failed$`, `(?m)^HOP +VERSION +MIN +AVG +MAX$`, `(?m)^target +v1\.`,
		} {
			if err != nil || !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("%v, want %s in:\n%s", err, want, out)
			}
		}
	})
	t.Run("the same for programs", func(t *testing.T) {
		out, err := output(command(t.Context(), "ping", "edge-1", "-c", "2", "-i", "100ms", "-o", "json"))
		must(t, err)
		var got struct {
			Cluster      string
			Sent, Failed int
			Hops         []struct {
				Hop, Version  string
				Min, Avg, Max time.Duration
			}
		}
		must(t, json.Unmarshal([]byte(out), &got))
		if got.Cluster != "edge-1" || got.Sent != 2 || got.Failed != 0 || len(got.Hops) != 3 {
			t.Errorf("%s", out)
		}
		for _, h := range got.Hops {
			if h.Version == "" || h.Min <= 0 || h.Min > h.Avg || h.Avg > h.Max || h.Max > time.Minute {
				t.Errorf("%+v", h)
			}
		}
		if yaml, err := output(command(t.Context(), "ping", "edge-1", "-c", "1", "-o", "yaml")); err != nil || !strings.HasPrefix(yaml, "cluster: edge-1\n") {
			t.Errorf("%v %s", err, yaml)
		}
	})
}

func TestVerify(t *testing.T) {
	t.Run("P26: the settings are read back and tested live, each step with its result", func(t *testing.T) {
		for _, args := range [][]string{{"verify", "edge-1"}, {"verify"}} {
			out, err := output(command(t.Context(), args...))
			for _, want := range []string{
				`(?m)^ok +settings +https://198\.18\.0\.1:`, `(?m)^ok +dns +198\.18\.0\.1 is an address$`,
				`(?m)^ok +tls +TLS 1\.3, for 198\.18\.0\.1, issued by .+, good until 20`, `(?m)^ok +login +ada by `, `(?m)^ok +clusters`,
				`(?m)^ok +round trip edge-1 +hub \S+ in .+, agent .+, API server v1\.`, `(?m)^ok +kubeconfig edge-1 +https://\S+/edge-1, verified$`,
			} {
				if err != nil || !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("%v: %v, want %s in:\n%s", args, err, want, out)
				}
			}
		}
	})
	t.Run("P26: a step that fails says what to do, and those that need it are skipped", func(t *testing.T) {
		out, err := output(commandAs(t.Context(), flags(hubAddress(), "wrong.token"), "verify", "edge-1", "-o", "json"))
		var steps []struct{ Step, State, Detail, Remedy string }
		must(t, json.Unmarshal([]byte(out), &steps))
		if err == nil || len(steps) != 7 || steps[2].State != "ok" || steps[3].Step != "login" || steps[3].State != "failed" || steps[3].Remedy == "" ||
			steps[4].State != "skipped" || steps[6].State != "skipped" || !strings.Contains(err.Error(), "login: ") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("P26: a CA that is not the hub's", func(t *testing.T) {
		wrong := flags(hubAddress(), "ada.token")
		wrong[3] = the.cluster.CAFile
		out, err := output(commandAs(t.Context(), wrong, "verify"))
		if err == nil || !regexp.MustCompile(`(?m)^failed +tls +.*certificate`).MatchString(out) || !strings.Contains(out, "--hub-ca") {
			t.Errorf("%v %s", err, out)
		}
	})
}

func TestBench(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		whats []string
	}{
		"the API server":        {[]string{"edge-1"}, []string{"requests"}},
		"an echo":               {[]string{"edge-1", "web.prod:7002"}, []string{"connections", "round trips", "echoed bytes"}},
		"a server that is mute": {[]string{"edge-1", "web.prod:7003", "--discard"}, []string{"connections", "uploaded bytes"}},
	} {
		t.Run("what goes through the tunnel is measured: "+name, func(t *testing.T) {
			// A machine that is held up for all of the time has nothing to measure in it.
			var got []measured
			for _, duration := range []string{"1500ms", "15s", "60s"} {
				got = bench(t, append(c.args, "--duration", duration)...)
				if !slices.ContainsFunc(got, func(m measured) bool { return m.Count == 0 && m.BytesPerSecond < enoughBytes }) {
					break
				}
			}
			if len(got) != len(c.whats) {
				t.Fatalf("%+v", got)
			}
			for i, m := range got {
				times := m.Count > 0 && m.PerSecond > 0 && m.Median > 0 && m.Median <= m.P99 && m.P99 <= m.Max
				bytes := m.BytesPerSecond > enoughBytes
				if m.What != c.whats[i] || m.Errors != 0 || times == bytes {
					t.Errorf("%+v", m)
				}
			}
		})
	}
}

// enoughBytes is what comes through at least in a second.
const enoughBytes = 100_000

// measured is a measure of culvert bench.
type measured struct {
	What                      string
	Count, Errors             int
	PerSecond, BytesPerSecond float64
	Median, P99, Max          time.Duration
}

// bench runs culvert bench, two at a time.
func bench(t *testing.T, args ...string) []measured {
	t.Helper()
	out, err := output(command(t.Context(), append(append([]string{"bench"}, args...), "--parallel", "2", "-o", "json")...))
	must(t, err)
	t.Logf("%s", out)
	var got struct{ Measures []measured }
	must(t, json.Unmarshal([]byte(out), &got))
	return got.Measures
}
