package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/culvertdev/culvert/internal/pki"
)

// made returns new identities, each with a key of its own.
func made(t testing.TB, dir string) func() *identity {
	t.Helper()
	ca, err := pki.LoadOrCreate(dir, pki.RoleAgents)
	if err != nil {
		t.Fatal(err)
	}
	return func() *identity {
		t.Helper()
		id, err := identityOf(ca)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
}

func identityOf(ca *pki.Authority) (*identity, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	issued, err := ca.SignAgent(key.Public(), "culvert.local", "edge-1", time.Hour)
	if err != nil {
		return nil, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return newIdentity(info{Hub: "hub.example.com:443", Cluster: "edge-1", TrustDomain: "culvert.local"}, issued.PEM, keyPEM, ca.PEM())
}

func TestState(t *testing.T) {
	t.Run("what is saved is loaded, and two contents are kept at most", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "below", "state")
		next := made(t, t.TempDir())
		s := state{dir}
		if _, err := s.load(); !errors.Is(err, errNoState) {
			t.Errorf("nothing: %v", err)
		}
		basis := ""
		for i := range 4 {
			id := next()
			if err := s.save(id, basis); err != nil {
				t.Fatal(err)
			}
			basis = id.generation
			got, err := s.load()
			if err != nil || string(got.key) != string(id.key) || got.info != id.info || got.generation != nameOf(i+1) {
				t.Fatalf("%v, %v", got, err)
			}
			if _, err := pki.LoadPair(pki.Source{Dir: dir}); err != nil {
				t.Errorf("for other tools: %v", err)
			}
		}
		if kept, err := s.generations(); err != nil || len(kept) != 2 {
			t.Errorf("%v, %v", kept, err)
		}
		if err := s.save(next(), nameOf(1)); err == nil || !strings.Contains(err.Error(), "changed by another process") {
			t.Errorf("over what somebody else saved: %v", err)
		}
	})
	t.Run("what is damaged, open to others or not an agent's is refused with the file's name", func(t *testing.T) {
		next := made(t, t.TempDir())
		other := next()
		for name, c := range map[string]struct {
			damage func(dir string) error
			says   []string
		}{
			"key of another": {func(dir string) error { return os.WriteFile(filepath.Join(dir, fileKey), other.key, 0o600) }, []string{"tls.crt, tls.key", "damaged"}},
			"no key":         {func(dir string) error { return os.Remove(filepath.Join(dir, linkCurrent, fileKey)) }, []string{"damaged", fileKey}},
			"open key":       {func(dir string) error { return os.Chmod(filepath.Join(dir, fileKey), 0o640) }, []string{"mode 0640 opens this private key", "chmod 600"}},
			"info":           {func(dir string) error { return os.WriteFile(filepath.Join(dir, fileInfo), []byte("{"), 0o600) }, []string{"agent.json"}},
			"other cluster": {func(dir string) error {
				return os.WriteFile(filepath.Join(dir, fileInfo), []byte(`{"cluster":"edge-2","trustDomain":"culvert.local"}`), 0o600)
			}, []string{"of cluster edge-1", "edge-2"}},
			"CA": {func(dir string) error { return os.WriteFile(filepath.Join(dir, fileCA), []byte("x"), 0o600) }, []string{"ca.crt"}},
			"link": {func(dir string) error {
				return errors.Join(os.Remove(filepath.Join(dir, linkCurrent)), os.Symlink("/etc", filepath.Join(dir, linkCurrent)))
			}, []string{"not of an agent"}},
		} {
			t.Run(name, func(t *testing.T) {
				s := state{filepath.Join(t.TempDir(), "state")}
				if err := s.save(next(), ""); err != nil {
					t.Fatal(err)
				}
				if err := c.damage(s.dir); err != nil {
					t.Fatal(err)
				}
				_, err := s.load()
				for _, part := range c.says {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("%v lacks %q", err, part)
					}
				}
			})
		}
	})
	t.Run("O9: certificate and key belong together on the disk whenever the process is killed", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := state{dir}
		for round := range 6 {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), childState+"="+dir, "GORACE=atexit_sleep_ms=0")
			child.Stderr = os.Stderr
			stdout, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			out := bufio.NewReader(stdout)
			last := ""
			for n := 0; ; n++ {
				line, err := out.ReadString('\n')
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				last = strings.TrimSpace(line)
				if n == 3+round {
					// The child is saving the next one at this moment.
					if err := child.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := child.Wait(); err == nil || child.ProcessState.Exited() {
				t.Fatalf("the child ended by itself: %v", child.ProcessState)
			}
			id, err := s.load() // which compares certificate and key
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if id.generation < last {
				t.Errorf("round %d: %s was saved and %s is there", round, last, id.generation)
			}
		}
		// What was left unfinished is gone with the next save.
		if err := s.save(made(t, t.TempDir())(), ""); err != nil {
			t.Fatal(err)
		}
		if kept, err := s.generations(); err != nil || len(kept) > 2 {
			t.Errorf("%v, %v", kept, err)
		}
	})
}

// saveForever runs in a process of its own, until it is killed.
func saveForever(dir string) int {
	ca, err := pki.LoadOrCreate(dir+"-ca", pki.RoleAgents)
	for err == nil {
		var id *identity
		if id, err = identityOf(ca); err != nil {
			break
		}
		if err = (state{dir}).save(id, ""); err == nil {
			_, err = fmt.Fprintln(os.Stdout, id.generation)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
