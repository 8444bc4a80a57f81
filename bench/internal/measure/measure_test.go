package measure

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/culvertdev/culvert/bench/internal/process"
	"github.com/culvertdev/culvert/bench/internal/report"
	"github.com/culvertdev/culvert/bench/internal/subject"
)

func TestMain(m *testing.M) {
	process.Enter(subject.Roles())
	goleak.VerifyTestMain(m)
}

// foreign is another tunnel, made of this program's own relays: one that the
// harness knows only by its file.
const foreign = `
name: other
processes:
- name: socat
  hub: true
  command: [cat]
files:
  note: "{{.Service}} {{port \"x\"}}"
tcp: "{{.Service}}"
web: "https://{{.Web}}/"
`

func TestEveryMeasure(t *testing.T) {
	t.Run("N20: one run measures everything for Culvert, the reference and another tunnel", func(t *testing.T) {
		side := subject.Side{Host: "127.0.0.1"}
		env, err := subject.NewEnv(t.TempDir(), side, side)
		if err != nil {
			t.Fatal(err)
		}
		service, err := StartService(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(env.Dir, "other.yaml")
		if err := os.WriteFile(file, []byte(foreign), 0o600); err != nil {
			t.Fatal(err)
		}
		other, err := subject.LoadForeign(file)
		if err != nil {
			t.Fatal(err)
		}
		run := Run{
			Scale: scale(), Trials: All(), Env: env, Profiles: t.TempDir(),
			Tunnels: []subject.Tunnel{subject.Culvert{}, subject.Reference{}, other},
		}
		rows := measured(t, &run)
		if err := service.Stop(); err != nil {
			t.Error(err)
		}
		checkRows(t, rows)
		profiles, err := filepath.Glob(filepath.Join(run.Profiles, "download_16-culvert-hub-0.pprof"))
		if err != nil || len(profiles) != 1 {
			t.Errorf("profiles: %v %v", profiles, err)
		}
	})
}

// measured runs, and runs trials again in which nothing fell into a window: on a busy
// machine a short one may be over before the load had its turn.
func measured(t *testing.T, run *Run) []report.Row {
	t.Helper()
	var rows []report.Row
	for {
		var results report.Results
		if err := run.Do(t.Context(), &results); err != nil {
			t.Fatal(err)
		}
		for _, r := range results.Rows() {
			if !slices.ContainsFunc(rows, func(b report.Row) bool { return b.Measure == r.Measure && b.Subject == r.Subject }) {
				rows = append(rows, r)
			}
		}
		var again []Trial
		for _, f := range results.Failures() {
			empty := strings.Contains(f.Err.Error(), "nothing came through in") || strings.Contains(f.Err.Error(), "not one")
			if !empty || run.Scale.Window > 10*time.Second {
				t.Errorf("%s of %s: %v", f.Trial, f.Subject, f.Err)
				continue
			}
			i := slices.IndexFunc(run.Trials, func(trial Trial) bool { return trial.Name == f.Trial })
			if !slices.ContainsFunc(again, func(trial Trial) bool { return trial.Name == f.Trial }) {
				again = append(again, run.Trials[i])
			}
		}
		if len(again) == 0 {
			return rows
		}
		run.Trials = again
		run.Scale.Window *= 4
	}
}

// scale is tiny, but for windows that slow processes need.
func scale() Scale {
	s := Tiny()
	if slow {
		s.Window *= 5
	}
	return s
}

// checkRows wants a row of every measure that programs read.
func checkRows(t *testing.T, rows []report.Row) {
	t.Helper()
	alone := []string{"idle_agent_kib", "allocs_per_frame"}
	for _, id := range append(alone, strings.Fields(`download_1 download_16 upload_1 upload_16 cpu_per_gib
		pingpong_1_p50 pingpong_1_p99 pingpong_64_rps setup_rate pingpong_beside_bulk_p50 pingpong_beside_stall_rps
		pingpong_beside_stall_share idle_session_kib http_1_p50 http_64_rps http_64_p50 http_256_rps http2_64_rps
		integrity half_close`)...) {
		for _, s := range []string{report.Culvert, report.Reference, "other"} {
			if slices.Contains(alone, id) && s != report.Culvert {
				continue
			}
			i := slices.IndexFunc(rows, func(r report.Row) bool { return r.Measure == id && r.Subject == s })
			if i < 0 {
				t.Errorf("no row %s of %s", id, s)
				continue
			}
			r := rows[i]
			if r.Rounds != 1 || r.Min != r.Median || r.Max != r.Median || r.Unit == "" {
				t.Errorf("%+v", r)
			}
			if r.Unit == report.UnitPass && r.Median != 1 {
				t.Errorf("%s of %s failed", id, s)
			}
		}
	}
}

func TestSelect(t *testing.T) {
	got, err := Select(All(), regexp.MustCompile(`^(cpu_per_gib|setup_rate)$`))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || len(got[0].Gives) != 1 || got[0].Gives[0].ID != "cpu_per_gib" || got[1].Name != "setup" {
		t.Errorf("got %+v", got)
	}
	if _, err := Select(All(), regexp.MustCompile("nothing")); err == nil || !strings.Contains(err.Error(), "setup_rate") {
		t.Errorf("a pattern that matches nothing: %v", err)
	}
}

func TestScalesAreComplete(t *testing.T) {
	for title, s := range map[string]Scale{"full": Full(), "quick": Quick(), "tiny": Tiny()} {
		if s.Rounds < 1 || s.HeavyRounds < 1 || s.Window <= s.Warmup || s.Settle < time.Millisecond || s.Check < 1<<20 {
			t.Errorf("%s: %+v", title, s)
		}
	}
	if Full().Rounds < 5 {
		t.Error("figures that are quoted need five rounds")
	}
	ids := map[string]bool{}
	for _, trial := range All() {
		for _, m := range trial.Gives {
			if ids[m.ID] {
				t.Errorf("%s is measured twice", m.ID)
			}
			ids[m.ID] = true
		}
	}
	for _, c := range conditions() {
		ids["download_1_"+c.String()], ids["upload_1_"+c.String()] = true, true
	}
	for id := range report.Bars {
		if !ids[id] {
			t.Errorf("the bar of %s belongs to no measure", id)
		}
	}
}
