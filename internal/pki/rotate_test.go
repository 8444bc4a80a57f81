package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func authorityIn(t *testing.T, dir, role string) *Authority {
	t.Helper()
	a, err := LoadOrCreate(dir, role, new(logLines).option())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func rotate(t *testing.T, a *Authority) *x509.Certificate {
	t.Helper()
	cert, err := a.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if !cert.Equal(a.Certificate()) {
		t.Error("the new authority is not the one that signs")
	}
	return cert
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func wantAgent(t *testing.T, reason string, roots Roots, pair tls.Certificate, cluster string) {
	t.Helper()
	got, err := VerifyAgent(roots, trustDomain)(tls.ConnectionState{PeerCertificates: []*x509.Certificate{pair.Leaf}})
	if err != nil || got != cluster {
		t.Errorf("%s: cluster %q, want %q: %v", reason, got, cluster, err)
	}
}

func TestRotateAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, elsewhere := authorityIn(t, dir, RoleAgents), authorityIn(t, dir, RoleAgents)
		oldKey := readAll(t, filepath.Join(dir, "agents-ca.key"))
		first := a.Certificate()
		before := agentPair(t, a, "edge-1", 0)
		second := rotate(t, a)
		after := agentPair(t, a, "edge-2", 0)

		wantAgent(t, "from before the rotation", a, before, "edge-1")
		wantAgent(t, "from after it", a, after, "edge-2")
		if after.Leaf.CheckSignatureFrom(second) != nil || before.Leaf.CheckSignatureFrom(second) == nil {
			t.Error("the new authority does not sign alone")
		}
		if certs := a.Certificates(); len(certs) != 2 || !certs[0].Equal(second) || !certs[1].Equal(first) {
			t.Errorf("%d certificates, want the new one and the old one", len(certs))
		}
		if got := readAll(t, filepath.Join(dir, "agents-ca.crt")); !bytes.Equal(got, a.PEM()) {
			t.Error("the file does not hold what is trusted")
		}
		if bytes.Equal(readAll(t, filepath.Join(dir, "agents-ca.key")), oldKey) {
			t.Error("the key stayed the same")
		}
		wantModes(t, dir, map[string]fs.FileMode{
			".": fs.ModeDir | 0o755, "agents-ca.crt": 0o644, "agents-ca.key": 0o600, "agents-ca.json": 0o600, ".lock": 0o600,
		})

		time.Sleep(checkInterval)
		wantAgent(t, "where the files are followed", elsewhere, after, "edge-2")
		if elsewhere.Certificate().Equal(first) {
			t.Error("another process goes on to sign with the old authority")
		}
		wantAgent(t, "after a restart", authorityIn(t, dir, RoleAgents), before, "edge-1")
	})
}

// known is a client that trusts what a bundle held at some time.
func known(t *testing.T, a *Authority) Roots {
	t.Helper()
	roots, err := FixedRoots(encodeCertificate(a.Certificate().Raw))
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

func TestRotateServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), new(logLines)
		serving, agents := authorityIn(t, dir, RoleServing), newAuthority(t, RoleAgents)
		pair := selfServe(t, serving, dir, log, "hub.example.com")
		client := agentPair(t, agents, "edge-1", 0)
		clients := []Roots{known(t, serving)}
		for n := 1; n <= 3; n++ {
			last := pair.Leaf()
			rotate(t, serving)
			clients = append(clients, known(t, serving))
			if pair.Leaf().Equal(last) {
				t.Errorf("rotation %d: the next handshake got the old certificate", n)
			}
			for i, roots := range clients {
				atServer, atClient := handshake(t, hub(pair, agents), agent(client, roots, "hub.example.com"))
				wantThrough(t, fmt.Sprintf("rotation %d, a client that knows authority %d alone", n, i), atServer, atClient)
			}
			if sent := len(pair.get().Certificate); sent != 1+n {
				t.Errorf("rotation %d: %d certificates are sent, want the server's and %d cross certificates", n, sent, n)
			}
		}
		again := selfServe(t, authorityIn(t, dir, RoleServing), dir, log, "hub.example.com")
		if !again.Leaf().Equal(pair.Leaf()) || len(again.get().Certificate) != 4 {
			t.Error("after a restart another certificate or chain is sent")
		}
		log.want(t, 3, "replaced the serving certificate")
	})
}

