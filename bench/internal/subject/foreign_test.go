package subject

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/service"
)

func TestMain(m *testing.M) {
	process.Enter(Roles())
	goleak.VerifyTestMain(m)
}

func TestForeignFilesAreChecked(t *testing.T) {
	const good = "name: x\nprocesses: [{name: a, command: [a]}]\ntcp: 127.0.0.1:1\n"
	for title, c := range map[string]struct{ text, want string }{
		"good":            {good, ""},
		"empty":           {"", "name: "},
		"no processes":    {"name: x\ntcp: a", "processes: at least one"},
		"no command":      {"name: x\ntcp: a\nprocesses: [{name: a}]", "processes[0]: name and command"},
		"no way":          {"name: x\nprocesses: [{name: a, command: [a]}]", "tcp, connect: give exactly one"},
		"two ways":        {good + "connect: 127.0.0.1:2\n", "tcp, connect: give exactly one"},
		"a taken name":    {strings.Replace(good, "name: x", "name: culvert", 1), "name: \"culvert\""},
		"an unknown name": {good + "tpc: x\n", "tpc"},
		"a file outside":  {good + "files: {../x: y}\n", "want a plain file name"},
	} {
		t.Run(title, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "t.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadForeign(file)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := LoadForeign("/nonexistent"); err == nil {
		t.Error("no file, no error")
	}
}

func TestTemplates(t *testing.T) {
	env := &Env{
		Near: Side{Host: "192.0.2.1"}, Far: Side{Host: "192.0.2.2"}, Cert: "/c", Key: "/k", CA: "/a",
		Service: service.Addresses{TCP: "192.0.2.2:700", Web: "192.0.2.2:443"},
	}
	fill, err := newFiller(env, "/dir")
	if err != nil {
		t.Fatal(err)
	}
	got, err := fill.text("x", "{{.Service}} {{.Host}} {{.Port}} {{.Web}} {{.Near}} {{.Far}} {{.Cert}} {{.Key}} {{.CA}} {{.Dir}}")
	if want := "192.0.2.2:700 192.0.2.2 700 192.0.2.2:443 192.0.2.1 192.0.2.2 /c /k /a /dir"; err != nil || got != want {
		t.Errorf("got %q, want %q: %v", got, want, err)
	}
	ports, err := fill.text("x", `{{port "a"}} {{port "a"}} {{port "b"}}`)
	p := strings.Fields(ports)
	if err != nil || len(p) != 3 || p[0] != p[1] || p[0] == p[2] {
		t.Errorf("ports %q: %v", ports, err)
	}
	for _, bad := range []string{"{{.Nobody}}", "{{", "{{port}}"} {
		if got, err := fill.text("tcp", bad); err == nil || !strings.Contains(err.Error(), "tcp") {
			t.Errorf("%q gave %q %v", bad, got, err)
		}
	}
}

func TestTunnelsThatDoNotStartAreExplained(t *testing.T) {
	side := Side{Host: "127.0.0.1"}
	env, err := NewEnv(t.TempDir(), side, side)
	if err != nil {
		t.Fatal(err)
	}
	env.Service = service.Addresses{TCP: "127.0.0.1:1", Web: "127.0.0.1:1"}
	f := &Foreign{
		Called: "broken", TCP: "127.0.0.1:1",
		Processes: []ForeignProcess{{Name: "a", Command: []string{"sh", "-c", "echo no such option >&2; exit 3"}}},
	}
	// The time for the start is over once the process has said what is wrong.
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	waiting.Go(func() { defer cancel(); said(ctx, filepath.Join(env.Dir, "*", "a.log")) })
	defer waiting.Wait()
	defer cancel()
	if _, err := f.Start(ctx, env); err == nil || !strings.Contains(err.Error(), "no such option") {
		t.Errorf("got %v, want the end of its log", err)
	}
}

// said returns when a file of the pattern has a line, or with ctx.
func said(ctx context.Context, pattern string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		files, _ := filepath.Glob(pattern) // the pattern is a good one
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(text), "\n") {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
