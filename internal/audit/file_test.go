package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// folder returns the names and texts of the files beside path.
func folder(t *testing.T, path string) (names []string, texts map[string]string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	texts = map[string]string{}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(path), entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, entry.Name())
		texts[entry.Name()] = string(text)
	}
	return names, texts
}

// put writes whole lines through a file sink, as its drain does.
func put(t *testing.T, f *file, text string) {
	t.Helper()
	for p := []byte(text); len(p) > 0; {
		n, err := f.write(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
}

func numbered(from, to int) string {
	var b strings.Builder
	for n := from; n < to; n++ {
		fmt.Fprintf(&b, "{\"requestID\":\"%06d\",\"x\":\"%s\"}\n", n, strings.Repeat("x", 1000))
	}
	return b.String()
}

func TestRotation(t *testing.T) {
	t.Run("D8: a file is rotated between lines, and as many are kept as wanted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "deep", "audit.log")
			f, err := openFile(FileConfig{Path: path, MaxSize: *resource.NewQuantity(LeastMaxSize, resource.BinarySI), MaxBackups: 3})
			if err != nil {
				t.Fatal(err)
			}
			other := filepath.Join(filepath.Dir(path), "audit-of-others.log")
			if err := os.WriteFile(other, []byte("theirs\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for n := range 10 {
				put(t, f, numbered(100*n, 100*n+100))
			}
			if err := f.close(); err != nil {
				t.Fatal(err)
			}
			names, texts := folder(t, path)
			if len(names) != 1+3+1 || texts["audit-of-others.log"] != "theirs\n" {
				t.Fatalf("%q", names)
			}
			var all strings.Builder
			for _, name := range names {
				text := texts[name]
				if _, mine := f.backupOf(name); !mine && name != "audit.log" {
					continue
				}
				if len(text) > LeastMaxSize || !strings.HasSuffix(text, "}\n") {
					t.Errorf("%s has %d bytes", name, len(text))
				}
				all.WriteString(text)
			}
			// The names sort by time, the file itself is the last.
			if !strings.HasSuffix(numbered(0, 1000), all.String()) {
				t.Error("the files are not the last lines, in order")
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
		})
	})
	t.Run("D8: rotated files that are too old are deleted, at the latest after an hour", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			f, err := openFile(FileConfig{Path: path, MaxSize: *resource.NewQuantity(LeastMaxSize, resource.BinarySI), MaxBackups: -1,
				MaxAge: metav1.Duration{Duration: 24 * time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			put(t, f, numbered(0, 100))
			time.Sleep(12 * time.Hour)
			put(t, f, numbered(100, 200))
			if names, _ := folder(t, path); len(names) < 3 {
				t.Errorf("%q", names)
			}
			time.Sleep(12*time.Hour + time.Minute)
			put(t, f, "{}\n")
			names, _ := folder(t, path)
			for _, name := range names {
				if at, ok := f.backupOf(name); ok && time.Since(at) > 24*time.Hour {
					t.Errorf("%s is kept at %v", name, time.Now().UTC())
				}
			}
			if len(names) < 2 {
				t.Errorf("%q", names)
			}
			if err := f.close(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("D8: two rotations in one moment have two names", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit")
			f, err := openFile(FileConfig{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				put(t, f, "{}\n")
				if err := f.rotate(); err != nil {
					t.Fatal(err)
				}
			}
			if names, _ := folder(t, path); len(names) != 4 || !slices.IsSorted(names) {
				t.Errorf("%q", names)
			}
			if err := f.close(); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestFile(t *testing.T) {
	start := func(t *testing.T) (*Log, string) {
		path := filepath.Join(t.TempDir(), "audit.log")
		return open(t, Config{File: &FileConfig{Path: path}}, Options{}), path
	}
	record := func(t *testing.T, l *Log, id string) {
		t.Helper()
		l.Record(&Event{Stage: StageRequest, RequestID: id})
		if err := l.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("D8: another program may rename or delete the file", func(t *testing.T) {
		l, path := start(t)
		record(t, l, "first")
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		record(t, l, "second")
		if _, texts := folder(t, path); !strings.Contains(texts["audit.log.1"], "first") || !strings.Contains(texts["audit.log"], "second") {
			t.Errorf("%q", texts)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		record(t, l, "third")
		if _, texts := folder(t, path); !strings.Contains(texts["audit.log"], "third") {
			t.Errorf("%q", texts)
		}
		shut(t, l)
	})
	t.Run("N11: a file that a killed process left within a line gets whole lines again", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, []byte("{\"a\":1}\n{\"b"), 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Config{File: &FileConfig{Path: path}}, Options{})
		record(t, l, "new")
		shut(t, l)
		_, texts := folder(t, path)
		if lines := strings.Split(texts["audit.log"], "\n"); len(lines) != 4 || lines[1] != `{"b` || decode(t, lines[2]+"\n").RequestID != "new" {
			t.Errorf("%q", lines)
		}
	})
	t.Run("a path that cannot be a file is an error at the start", func(t *testing.T) {
		folder := t.TempDir()
		for _, path := range []string{folder, filepath.Join(folder, "x", "..", "."), os.DevNull} {
			if l, err := New(Config{File: &FileConfig{Path: path}}, Options{Logger: quiet()}); err == nil {
				t.Errorf("%s: no error", path)
				shut(t, l)
			} else if !strings.Contains(err.Error(), "audit: file: ") {
				t.Error(err)
			}
		}
	})
	t.Run("lines that fit are taken, and at least one", func(t *testing.T) {
		for _, c := range []struct {
			room int64
			want string
		}{{100, "aa\nbb\n"}, {6, "aa\nbb\n"}, {5, "aa\n"}, {3, "aa\n"}, {2, "aa\n"}, {0, "aa\n"}, {-5, "aa\n"}} {
			if got := fitting([]byte("aa\nbb\n"), c.room); !bytes.Equal(got, []byte(c.want)) {
				t.Errorf("%d: %q", c.room, got)
			}
		}
	})
	t.Run("files of other names are not ours", func(t *testing.T) {
		f := &file{path: "/x/audit.log"}
		for name, want := range map[string]bool{
			"audit-2026-02-03T16-05-06.789012.log": true, "audit-2026-02-03T16-05-06.789012.log.gz": false, "audit.log": false,
			"audit-2026-13-03T16-05-06.789012.log": false, "audit-.log": false, "other-2026-02-03T16-05-06.789012.log": false,
		} {
			if _, got := f.backupOf(name); got != want {
				t.Errorf("%s: %v", name, got)
			}
		}
		if _, err := os.Stat(f.path); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}
