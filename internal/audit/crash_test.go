package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// crashFile names the file of the process that is killed.
const crashFile = "CULVERT_TEST_AUDIT_FILE"

// flushed is how many events that process has written for certain.
const flushed = 500

// crash writes events until it is killed.
func crash(path string) {
	l, err := New(Config{File: &FileConfig{Path: path, WhenFull: WhenFullBlock}}, Options{Logger: slog.Default()})
	if err != nil {
		panic(err)
	}
	for n := 0; ; n++ {
		l.Record(&Event{Stage: StageRequest, RequestID: fmt.Sprint(n), Status: 200})
		if n == flushed-1 {
			if err := l.Flush(context.Background()); err != nil {
				panic(err)
			}
			fmt.Fprintln(os.Stdout, "flushed")
		}
	}
}

func TestCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for run := 1; run <= 2; run++ {
		killed(t, path)
	}
	t.Run("N11: a process that is killed loses at most what was queued, and leaves whole lines", func(t *testing.T) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		next, runs, torn := 0, 0, 0
		lines := strings.SplitAfter(string(text), "\n")
		for i, l := range lines {
			var e struct{ RequestID string }
			if err := json.Unmarshal([]byte(l), &e); err != nil {
				torn++
				continue
			}
			if e.RequestID == "0" && i > 0 {
				if next < flushed {
					t.Errorf("the first run has %d events", next)
				}
				next = 0
			}
			if e.RequestID == "0" {
				runs++
			}
			if e.RequestID != fmt.Sprint(next) {
				t.Fatalf("line %d is event %s, want %d: one is missing in the middle", i+1, e.RequestID, next)
			}
			next++
		}
		// The last element is what follows the last line break: nothing, or torn.
		if next < flushed || runs != 2 || torn > 2 {
			t.Errorf("%d events in the last of %d runs, %d lines that are not whole", next, runs, torn)
		}
	})
}

// killed runs a process that writes to path and kills it in the middle of that.
func killed(t *testing.T, path string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashFile+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended by itself")
	}
	if line != "flushed\n" {
		t.Fatalf("it said %q, %v", line, err)
	}
}
