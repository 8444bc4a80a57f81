package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The tests of a small module that go test really runs.
const (
	passing = `package passing
import "testing"
func TestGood(t *testing.T) {
	t.Log("said by a passing test")
	t.Run("N2: half-close", func(t *testing.T) {})
}
`
	failing = `package failing
import "testing"
func TestBad(t *testing.T) {
	t.Log("said by the parent")
	t.Run("O16: refused", func(t *testing.T) { t.Error("got 200") })
	t.Run("good", func(t *testing.T) { t.Log("said by a passing subtest") })
}
func TestGood(t *testing.T) { t.Log("said by a passing test") }
`
	panicking = `package panicking
import "testing"
func TestPanic(t *testing.T) { panic("at the disco") }
`
	broken = `package broken
import "testing"
func TestBroken(t *testing.T) { undefined() }
`
)

// goTest runs go test in dir and gives its output; a failing run is no error.
func goTest(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-count=1", "-p=1"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

// variable matches what differs between two runs: times and addresses.
var variable = regexp.MustCompile(`\d+\.\d+s|0x[0-9a-f]+|goroutine \d+|\+0x.*`)

func TestRecordShowsWhatGoTestShows(t *testing.T) {
	for _, tt := range []struct{ name, source string }{
		{"passing", passing},
		{"failing", failing},
		{"panicking", panicking},
		{"broken", broken},
		{"empty", "package empty\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module example.com/m\n\ngo 1.26\n")
			write(t, filepath.Join(dir, "m.go"), "package "+tt.name+"\n")
			if tt.name != "empty" {
				write(t, filepath.Join(dir, "m_test.go"), tt.source)
			}
			want := goTest(t, dir, "./...")
			events := goTest(t, dir, "-json", "./...")

			var out strings.Builder
			stored := filepath.Join(dir, "build", "test-1.json")
			if err := run([]string{"record", stored}, strings.NewReader(events), &out); err != nil {
				t.Fatal(err)
			}
			// The compiler's messages of a plain run go to stderr.
			got := strings.Join(slicesWithout(out.String(), "# example.com/m", "./m_test.go:"), "\n")
			if got, want := variable.ReplaceAllString(got, "V"), variable.ReplaceAllString(want, "V"); got != want {
				t.Errorf("record shows\n%s\nwant as go test\n%s", got, want)
			}
			if tt.name == "broken" && !strings.Contains(out.String(), "undefined: undefined") {
				t.Errorf("the compiler's message is lost in\n%s", out.String())
			}
			kept, err := os.ReadFile(stored)
			if err != nil {
				t.Fatal(err)
			}
			if string(kept) != events {
				t.Errorf("stored events differ from those of go test:\n%s", kept)
			}
		})
	}
}

func slicesWithout(text string, prefixes ...string) []string {
	var kept []string
next:
	for line := range strings.SplitSeq(text, "\n") {
		for _, prefix := range prefixes {
			if strings.HasPrefix(line, prefix) {
				continue next
			}
		}
		kept = append(kept, line)
	}
	return kept
}

func TestRecordLive(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.com/m\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "m_test.go"), failing)
	events := goTest(t, dir, "-json", "./...")
	var out strings.Builder
	if err := run([]string{"record", "-live", filepath.Join(dir, "test-1.json")}, strings.NewReader("not an event\n"+events), &out); err != nil {
		t.Fatal(err)
	}
	t.Run("finished tests are shown once, in order", func(t *testing.T) {
		want := []string{"not an event\n", "--- FAIL: TestBad", "    --- FAIL: TestBad/O16:_refused", "m_test.go:5: got 200", "--- PASS: TestGood", "FAIL\texample.com/m", "\nFAIL\n"}
		rest := out.String()
		for _, part := range want {
			at := strings.Index(rest, part)
			if at < 0 {
				t.Fatalf("%q is missing or out of order in\n%s", part, out.String())
			}
			rest = rest[at+len(part):]
		}
		if n := strings.Count(out.String(), "--- FAIL: TestBad "); n != 1 {
			t.Errorf("the failure is shown %d times in\n%s", n, out.String())
		}
	})
	t.Run("what passing tests say is left out", func(t *testing.T) {
		if strings.Contains(out.String(), "said by a passing") {
			t.Errorf("output of passing tests in\n%s", out.String())
		}
	})
}

func TestRecordRefusesBrokenEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test-1.json")
	err := run([]string{"record", path}, strings.NewReader(`{"Action":"pass"`+"\n"), &strings.Builder{})
	if err == nil || !strings.Contains(err.Error(), "go test event") {
		t.Errorf("error is %v, want one that names the event", err)
	}
}

func TestSilenceIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, feed := io.Pipe()
		go func() {
			time.Sleep(40 * time.Second) // bubble time: a long compilation
			_, _ = io.WriteString(feed, `{"Action":"start","Package":"p"}`+"\n")
			time.Sleep(10 * time.Second)
			_ = feed.Close()
		}()
		var progress strings.Builder
		r := &recorder{store: io.Discard, out: io.Discard, progress: &progress, silence: 15 * time.Second}
		if err := r.run(in); err != nil {
			t.Fatal(err)
		}
		if got := progress.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "30s so far") {
			t.Errorf("progress: %q", got)
		}
	})
}
