package pki

import (
	"crypto"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func selfServe(t *testing.T, a *Authority, dir string, log *logLines, names ...string) *KeyPair {
	t.Helper()
	pair, err := SelfServing(a, dir, names, log.option())
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestSelfServingIsKeptWhileItFits(t *testing.T) {
	a, dir, log := newAuthority(t, RoleServing), t.TempDir(), new(logLines)
	first := selfServe(t, a, dir, log, "localhost", "127.0.0.1", "::1")
	log.want(t, 1, "reason=\"there is none\"")
	again := selfServe(t, a, dir, log, "::1", "LOCALHOST", "127.0.0.1", "localhost")
	if !first.Leaf().Equal(again.Leaf()) {
		t.Error("a new certificate for the same names in another order")
	}
	log.want(t, 1, "")
	for name, mode := range map[string]os.FileMode{"serving.crt": 0o644, "serving.key": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, want mode %s", name, err, mode)
		}
	}
}

func TestSelfServingIsReplaced(t *testing.T) {
	other := newAuthority(t, RoleServing)
	spare, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		names  []string
		change func(t *testing.T, dir string)
		other  bool
		reason string
	}{
		{name: "name added", names: []string{"a.example.com", "b.example.com"}, reason: "for other names"},
		{name: "name changed", names: []string{"b.example.com"}, reason: "for other names"},
		{name: "other authority", names: []string{"a.example.com"}, other: true, reason: "from another authority"},
		{
			name: "certificate gone", names: []string{"a.example.com"}, reason: "there is none",
			change: func(t *testing.T, dir string) {
				t.Helper()
				remove(t, filepath.Join(dir, "serving.crt"))
			},
		},
		{
			name: "halves of two pairs", names: []string{"a.example.com"}, reason: "is not the key of",
			change: func(t *testing.T, dir string) {
				t.Helper()
				write(t, filepath.Join(dir, "serving.key"), encoded(t, spare), 0o600)
			},
		},
		{
			name: "certificate damaged", names: []string{"a.example.com"}, reason: "half-written or damaged",
			change: func(t *testing.T, dir string) {
				t.Helper()
				write(t, filepath.Join(dir, "serving.crt"), []byte("-----BEGIN CERTIFICATE-----\nMII"), 0o644)
			},
		},
		{
			name: "key open to others", names: []string{"a.example.com"}, reason: "mode 0644 opens this private key",
			change: func(t *testing.T, dir string) {
				t.Helper()
				if err := os.Chmod(filepath.Join(dir, "serving.key"), 0o644); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, dir, log := newAuthority(t, RoleServing), t.TempDir(), new(logLines)
			first := selfServe(t, a, dir, new(logLines), "a.example.com")
			if test.change != nil {
				test.change(t, dir)
			}
			if test.other {
				a = other
			}
			second := selfServe(t, a, dir, log, test.names...)
			if samePublicKey(first.Leaf(), second.get().PrivateKey.(crypto.Signer)) {
				t.Error("the key was used again")
			}
			log.want(t, 1, test.reason)
			third := selfServe(t, a, dir, log, test.names...)
			if !third.Leaf().Equal(second.Leaf()) {
				t.Error("the new certificate is not what the files hold")
			}
			agents := newAuthority(t, RoleAgents)
			atServer, atClient := handshake(t, hub(third, agents), agent(agentPair(t, agents, "edge-1", 0), a, test.names[0]))
			wantThrough(t, test.name, atServer, atClient)
		})
	}
}

func TestSelfServingIsReplacedAtTwoThirdsOfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir, log := newAuthority(t, RoleServing), t.TempDir(), new(logLines)
		agents := newAuthority(t, RoleAgents)
		client := agent(agentPair(t, agents, "edge-1", 5*DefaultLifetime), a, "hub.example.com")
		pair := selfServe(t, a, dir, log, "hub.example.com")
		first := pair.Leaf()
		time.Sleep(time.Until(RenewAt(first)) - time.Second)
		if !pair.Leaf().Equal(first) {
			t.Error("replaced before two thirds of its life")
		}
		time.Sleep(time.Second)
		const goroutines = 8
		done := make(chan outcome)
		shake := func() {
			atServer, atClient := handshake(t, hub(pair, agents), client)
			if atServer.err != nil || atClient.err != nil {
				t.Errorf("server: %v, client: %v", atServer.err, atClient.err)
			}
			done <- atClient
		}
		for range goroutines {
			go shake()
		}
		second := pair.Leaf()
		for range goroutines {
			got := <-done
			if cert := got.state.PeerCertificates; len(cert) == 0 || !cert[0].Equal(second) {
				t.Error("a handshake did not get the one new certificate")
			}
		}
		if second.Equal(first) {
			t.Error("not replaced at two thirds of its life")
		}
		log.want(t, 1, "replaced the serving certificate")
		if !selfServe(t, a, dir, log, "hub.example.com").Leaf().Equal(second) {
			t.Error("the files do not hold the new certificate")
		}
		time.Sleep(time.Until(RenewAt(second)))
		if selfServe(t, a, dir, log, "hub.example.com").Leaf().Equal(second) {
			t.Error("not replaced at two thirds of its life when loading")
		}
		log.want(t, 1, "two thirds of the life")
	})
}

func TestSelfServingKeepsTheOldWhenItCannotBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir, log := newAuthority(t, RoleServing), filepath.Join(t.TempDir(), "pki"), new(logLines)
		mkdir(t, dir)
		pair := selfServe(t, a, dir, log, "hub.example.com")
		first := pair.Leaf()
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(RenewAt(first)))
		for range 5 {
			if !pair.Leaf().Equal(first) {
				t.Error("the old certificate is not in force")
			}
			time.Sleep(checkInterval)
		}
		log.want(t, 1, "cannot replace the serving certificate, the one before stays in force")
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		if pair.Leaf().Equal(first) {
			t.Error("not replaced when it was possible again")
		}
		log.want(t, 1, "replaced the serving certificate")
	})
}

func TestSelfServingRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := SelfServing(newAuthority(t, RoleServing), dir, nil)
	wantError(t, "no names", err, "serving certificate: tls name: none given")
	_, err = SelfServing(newAuthority(t, RoleAgents), dir, []string{"localhost"})
	wantError(t, "other role", err, "serving certificate: the agents CA does not sign for servers")
	mkdir(t, filepath.Join(dir, "serving.crt"))
	_, err = SelfServing(newAuthority(t, RoleServing), dir, []string{"localhost"})
	write(t, filepath.Join(dir, "serving.key"), nil, 0o600)
	_, err2 := SelfServing(newAuthority(t, RoleServing), dir, []string{"localhost"})
	wantError(t, "a folder in the way, no key", err, "serving.crt")
	wantError(t, "a folder in the way", err2, "serving.crt: not a regular file")
}
