package store

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

// childFile makes a process of this test binary write to that store until it is
// killed, and print the name of each cluster after it was saved.
const childFile = "CULVERT_TEST_STORE_FILE"

// childTokens makes a process of this test binary use tokens of that store: see
// spender.
const childTokens = "CULVERT_TEST_STORE_TOKENS"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		os.Exit(writerChild(path))
	}
	if path := os.Getenv(childTokens); path != "" {
		os.Exit(spender(path))
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func wantError(t *testing.T, reason string, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: got no error", reason)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: error does not say %q:\n%v", reason, part, err)
		}
	}
}

func saw(t *testing.T, s *Store, name, version string, labels map[string]string, at time.Time) {
	t.Helper()
	if err := s.SawCluster(name, version, labels, at); err != nil {
		t.Fatal(err)
	}
}

func wantClusters(t *testing.T, reason string, s *Store, want ...Cluster) {
	t.Helper()
	got, err := s.Clusters()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: clusters\n%+v, want\n%+v: %v", reason, got, want, err)
	}
	for _, cluster := range want {
		if one, found, err := s.Cluster(cluster.Name); err != nil || !found || !reflect.DeepEqual(one, cluster) {
			t.Errorf("%s: cluster %+v, %v, %v, want %+v", reason, one, found, err, cluster)
		}
	}
}

func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 123456789, time.UTC) }

func TestClusters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "hub.db")
	s := open(t, path)
	wantClusters(t, "a new file", s)
	if cluster, found, err := s.Cluster("edge-1"); err != nil || found {
		t.Errorf("an unknown cluster: %+v, %v, %v", cluster, found, err)
	}

	labels := map[string]string{"region": "eu"}
	saw(t, s, "edge-2", "v1.0.0", nil, day(1).In(time.FixedZone("here", 3600)))
	saw(t, s, "edge-1", "v1.0.0", labels, day(1))
	labels["region"] = "us"
	one := Cluster{Name: "edge-1", Version: "v1.0.0", Labels: map[string]string{"region": "eu"}, FirstSeen: day(1), LastSeen: day(1)}
	two := Cluster{Name: "edge-2", Version: "v1.0.0", FirstSeen: day(1), LastSeen: day(1)}
	wantClusters(t, "both seen once", s, one, two)

	saw(t, s, "edge-1", "v1.1.0", nil, day(3))
	one.Version, one.Labels, one.LastSeen = "v1.1.0", nil, day(3)
	wantClusters(t, "seen again: version and labels are the new ones", s, one, two)

	saw(t, s, "edge-1", "v0.9.0", labels, day(2))
	wantClusters(t, "late news change nothing", s, one, two)
	saw(t, s, "edge-1", "v0.9.0", labels, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	one.FirstSeen = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	wantClusters(t, "late news of an earlier time", s, one, two)

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantClusters(t, "after closing and opening", open(t, path), one, two)
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, want %v: %v", name, info.Mode(), want, err)
		}
	}
}

func TestSawClusterRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	wantError(t, "no name", s.SawCluster("", "", nil, day(1)), ": empty, want a name")
	wantError(t, "path", s.SawCluster("a/b", "", nil, day(1)), `"/" in "a/b"`)
	wantError(t, "no time", s.SawCluster("a", "", nil, time.Time{}), "save cluster: time: not set")
	wantClusters(t, "nothing was saved", s)
}

func TestClosedStore(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "hub.db"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	wantError(t, "save", s.SawCluster("a", "", nil, day(1)), "save cluster: database not open")
	_, _, err := s.Cluster("a")
	wantError(t, "read", err, "read cluster: database not open")
	_, err = s.Clusters()
	wantError(t, "list", err, "list clusters: database not open")
}

func TestOneStoreAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	first := open(t, path)
	_, err := Open(path)
	wantError(t, "a second one", err, "open hub state: ", path, "in use by another hub: stop that one")
	if !errors.Is(err, ErrInUse) {
		t.Errorf("%v is not ErrInUse", err)
	}
	saw(t, first, "edge-1", "", nil, day(1))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	wantClusters(t, "after the first one was closed", open(t, path), Cluster{Name: "edge-1", FirstSeen: day(1), LastSeen: day(1)})
}

func TestNewerFormatsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	saw(t, s, "old", "v1", nil, day(1))
	put := func(bucket, key, value string) {
		t.Helper()
		err := s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) })
		if err != nil {
			t.Fatal(err)
		}
	}
	const newer = `{"format":2,"firstSeen":["not","a","time"]}`
	put(bucketClusters, "new", newer)
	const says = "cluster new: written by a newer Culvert: format 2, this version knows up to 1: run the newer version"
	_, _, err := s.Cluster("new")
	wantError(t, "read", err, says)
	_, err = s.Clusters()
	wantError(t, "list", err, says)
	wantError(t, "save over it", s.SawCluster("new", "v1", nil, day(2)), says)
	err = s.db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket([]byte(bucketClusters)).Get([]byte("new")); string(got) != newer {
			t.Errorf("the newer record was changed to %s", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for value, want := range map[string]string{
		`{}`:                             "cluster new: format 0, want 1 to 1: the record is damaged",
		`{"format":1`:                    "cluster new: unexpected end of JSON",
		`{"format":1,"firstSeen":"now"}`: "cluster new: ",
	} {
		put(bucketClusters, "new", value)
		_, _, err := s.Cluster("new")
		wantError(t, value, err, want)
	}

	put(bucketMeta, keyLayout, "3")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(path)
	wantError(t, "a newer layout", err, path, "layout: written by a newer Culvert: format 3")
	_, err = Open(path)
	wantError(t, "and the file was let go of", err, "layout: written by a newer Culvert")
}

func TestOpenRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	wantError(t, "a text file", err, "open hub state: ", path, "not the state of a hub, or damaged", "restore a backup")
	_, err = Open(dir)
	wantError(t, "a folder", err, dir, "is a directory")
	_, err = Open(filepath.Join(path, "hub.db"))
	wantError(t, "below a file", err, path, "not a directory")
}

func TestOpenRefusesATruncatedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "hub.db"))
	for i := range 200 {
		saw(t, s, fmt.Sprintf("edge-%d", i), strings.Repeat("v", 500), nil, day(1))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Some lengths leave pages that look like something else, some leave none
	// where the memory map ends.
	whole, err := os.ReadFile(filepath.Join(dir, "hub.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{100, 4096, 8192, 12288, 16384, 65536} {
		path := filepath.Join(dir, fmt.Sprintf("%d.db", size))
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		wantError(t, fmt.Sprintf("%d bytes left", size), err, path, "damaged", "restore a backup")
	}
}

func TestKilledWriterLosesNothing(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hub.db")
	saved := map[string]bool{}
	for round := range 5 {
		child := exec.Command(binary)
		child.Env = append(os.Environ(), childFile+"="+path, "GORACE=atexit_sleep_ms=0")
		child.Stderr = os.Stderr
		stdout, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stdout)
		for n := 0; ; n++ {
			line, err := lines.ReadString('\n')
			if errors.Is(err, io.EOF) {
				break // killed; a line that is cut off was not acknowledged
			}
			if err != nil {
				t.Fatal(err)
			}
			saved[strings.TrimSpace(line)] = true
			if n == 20*(round+1) {
				// The child is saving the next one at this moment.
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.Exited() {
			t.Fatalf("the child ended by itself: %v", child.ProcessState)
		}

		s := open(t, path)
		clusters, err := s.Clusters()
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, cluster := range clusters {
			there[cluster.Name] = true
		}
		for name := range saved {
			if !there[name] {
				t.Errorf("round %d: cluster %s was saved and is gone", round, name)
			}
		}
		if len(there) > len(saved)+round+1 {
			t.Errorf("round %d: %d clusters, want the %d saved and one more for each kill at most", round, len(there), len(saved))
		}
		err = s.db.View(func(tx *bbolt.Tx) error {
			var problems []error
			for problem := range tx.Check() {
				problems = append(problems, problem)
			}
			return errors.Join(problems...)
		})
		if err != nil {
			t.Errorf("round %d: the database is not whole: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// writerChild runs in a process of its own, until it is killed.
func writerChild(path string) int {
	s, err := Open(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("c-%d-%d", os.Getpid(), i)
		if err := s.SawCluster(name, "v1", map[string]string{"n": name}, day(1)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := fmt.Fprintln(os.Stdout, name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}
