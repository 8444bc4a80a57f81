package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestAuthorityIsMadeOnceAndLoaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "pki")
	made, err := LoadOrCreate(dir, RoleAgents)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadOrCreate(dir, RoleAgents)
	if err != nil {
		t.Fatal(err)
	}
	if !made.Certificate().Equal(loaded.Certificate()) || !bytes.Equal(made.PEM(), loaded.PEM()) {
		t.Error("the second call returned another authority")
	}
	serving, err := LoadOrCreate(dir, RoleServing)
	if err != nil {
		t.Fatal(err)
	}
	if serving.Certificate().Equal(made.Certificate()) || serving.Pool().Equal(made.Pool()) {
		t.Error("two roles share an authority")
	}
	wantModes(t, dir, map[string]fs.FileMode{
		".":               fs.ModeDir | 0o700,
		"agents-ca.crt":   0o644,
		"agents-ca.key":   0o600,
		"agents-ca.json":  0o600,
		"serving-ca.crt":  0o644,
		"serving-ca.key":  0o600,
		"serving-ca.json": 0o600,
		".lock":           0o600,
	})

	cert := made.Certificate()
	if cert.Subject.CommonName == "" || len(cert.Subject.Organization) == 0 || !bytes.Equal(cert.RawSubject, cert.RawIssuer) {
		t.Errorf("subject %q and issuer %q, want the same with a common name and an organization", cert.Subject, cert.Issuer)
	}
	if !cert.IsCA || !cert.MaxPathLenZero || cert.MaxPathLen != 0 || len(cert.SubjectKeyId) == 0 {
		t.Errorf("CA %v, path length %d (zero: %v), key id %x", cert.IsCA, cert.MaxPathLen, cert.MaxPathLenZero, cert.SubjectKeyId)
	}
	if left := time.Until(cert.NotAfter); left < authorityLifetime-time.Minute || left > authorityLifetime {
		t.Errorf("valid for %s, want ten years", left)
	}
}

func wantModes(t *testing.T, dir string, want map[string]fs.FileMode) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if mode, ok := want[name]; !ok || info.Mode() != mode {
			t.Errorf("%s has mode %s, want %s (expected at all: %v)", name, info.Mode(), mode, ok)
		}
		delete(want, name)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("missing %v: %v", want, err)
	}
}

func TestAuthorityCompletesAKeyWithoutCertificate(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadOrCreate(dir, RoleServing)
	if err != nil {
		t.Fatal(err)
	}
	issued := servingPair(t, first, "hub.example.com")
	if err := os.Remove(filepath.Join(dir, "serving-ca.crt")); err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreate(dir, RoleServing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issued.Leaf.Verify(x509.VerifyOptions{Roots: second.Pool(), DNSName: "hub.example.com"}); err != nil {
		t.Errorf("what the key has signed before is not trusted any more: %v", err)
	}
}

func TestAuthorityRefusesWhatIsBroken(t *testing.T) {
	other := newAuthority(t, RoleAgents)
	otherKey := encoded(t, other.now().key)
	half := func(b []byte) []byte { return b[:len(b)/2] }
	change := func(name string, how func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), how(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mode := func(mode fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Chmod(filepath.Join(dir, "agents-ca.key"), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	template := func(edit func(*x509.Certificate)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			writeAuthority(t, dir, edit)
		}
	}
	tests := []struct {
		name   string
		damage func(*testing.T, string)
		want   []string
	}{
		{"key is missing", remove("agents-ca.key"), []string{"agents-ca.crt is there without its key", "restore"}},
		{"key is another's", change("agents-ca.key", func([]byte) []byte { return otherKey }), []string{"agents-ca.key is not the key of", "agents-ca.crt"}},
		{"certificate is cut in half", change("agents-ca.crt", half), []string{"agents-ca.crt: half-written or damaged: 0 of 1"}},
		{"key is cut in half", change("agents-ca.key", half), []string{"agents-ca.key: half-written or damaged"}},
		{"certificate is empty", change("agents-ca.crt", func([]byte) []byte { return nil }), []string{"agents-ca.crt: empty"}},
		{"certificate is a key", change("agents-ca.crt", func([]byte) []byte { return otherKey }), []string{"agents-ca.crt: holds no certificate", "PRIVATE KEY"}},
		{"too many certificates", change("agents-ca.crt", func(b []byte) []byte { return append(b, bytes.Repeat(other.PEM(), maxAuthorities)...) }), []string{"holds 65 certificates, at most 64"}},
		{"key is readable by its group", mode(0o640), []string{"agents-ca.key: mode 0640", "chmod 600"}},
		{"key is readable by all", mode(0o604), []string{"agents-ca.key: mode 0604", "chmod 600"}},
		{"not a CA", template(func(c *x509.Certificate) { c.IsCA = false }), []string{"agents-ca.crt: not the certificate of an authority: basic constraints"}},
		{"may not sign", template(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), []string{"key usage does not allow"}},
		{"no subject", template(func(c *x509.Certificate) { c.Subject = pkix.Name{} }), []string{"the subject is empty"}},
		{"expired", template(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) }), []string{"agents-ca.crt: expired at 2020-01-01T01:00:00Z (valid from 2020-01-01T00:00:00Z)"}},
		{"not valid yet", template(func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(-time.Hour) }), []string{"not valid before", "clocks"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := LoadOrCreate(dir, RoleAgents); err != nil {
				t.Fatal(err)
			}
			test.damage(t, dir)
			_, err := LoadOrCreate(dir, RoleAgents)
			wantError(t, test.name, err, append(test.want, "agents CA: ")...)
		})
	}
	t.Run("unknown role", func(t *testing.T) {
		_, err := LoadOrCreate(t.TempDir(), "agent")
		wantError(t, "a slip would make a new authority", err, `unknown role "agent"`, "want one of agents, peers, users, serving")
	})
	t.Run("folder is a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "pki")
		write(t, path, nil, 0o600)
		_, err := LoadOrCreate(path, RoleAgents)
		wantError(t, "folder is a file", err, path, "not a directory")
	})
}

