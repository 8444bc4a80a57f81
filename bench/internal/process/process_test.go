package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Enter(map[string]Role{
		"double": As(func(ctx context.Context, n int, ready func(any) error) error {
			if err := ready(2 * n); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}),
		"broken": As(func(context.Context, int, func(any) error) error { return errors.New("no such thing") }),
		"silent": As(func(ctx context.Context, _ int, _ func(any) error) error {
			<-ctx.Done()
			return nil
		}),
	})
	goleak.VerifyTestMain(m)
}

func TestRoleAnswersAndEnds(t *testing.T) {
	dir := t.TempDir()
	var answer int
	p, err := Start(t.Context(), Spec{Name: "d", Role: "double", Config: 21, Ready: &answer, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if answer != 42 {
		t.Errorf("it answered %d", answer)
	}
	if n, err := p.Resident(); err != nil || n < 1<<20 {
		t.Errorf("it holds %d bytes: %v", n, err)
	}
	if n, err := p.Settled(t.Context(), time.Millisecond); err != nil || n < 1<<20 {
		t.Errorf("it settles at %d bytes: %v", n, err)
	}
	if _, err := p.CPU(); err != nil {
		t.Error(err)
	}
	profile := filepath.Join(dir, "cpu.pprof")
	if err := errors.Join(p.Profile(profile), p.Profile("")); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(profile); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("a second stop says %v", err)
	}
}

func TestFailedStartsAreExplained(t *testing.T) {
	late, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for title, c := range map[string]struct {
		ctx  context.Context
		spec Spec
		want string
	}{
		"the role fails":   {t.Context(), Spec{Role: "broken", Config: 1}, "no such thing"},
		"no such role":     {t.Context(), Spec{Role: "nobody", Config: 1}, `no role "nobody"`},
		"bad config":       {t.Context(), Spec{Role: "double", Config: "x"}, "configuration"},
		"bad answer":       {t.Context(), Spec{Role: "double", Config: 1, Ready: new(string)}, "its answer"},
		"never ready":      {late, Spec{Role: "silent", Config: 1}, "not ready in time"},
		"no such program":  {t.Context(), Spec{Command: []string{"/nonexistent"}}, "/nonexistent"},
		"no folder to log": {t.Context(), Spec{Role: "double", Dir: "/nonexistent"}, "log"},
	} {
		t.Run(title, func(t *testing.T) {
			c.spec.Name = "child"
			if c.spec.Dir == "" {
				c.spec.Dir = t.TempDir()
			}
			_, err := Start(c.ctx, c.spec)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something about %q", err, c.want)
			}
		})
	}
}

func TestOtherPrograms(t *testing.T) {
	p, err := Start(t.Context(), Spec{Name: "cat", Command: []string{"cat"}, Within: []string{"env"}, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("it still runs")
	}
}

func TestParse(t *testing.T) {
	stat := "42 (a ) b) S 1 42 42 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 9 0 1 2 3"
	if used, err := parseStat([]byte(stat)); err != nil || used != 3*time.Second {
		t.Errorf("cpu: %v %v", used, err)
	}
	for _, bad := range []string{"", "42 (x) S 1", "no name at all", "42 (x) S 1 1 1 0 -1 1 1 2 3 4 x y 0"} {
		if used, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q gave %v", bad, used)
		}
	}
	if n, err := parseResident([]byte("Name:\tx\nVmRSS:\t  2048 kB\n")); err != nil || n != 2<<20 {
		t.Errorf("memory: %v %v", n, err)
	}
	for _, bad := range []string{"", "VmRSS:\tmany kB\n", "State:\tZ (zombie)\n"} {
		if n, err := parseResident([]byte(bad)); err == nil {
			t.Errorf("%q gave %v", bad, n)
		}
	}
}