func TestRotationThatIsCutOff(t *testing.T) {
	before, after := t.TempDir(), t.TempDir()
	a := authorityIn(t, before, RoleServing)
	rotate(t, a) // so that there is a cross certificate already
	if err := os.CopyFS(filepath.Join(after, "x"), os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	after = filepath.Join(after, "x")
	chmodKeys(t, after)
	rotate(t, authorityIn(t, after, RoleServing))
	// The files are written in this order; a process may be killed after each.
	order := []string{"serving-ca-cross.crt", "serving-ca.json", "serving-ca.crt", "serving-ca.key"}
	for n := range order {
		t.Run(fmt.Sprintf("after %d files", n), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "x")
			if err := os.CopyFS(dir, os.DirFS(before)); err != nil {
				t.Fatal(err)
			}
			chmodKeys(t, dir)
			for _, name := range order[:n] {
				write(t, filepath.Join(dir, name), readAll(t, filepath.Join(after, name)), 0o600)
			}
			b := authorityIn(t, dir, RoleServing)
			if !b.Certificate().Equal(a.Certificate()) {
				t.Fatal("the old authority is not in force")
			}
			old := known(t, b)
			agents := newAuthority(t, RoleAgents)
			pair := selfServe(t, b, dir, new(logLines), "hub.example.com")
			client := agent(agentPair(t, agents, "edge-1", 0), old, "hub.example.com")
			atServer, atClient := handshake(t, hub(pair, agents), client)
			wantThrough(t, "cut off", atServer, atClient)
			rotate(t, b)
			atServer, atClient = handshake(t, hub(pair, agents), client)
			wantThrough(t, "after it was done again", atServer, atClient)
		})
	}
}

func chmodKeys(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(filepath.Join(dir, "serving-ca.key"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPruneWaitsUntilNothingSignedIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a := authorityIn(t, dir, RoleAgents)
		first := a.Certificate()
		long, short := agentPair(t, a, "edge-1", 10*time.Hour), agentPair(t, a, "edge-2", time.Hour)
		rotate(t, a)
		agentPair(t, a, "edge-2", 100*time.Hour)
		prune := func(reason string, want int) {
			t.Helper()
			gone, err := a.Prune()
			if err != nil || len(gone) != want {
				t.Errorf("%s: %d authorities pruned, want %d: %v", reason, len(gone), want, err)
			}
		}
		prune("at once", 0)
		time.Sleep(time.Until(short.Leaf.NotAfter) + time.Minute)
		prune("one of its certificates is valid", 0)
		time.Sleep(time.Until(long.Leaf.NotAfter) - time.Second)
		prune("for a last second", 0)
		wantAgent(t, "for a last second", a, long, "edge-1")
		time.Sleep(3 * time.Hour) // the record is a quarter of a life longer
		prune("none is", 1)
		if certs := a.Certificates(); len(certs) != 1 || certs[0].Equal(first) {
			t.Error("the wrong authority was pruned")
		}
		prune("the one that signs", 0)
		_, err := VerifyAgent(a, trustDomain)(tls.ConnectionState{PeerCertificates: []*x509.Certificate{long.Leaf}})
		wantError(t, "what it signed", err, "expired at")

		// What is not known to be the hub's own alone stays until it expires.
		remove(t, filepath.Join(dir, "agents-ca.json"))
		rotate(t, a)
		time.Sleep(5 * 365 * 24 * time.Hour)
		prune("nobody knows what it signed", 0)
		time.Sleep(authorityLifetime)
		if certs := func() []*x509.Certificate { _ = a.Reload(); return a.Certificates() }(); len(certs) != 2 {
			t.Errorf("a bad file, since all has expired, leaves %d in force", len(certs))
		}
	})
}

func TestRotationsHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a := authorityIn(t, dir, RolePeers)
		for range maxRotations - 1 {
			rotate(t, a)
		}
		_, err := a.Rotate()
		wantError(t, "too many", err, "rotate the peers CA: 8 certificates are trusted already", "in use until 2000-01-01T01:00:00Z")
		time.Sleep(retireTime + time.Second)
		rotate(t, a)
		if got := len(a.Certificates()); got != 2 {
			t.Errorf("%d certificates, want the new one and the one before: the others have signed nothing", got)
		}
	})
}

func TestRotateByManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	authorityIn(t, dir, RoleServing)
	const goroutines = 4
	errs := make(chan error)
	work := func() {
		a, err := LoadOrCreate(dir, RoleServing, new(logLines).option())
		if err == nil {
			_, err = a.Rotate()
		}
		errs <- err
	}
	for range goroutines {
		go work()
	}
	for range goroutines {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	a := authorityIn(t, dir, RoleServing)
	if got := len(a.Certificates()); got != goroutines+1 {
		t.Errorf("%d certificates, want %d", got, goroutines+1)
	}
	if got := len(a.now().chain); got != goroutines {
		t.Errorf("%d cross certificates, want %d", got, goroutines)
	}
}

func TestRotateRefuses(t *testing.T) {
	t.Run("an authority that cannot vouch for another", func(t *testing.T) {
		dir := t.TempDir()
		authorityIn(t, dir, RoleServing)
		template := *authorityIn(t, dir, RoleServing).Certificate()
		template.MaxPathLenZero, template.MaxPathLen = true, 0
		key, err := readPrivateKey(filepath.Join(dir, "serving-ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		again := signedBySelf(t, &template, key)
		write(t, filepath.Join(dir, "serving-ca.crt"), encodeCertificate(again), 0o644)
		a := authorityIn(t, dir, RoleServing)
		_, err = a.Rotate()
		wantError(t, "path length 0", err, "rotate the serving CA: ", "path length 0", "to start anew")
		if got := readAll(t, filepath.Join(dir, "serving-ca.crt")); !bytes.Equal(got, encodeCertificate(again)) {
			t.Error("the file was changed")
		}
	})
	t.Run("a record of a newer version", func(t *testing.T) {
		dir := t.TempDir()
		a := authorityIn(t, dir, RoleAgents)
		write(t, filepath.Join(dir, "agents-ca.json"), []byte(`{"format":2}`), 0o600)
		_, err := a.Rotate()
		wantError(t, "newer", err, "agents-ca.json: format 2, this version knows 1")
		write(t, filepath.Join(dir, "agents-ca.json"), []byte(`{`), 0o600)
		_, err = a.Rotate()
		wantError(t, "damaged", err, "agents-ca.json: unexpected EOF: move it away")
	})
}

func TestIssuedRecordIsWrittenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a := authorityIn(t, dir, RoleAgents)
		writes, last := 0, ""
		for range 60 {
			cert := agentPair(t, a, "edge-1", time.Hour).Leaf
			text := string(readAll(t, filepath.Join(dir, "agents-ca.json")))
			if text != last {
				writes, last = writes+1, text
			}
			var record issuedRecord
			if err := json.Unmarshal([]byte(text), &record); err != nil {
				t.Fatal(err)
			}
			if entry := record.Authorities[Pin(a.Certificate())]; entry.Latest.Before(cert.NotAfter) {
				t.Fatalf("recorded until %s, and a certificate is valid until %s", entry.Latest, cert.NotAfter)
			}
			time.Sleep(time.Minute)
		}
		if writes > 5 {
			t.Errorf("%d writes for 60 certificates", writes)
		}
	})
}