// writeAuthority replaces the authority of a folder by one of a changed template.
func writeAuthority(t *testing.T, dir string, edit func(*x509.Certificate)) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "operator's CA"},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Now().Add(365 * 24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	edit(template)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "agents-ca.crt"), encodeCertificate(der), 0o644)
	write(t, filepath.Join(dir, "agents-ca.key"), encoded(t, key), 0o600)
}

func TestAuthorityIsOneForAllWhoStartAtOnce(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		dir := filepath.Join(t.TempDir(), "pki")
		var processes []*exec.Cmd
		var outputs []*bytes.Buffer
		for range 6 {
			var stdout bytes.Buffer
			child := exec.Command(binary)
			child.Env = append(os.Environ(), childFolder+"="+dir, "GORACE=atexit_sleep_ms=0")
			child.Stdout, child.Stderr = &stdout, os.Stderr
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			processes, outputs = append(processes, child), append(outputs, &stdout)
		}
		for i, child := range processes {
			if err := child.Wait(); err != nil {
				t.Fatalf("round %d, process %d: %v", round, i, err)
			}
		}
		here, err := LoadOrCreate(dir, RoleAgents)
		if err != nil {
			t.Fatal(err)
		}
		for i, stdout := range outputs {
			if !bytes.Equal(stdout.Bytes(), here.PEM()) {
				t.Errorf("round %d: process %d has another authority", round, i)
			}
		}
		wantModes(t, dir, map[string]fs.FileMode{".": fs.ModeDir | 0o700, "agents-ca.crt": 0o644, "agents-ca.key": 0o600, "agents-ca.json": 0o600, ".lock": 0o600})
	}
}

// authorityChild runs in a process of its own.
func authorityChild(dir string) int {
	a, err := LoadOrCreate(dir, RoleAgents)
	if err == nil {
		_, err = os.Stdout.Write(a.PEM())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func TestAuthorityIsOneForAllGoroutines(t *testing.T) {
	dir := t.TempDir()
	type result struct {
		a   *Authority
		err error
	}
	results := make(chan result)
	load := func() {
		a, err := LoadOrCreate(dir, RoleServing)
		results <- result{a, err}
	}
	const goroutines = 16
	for range goroutines {
		go load()
	}
	var first *Authority
	for range goroutines {
		r := <-results
		switch {
		case r.err != nil:
			t.Error(r.err)
		case first == nil:
			first = r.a
		case !first.Certificate().Equal(r.a.Certificate()):
			t.Error("two goroutines have two authorities")
		}
	}
}
