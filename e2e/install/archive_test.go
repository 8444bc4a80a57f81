package install

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

func TestArchives(t *testing.T) {
	dir := built("first", "archives")
	var names []string
	for _, platform := range archivePlatforms {
		names = append(names, "culvert_"+version+"_"+strings.ReplaceAll(platform, "/", "_"))
	}
	t.Run("SHA256SUMS has every file and its sum", func(t *testing.T) {
		want := ""
		var files []string
		for _, name := range names {
			files = append(files, name+".cdx.json", name+extension(name))
		}
		for _, chart := range charts {
			files = append(files, chart+"-"+strings.TrimPrefix(version, "v")+".tgz")
		}
		slices.Sort(files)
		for _, file := range files {
			want += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(read(t, filepath.Join(dir, file)))), file)
		}
		if got := read(t, filepath.Join(dir, "SHA256SUMS")); got != want {
			t.Errorf("it has\n%swant\n%s", got, want)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		if len(entries) != len(files)+1 {
			t.Errorf("%d files in the folder, want %d", len(entries), len(files)+1)
		}
	})
	t.Run("an archive has the programs, the licences and, for Linux, the units", func(t *testing.T) {
		for _, name := range names {
			files := unarchive(t, filepath.Join(dir, name+extension(name)))
			suffix := ""
			if strings.Contains(name, "windows") {
				suffix = ".exe"
			}
			want := []string{"LICENSE", "NOTICE", "README.md", "THIRD_PARTY_LICENSES"}
			for _, program := range programs {
				want = append(want, program+suffix)
			}
			if strings.Contains(name, "linux") {
				units, err := filepath.Glob(filepath.Join(filepath.Dir(deployed(t, "hub.yaml")), "*"))
				must(t, err)
				for _, unit := range units {
					want = append(want, "systemd/"+filepath.Base(unit))
				}
			}
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
				t.Errorf("%s has %v, want %v", name, got, want)
			}
			if text := string(files["THIRD_PARTY_LICENSES"]); !strings.Contains(text, "google.golang.org/grpc@") || !strings.Contains(text, "Go/LICENSE") {
				t.Errorf("%s: the licences lack gRPC or Go", name)
			}
		}
	})
	t.Run("K12: the charts are those of the repository, of the release's version and with its images", func(t *testing.T) {
		for _, chart := range charts {
			root := filepath.Join(filepath.Dir(deployed(t, "hub.yaml")), "..", "charts", chart)
			files := untar(t, filepath.Join(dir, chart+"-"+strings.TrimPrefix(version, "v")+".tgz"), chart+"/")
			for name, content := range files {
				want := read(t, filepath.Join(root, name))
				if name == "Chart.yaml" {
					want = strings.NewReplacer("\nversion: 0.1.0\n", "\nversion: "+strings.TrimPrefix(version, "v")+"\n", "\nappVersion: v0.1.0\n", "\nappVersion: "+strings.ReplaceAll(version, "+", "-")+"\n").Replace(want)
				}
				if string(content) != want {
					t.Errorf("%s/%s is\n%s\nwant\n%s", chart, name, content, want)
				}
			}
			if len(files["values.yaml"]) == 0 || len(files["templates/NOTES.txt"]) == 0 {
				t.Errorf("%s has %v", chart, slices.Sorted(maps.Keys(files)))
			}
		}
	})
	t.Run("F9: the programs of the archive are those of the images, and say which release they are", func(t *testing.T) {
		ctx := within(t, 3*time.Minute)
		name := "culvert_" + version + "_linux_" + runtime.GOARCH
		files := unarchive(t, filepath.Join(dir, name+".tar.gz"))
		for _, program := range programs {
			installed := filepath.Join(unpack(t, program), program)
			if sum := sha256.Sum256([]byte(read(t, installed))); sum != sha256.Sum256(files[program]) {
				t.Errorf("%s: the image has %s", program, hex.EncodeToString(sum[:]))
			}
			out, err := exec.CommandContext(ctx, installed, "--version").CombinedOutput()
			if want := program + " version " + version + "\n"; err != nil || string(out) != want {
				t.Errorf("%s --version: %v: %s", program, err, out)
			}
		}
		out, err := exec.CommandContext(ctx, filepath.Join(unpack(t, "culvert"), "culvert"), "version").CombinedOutput()
		if want := "culvert " + version + ", tunnel protocol revisions 1 to 1\n"; err != nil || string(out) != want {
			t.Errorf("culvert version: %v: %s, want %s", err, out, want)
		}
	})
	if testbed.Slow() {
		t.Run("F9: the archives for all platforms of two builds, each compiled by itself, are the same to the byte", func(t *testing.T) {
			if x, y := read(t, filepath.Join(dir, "SHA256SUMS")), read(t, built("second", "archives", "SHA256SUMS")); x != y {
				t.Errorf("archives differ:\n%s\n%s", x, y)
			}
		})
	}
}

// charts are those that a release has.
var charts = []string{"culvert-hub", "culvert-agent"}

func extension(name string) string {
	if strings.Contains(name, "windows") {
		return ".zip"
	}
	return ".tar.gz"
}

// unarchive returns the files of an archive, by their name below its one folder.
func unarchive(t *testing.T, path string) map[string][]byte {
	t.Helper()
	top := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".zip"), ".tar.gz") + "/"
	if strings.HasSuffix(path, ".tar.gz") {
		return untar(t, path, top)
	}
	files := map[string][]byte{}
	add := func(name string, content io.Reader) {
		inside, ok := strings.CutPrefix(name, top)
		if !ok {
			t.Fatalf("%s has %s outside of its folder", path, name)
		}
		text, err := io.ReadAll(content)
		must(t, err)
		files[inside] = text
	}
	raw := []byte(read(t, path))
	r, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
	must(t, err)
	for _, file := range r.File {
		content, err := file.Open()
		must(t, err)
		add(file.Name, content)
		must(t, content.Close())
	}
	return files
}

// untar returns the files of a compressed tar, by their name below top.
func untar(t *testing.T, path, top string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	z, err := gzip.NewReader(strings.NewReader(read(t, path)))
	must(t, err)
	for r := tar.NewReader(z); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		inside, ok := strings.CutPrefix(header.Name, top)
		if !ok {
			t.Fatalf("%s has %s outside of its folder", path, header.Name)
		}
		files[inside], err = io.ReadAll(r)
		must(t, err)
	}
}
