package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const features = `# Features

## Release 1

| id | what Culvert gives |
|---|---|
| O15 | names are mapped |
| O16 | access rules decide |
| N2  | half-close |
| P1 | no inbound route |
`

// ended writes the events of one test with its result.
func ended(test, result string) string {
	return fmt.Sprintf(`{"Action":"run","Package":"%[1]s","Test":"%[2]s"}
{"Action":"%[3]s","Package":"%[1]s","Test":"%[2]s","Elapsed":0.1}
`, module+"e2e", test, result)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name   string
		runs   []string
		want   string
		failed bool
	}{
		{
			name: "a subtest proves the ids before its colon",
			runs: []string{ended("TestA", "pass") + ended("TestA/O15,O16:_a_name", "pass") + ended("TestA/N2:_bytes_after_close", "pass")},
			want: `O15  pass  e2e TestA/O15,O16:_a_name
O16  pass  e2e TestA/O15,O16:_a_name
N2   pass  e2e TestA/N2:_bytes_after_close
P1   none  -
4 rows: 3 pass, 0 fail, 1 none
`,
		},
		{
			name: "ids may be spaced and one failure fails the row, whichever run has it",
			runs: []string{ended("TestA/O15,_O16:_a", "pass"), ended("TestB/O16:_b", "fail") + ended("TestC/O16:_c", "pass")},
			want: `O15  pass  e2e TestA/O15,_O16:_a
O16  fail  e2e TestB/O16:_b
           e2e TestA/O15,_O16:_a
           e2e TestC/O16:_c
N2   none  -
P1   none  -
4 rows: 1 pass, 1 fail, 2 none
`,
			failed: true,
		},
		{
			name: "a test that was killed fails, a skipped one proves nothing",
			runs: []string{`{"Action":"run","Package":"p","Test":"TestA/N2:_cut"}` + "\n" + ended("TestA/P1:_left_out", "skip")},
			want: `O15  none  -
O16  none  -
N2   fail  p TestA/N2:_cut
P1   none  -
4 rows: 0 pass, 1 fail, 3 none
`,
			failed: true,
		},
		{
			name: "a slash in the sentence is no subtest, and subtests belong to their parent",
			runs: []string{ended("TestA", "pass") + ended("TestA/P1:_path_/a/b", "pass") + ended("TestA/N2:_both", "pass") + ended("TestA/N2:_both/up", "pass") + ended("TestA/N2:_both/O15:_inner", "pass")},
			want: `O15  pass  e2e TestA/N2:_both/O15:_inner
O16  none  -
N2   pass  e2e TestA/N2:_both
P1   pass  e2e TestA/P1:_path_/a/b
4 rows: 3 pass, 0 fail, 1 none
`,
		},
		{
			name: "an id that the table lacks and a failed package are said",
			runs: []string{ended("TestA/X9:_typo", "pass") + `{"Action":"fail","Package":"` + module + `internal/mux"}` + "\n"},
			want: `O15  none  -
O16  none  -
N2   none  -
P1   none  -
note: X9 is no row of FEATURES: e2e TestA/X9:_typo
note: package internal/mux failed
4 rows: 0 pass, 0 fail, 4 none
`,
			failed: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			table := filepath.Join(dir, "features.md")
			write(t, table, features)
			for i, content := range tt.runs {
				write(t, filepath.Join(dir, fmt.Sprintf("test-%d.json", i)), content)
			}
			var out strings.Builder
			err := run([]string{"report", table, dir}, strings.NewReader(""), &out)
			if failed := errors.Is(err, errFailed); failed != tt.failed || err != nil && !failed {
				t.Errorf("error is %v, want failed == %v", err, tt.failed)
			}
			if got := strings.ReplaceAll(out.String(), table, "FEATURES"); got != tt.want {
				t.Errorf("report is\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestReportRefuses(t *testing.T) {
	for _, tt := range []struct{ name, features, run, want string }{
		{"a missing run, with the remedy", features, "", "run make test first"},
		{"a broken event", features, `{"Action":`, "test-1.json"},
		{"a table without rows", "# Features\n", ended("TestA", "pass"), "has no row"},
		{"a row that is there twice", features + "| P1 | again |\n", ended("TestA", "pass"), "row P1 is there twice"},
		{"a row that says nothing", features + "| P2 |  |\n", ended("TestA", "pass"), "row P2 says nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			table := filepath.Join(dir, "features.md")
			write(t, table, tt.features)
			if tt.run != "" {
				write(t, filepath.Join(dir, "test-1.json"), tt.run)
			}
			var out strings.Builder
			err := run([]string{"report", table, dir}, strings.NewReader(""), &out)
			if err == nil || errors.Is(err, errFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
			if out.Len() > 0 {
				t.Errorf("a refused report printed %q", out.String())
			}
		})
	}
	t.Run("a missing table", func(t *testing.T) {
		err := run([]string{"report", filepath.Join(t.TempDir(), "none.md"), "."}, strings.NewReader(""), &strings.Builder{})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error is %v, want fs.ErrNotExist", err)
		}
	})
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"show"}, {"record"}, {"record", "a", "b"}, {"report", "a"}} {
		if err := run(args, strings.NewReader(""), &strings.Builder{}); err == nil {
			t.Errorf("rows %q is accepted", args)
		}
	}
}
