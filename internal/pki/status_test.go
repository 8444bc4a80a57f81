package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// watched is each kind of [Watched] with a file that can be changed.
type watched struct {
	Watched
	name, file string
	expires    func() time.Time
}

func everyWatched(t *testing.T, opts ...Option) []watched {
	t.Helper()
	dir := folder(t.TempDir())
	a := newAuthority(t, RoleAgents)
	dir.put(t, a, "one")
	pair, err := LoadKeyPair(dir.cert(), dir.key(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := LoadBundle(dir.ca(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	auths := t.TempDir()
	auth, err := LoadOrCreate(auths, RoleUsers, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return []watched{
		{pair, "key pair", dir.cert(), func() time.Time { return pair.Leaf().NotAfter }},
		{bundle, "CA bundle", dir.ca(), func() time.Time { return a.Certificate().NotAfter }},
		{auth, "users CA", filepath.Join(auths, "users-ca.crt"), func() time.Time { return auth.Certificate().NotAfter }},
	}
}

func TestStatusAndReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(logLines)
		for _, w := range everyWatched(t, log.option()) {
			good, err := os.ReadFile(w.file)
			if err != nil {
				t.Fatal(err)
			}
			s := w.Status()
			start := s.Read
			if s.Name != w.name || s.Files[0] != w.file || !s.NotAfter.Equal(w.expires()) || s.Err != "" || s.Failures != 0 ||
				!strings.Contains(s.Subject, "CN=") || s.Serial == "" || len(s.Fingerprint) != 95 || start.IsZero() || len(s.Files) > 2 {
				t.Errorf("%s: %+v", w.name, s)
			}

			write(t, w.file, good[:100], 0o644)
			if err := w.Reload(); err == nil || !strings.Contains(err.Error(), "half-written") {
				t.Errorf("%s: a bad file is read at once: %v", w.name, err)
			}
			time.Sleep(10 * checkInterval)
			if s := w.Status(); !strings.Contains(s.Err, "half-written") || s.Failures != 1 || !s.NotAfter.Equal(w.expires()) || !s.Read.Equal(start) {
				t.Errorf("%s: one problem found many times: %+v", w.name, s)
			}
			remove(t, w.file)
			time.Sleep(checkInterval)
			if s := w.Status(); !strings.Contains(s.Err, "no such file") || s.Failures != 2 {
				t.Errorf("%s: the status looks at the files: %+v", w.name, s)
			}
			write(t, w.file, good, 0o644)
			if err := w.Reload(); err != nil {
				t.Errorf("%s: put back: %v", w.name, err)
			}
			if s := w.Status(); s.Err != "" || s.Failures != 2 {
				t.Errorf("%s: put back: %+v", w.name, s)
			}
		}
		log.want(t, 6, "cannot be used, what was loaded before stays in force")
	})
}

func TestReloadReadsFilesThatLookUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := newAuthority(t, RoleAgents), newAuthority(t, RoleAgents)
		file, old := filepath.Join(t.TempDir(), "ca.crt"), time.Now().Add(-time.Hour)
		same := func(a *Authority) {
			data := a.PEM()
			for len(data) < 1000 {
				data = append(data, '\n')
			}
			write(t, file, data, 0o644)
			if err := os.Chtimes(file, old, old); err != nil {
				t.Fatal(err)
			}
		}
		same(first)
		bundle, err := LoadBundle(file, new(logLines).option())
		if err != nil {
			t.Fatal(err)
		}
		same(second)
		time.Sleep(checkInterval)
		if !bundle.Certificates()[0].Equal(first.Certificate()) {
			t.Fatal("the change can be seen: nothing is shown")
		}
		if err := bundle.Reload(); err != nil || !bundle.Certificates()[0].Equal(second.Certificate()) {
			t.Errorf("not read again: %v", err)
		}
	})
}

func TestStatusOfAnOpenKey(t *testing.T) {
	t.Run("V15: a key pair's key that all can read is warned about, or refused where that is set", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := folder(t.TempDir())
			dir.put(t, newAuthority(t, RoleAgents), "one")
			if err := os.Chmod(dir.key(), 0o644); err != nil {
				t.Fatal(err)
			}
			pair, err := LoadKeyPair(dir.cert(), dir.key(), new(logLines).option())
			if err != nil {
				t.Fatal(err)
			}
			if w := pair.Status().Warnings; len(w) != 1 || !strings.Contains(w[0], "chmod 600 "+dir.key()) {
				t.Errorf("warnings %q", w)
			}
			_, err = LoadKeyPair(dir.cert(), dir.key(), WithOpenKeys(OpenKeysRefuse))
			wantError(t, "refused", err, "tls.key: mode 0644 opens this private key to other users: chmod 600 "+dir.key())
			if err := os.Chmod(dir.key(), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := pair.Reload(); err != nil || pair.Status().Warnings != nil {
				t.Errorf("after chmod: %v, %q", err, pair.Status().Warnings)
			}
		})
	})
}

func TestStatusOfASelfIssuedCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		serving := authorityIn(t, dir, RoleServing)
		pair := selfServe(t, serving, dir, new(logLines), "hub")
		before := pair.Status()
		if before.Name != "serving certificate" || before.Files[0] != filepath.Join(dir, "serving.crt") || before.Err != "" || !pair.SelfIssued() {
			t.Errorf("%+v", before)
		}
		if err := pair.Reload(); err != nil || pair.Status().Serial != before.Serial {
			t.Errorf("issued again without need: %v", err)
		}
		rotate(t, serving)
		if err := pair.Reload(); err != nil || pair.Status().Serial == before.Serial {
			t.Errorf("not issued again after a rotation: %v", err)
		}
		leaf := pair.Leaf()
		mkdir(t, filepath.Join(dir, "away"))
		rotate(t, serving)
		remove(t, filepath.Join(dir, "serving.crt"))
		mkdir(t, filepath.Join(dir, "serving.crt"))
		if s := pair.Status(); s.Err == "" || s.Failures != 1 || !pair.Leaf().Equal(leaf) {
			t.Errorf("a folder in the way: %+v", s)
		}
		time.Sleep(checkInterval)
		remove(t, filepath.Join(dir, "serving.crt"))
		if s := pair.Status(); s.Err != "" || pair.Leaf().Equal(leaf) {
			t.Errorf("out of the way: %+v", s)
		}
	})
}

func TestSelfServingLifetime(t *testing.T) {
	t.Run("O9: a short serving certificate is renewed again and again at two thirds of its life, while running", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir, log := t.TempDir(), new(logLines)
			serving, agents := authorityIn(t, dir, RoleServing), newAuthority(t, RoleAgents)
			pair, err := SelfServing(serving, dir, []string{"hub.example.com"}, log.option(), WithLifetime(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			client := agent(agentPair(t, agents, "edge-1", 0), serving, "hub.example.com")
			for range 60 {
				atServer, atClient := handshake(t, hub(pair, agents), client)
				wantThrough(t, "while it is renewed", atServer, atClient)
				if left := time.Until(pair.Leaf().NotAfter); left < 18*time.Second || left > time.Minute {
					t.Errorf("%s left", left)
				}
				time.Sleep(5 * time.Second)
			}
			if got := len(log.with("replaced the serving certificate")); got < 6 || got > 9 {
				t.Errorf("renewed %d times in five minutes", got)
			}
			shorter, err := SelfServing(serving, dir, []string{"hub.example.com"}, log.option(), WithLifetime(10*time.Second))
			if err != nil || time.Until(shorter.Leaf().NotAfter) > 10*time.Second {
				t.Errorf("a shorter life is configured: %v, %v", shorter.Leaf().NotAfter, err)
			}
		})
	})
}

func TestRenewAtIsSpread(t *testing.T) {
	a := newAuthority(t, RoleAgents)
	first, last := 1.0, 0.0
	for range 40 {
		leaf := agentPair(t, a, "edge-1", time.Hour).Leaf
		if !RenewAt(leaf).Equal(RenewAt(leaf)) {
			t.Fatal("two times for one certificate")
		}
		share := RenewAt(leaf).Sub(leaf.NotBefore).Seconds() / leaf.NotAfter.Sub(leaf.NotBefore).Seconds()
		first, last = min(first, share), max(last, share)
	}
	if first < 0.633 || last > 0.701 || last-first < 0.02 {
		t.Errorf("renewed between %.3f and %.3f of the life, want two thirds, 5 %% earlier or later", first, last)
	}
}

func TestAgentChecks(t *testing.T) {
	w := newWorld(t)
	revoked := errors.New("cluster edge-1 was revoked")
	var asked []string
	check := func(err error) AgentCheck {
		return func(cluster string, cert *x509.Certificate) error {
			asked = append(asked, cluster+" "+cert.Subject.CommonName)
			return err
		}
	}
	leaf := agentPair(t, w.agents, "edge-1", 0)
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf.Leaf}}
	if cluster, err := VerifyAgent(w.agents, trustDomain, check(nil), check(nil))(state); err != nil || cluster != "edge-1" || len(asked) != 2 {
		t.Errorf("%q, %v, asked %q", cluster, err, asked)
	}
	asked = nil
	cluster, err := VerifyAgent(w.agents, trustDomain, check(revoked), check(nil))(state)
	if !errors.Is(err, revoked) || cluster != "" || len(asked) != 1 || asked[0] != "edge-1 edge-1" {
		t.Errorf("%q, %v, asked %q", cluster, err, asked)
	}
	asked = nil
	_, err = VerifyAgent(newAuthority(t, RoleAgents), trustDomain, check(nil))(state)
	if err == nil || asked != nil {
		t.Errorf("asked about a certificate that is not trusted: %q", asked)
	}
}
