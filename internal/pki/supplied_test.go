package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestSuppliedAuthority(t *testing.T) {
	dir := t.TempDir()
	writeAuthority(t, dir, func(*x509.Certificate) {})
	certFile, keyFile := filepath.Join(dir, "agents-ca.crt"), filepath.Join(dir, "agents-ca.key")
	t.Run("with its key it signs", func(t *testing.T) {
		a, err := LoadAuthority(RoleAgents, certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		wantAgent(t, "signed by the operator's authority", a, agentPair(t, a, "edge-1", 0), "edge-1")
		if !a.CanSign() || a.CanRotate() {
			t.Errorf("can sign: %v, can rotate: %v", a.CanSign(), a.CanRotate())
		}
		_, err = a.Rotate()
		wantError(t, "rotation", err, "it is not the hub's own: its owner replaces "+certFile)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("the operator's folder has %v: %v", entries, err)
		}
	})
	t.Run("without its key it is trusted", func(t *testing.T) {
		withKey, err := LoadAuthority(RoleAgents, certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		a, err := LoadAuthority(RoleAgents, certFile, "")
		if err != nil {
			t.Fatal(err)
		}
		wantAgent(t, "trusted", a, agentPair(t, withKey, "edge-1", 0), "edge-1")
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.SignAgent(key.Public(), trustDomain, "edge-1", 0)
		wantError(t, "no key", err, "issue agent certificate: the agents CA: "+certFile, "give it the key")
		if !errors.Is(err, ErrNoKey) || a.CanSign() {
			t.Errorf("%v is not ErrNoKey, can sign: %v", err, a.CanSign())
		}
	})
	t.Run("V15: a key that others can read is refused, or warned about where that is set", func(t *testing.T) {
		for _, mode := range []os.FileMode{0o640, 0o604} {
			if err := os.Chmod(keyFile, mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadAuthority(RoleAgents, certFile, keyFile)
			wantError(t, "open key", err, fmt.Sprintf("agents-ca.key: mode %04o opens this private key to other users: chmod 600 %s", mode, keyFile))
			log := new(logLines)
			if _, err := LoadAuthority(RoleAgents, certFile, keyFile, log.option(), WithOpenKeys(OpenKeysWarn)); err != nil {
				t.Error(err)
			}
			log.want(t, 1, "level=WARN")
		}
	})
	_, err := LoadAuthority(RoleAgents, "", "")
	wantError(t, "no file", err, "agents CA: no certificate file given")
	_, err = LoadAuthority("agent", certFile, "")
	wantError(t, "unknown role", err, `unknown role "agent"`)
}

func TestSuppliedIntermediateAuthority(t *testing.T) {
	root := newIssuer(t, "root", nil, nil)
	between := newIssuer(t, "between", &root, nil)
	signer := newIssuer(t, "signer", &between, nil)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	write(t, keyFile, encoded(t, signer.key), 0o600)
	for name, file := range map[string][]byte{
		"with those above it": join(signer.pem(), between.pem(), root.pem()),
		"in any order":        join(root.pem(), between.pem(), signer.pem()),
	} {
		write(t, certFile, file, 0o644)
		serving, err := LoadAuthority(RoleServing, certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		pair := selfServe(t, serving, t.TempDir(), new(logLines), "hub.example.com")
		if sent := len(pair.get().Certificate); sent != 3 {
			t.Errorf("%s: %d certificates are sent, want the server's and two intermediate ones", name, sent)
		}
		roots, err := FixedRoots(root.pem())
		if err != nil {
			t.Fatal(err)
		}
		agents := newAuthority(t, RoleAgents)
		atServer, atClient := handshake(t, hub(pair, agents), agent(agentPair(t, agents, "edge-1", 0), roots, "hub.example.com"))
		wantThrough(t, name, atServer, atClient)
	}
}
