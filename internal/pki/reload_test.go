package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// folder holds a pair as WriteKeyPair leaves it.
type folder string

func (f folder) cert() string { return filepath.Join(string(f), "tls.crt") }
func (f folder) key() string  { return filepath.Join(string(f), "tls.key") }
func (f folder) ca() string   { return filepath.Join(string(f), "ca.crt") }

func (f folder) put(t *testing.T, a *Authority, cluster string) {
	t.Helper()
	certPEM, keyPEM := agentPEM(t, a, cluster, 0)
	if err := WriteKeyPair(string(f), certPEM, keyPEM, a.PEM()); err != nil {
		t.Fatal(err)
	}
}

func wantCluster(t *testing.T, reason string, pair *KeyPair, want string) {
	t.Helper()
	got, err := ClusterOf(pair.Leaf(), trustDomain)
	if err != nil || got != want {
		t.Errorf("%s: certificate of %q, want %q: %v", reason, got, want, err)
	}
}

func TestKeyPairIsReadAgainAfterRename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir, log := newAuthority(t, RoleAgents), folder(t.TempDir()), new(logLines)
		dir.put(t, a, "one")
		pair, err := LoadKeyPair(dir.cert(), dir.key(), log.option())
		if err != nil {
			t.Fatal(err)
		}
		dir.put(t, a, "two")
		wantCluster(t, "within a second", pair, "one")
		time.Sleep(checkInterval)
		wantCluster(t, "after a second", pair, "two")
		time.Sleep(time.Hour)
		wantCluster(t, "much later", pair, "two")
		log.want(t, 1, `msg="reloaded from files" what="key pair"`)
		log.want(t, 1, "")
	})
}

func TestKeyPairInOneFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := newAuthority(t, RoleAgents), new(logLines)
		file := filepath.Join(t.TempDir(), "both.pem")
		certPEM, keyPEM := agentPEM(t, a, "one", 0)
		write(t, file, append(keyPEM, certPEM...), 0o600)
		pair, err := LoadKeyPair(file, file, log.option())
		if err != nil {
			t.Fatal(err)
		}
		wantCluster(t, "key first", pair, "one")
		certPEM, keyPEM = agentPEM(t, a, "two", 0)
		write(t, file, append(certPEM, keyPEM...), 0o600)
		time.Sleep(checkInterval)
		wantCluster(t, "certificate first", pair, "two")
	})
}

func TestBadFilesKeepTheOldPairAndAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir, log := newAuthority(t, RoleAgents), folder(t.TempDir()), new(logLines)
		dir.put(t, a, "one")
		pair, err := LoadKeyPair(dir.cert(), dir.key(), log.option())
		if err != nil {
			t.Fatal(err)
		}
		goodCert, err := os.ReadFile(dir.cert())
		if err != nil {
			t.Fatal(err)
		}
		otherCert, otherKey := agentPEM(t, a, "two", 0)
		soon := signed(t, a, &x509.Certificate{
			SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
			URIs: []*url.URL{agentURL(trustDomain, "three")},
		})
		for _, step := range []struct {
			reason string
			change func()
			want   string
		}{
			{"half-written", func() { write(t, dir.cert(), otherCert[:200], 0o644) }, "tls.crt: half-written or damaged"},
			{"empty", func() { write(t, dir.cert(), nil, 0o644) }, "tls.crt: empty"},
			{"another key's", func() { write(t, dir.cert(), otherCert, 0o644) }, "tls.key is not the key of"},
			{"gone", func() { remove(t, dir.cert()) }, "no such file"},
			{"a folder", func() { mkdir(t, dir.cert()) }, "tls.crt: not a regular file"},
			{"not valid yet", func() {
				remove(t, dir.cert())
				write(t, dir.cert(), encodeCertificate(soon.Certificate[0]), 0o644)
				write(t, dir.key(), encoded(t, soon.PrivateKey.(crypto.Signer)), 0o600)
			}, "tls.crt: not valid before 2000-01-01T01:00:00Z"},
		} {
			step.change()
			for range 5 {
				time.Sleep(checkInterval)
				wantCluster(t, step.reason, pair, "one")
			}
			log.want(t, 1, step.want)
		}
		log.want(t, 6, "what was loaded before stays in force")
		log.want(t, 6, "level=ERROR")

		time.Sleep(time.Hour)
		wantCluster(t, "the certificate became valid though no file changed", pair, "three")
		write(t, dir.cert(), goodCert, 0o644)
		time.Sleep(checkInterval)
		wantCluster(t, "bad again", pair, "three")
		write(t, dir.cert(), otherCert, 0o644)
		write(t, dir.key(), otherKey, 0o600)
		time.Sleep(checkInterval)
		wantCluster(t, "good again", pair, "two")
		log.want(t, 2, `msg="reloaded from files" what="key pair"`)
		log.want(t, 9, "")
	})
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestLoadKeyPairRefuses(t *testing.T) {
	a, dir := newAuthority(t, RoleAgents), folder(t.TempDir())
	dir.put(t, a, "one")
	certPEM, keyPEM := agentPEM(t, a, "two", 0)
	other := func(name string, data []byte) string {
		path := filepath.Join(string(dir), name)
		write(t, path, data, 0o600)
		return path
	}
	expired := signed(t, a, &x509.Certificate{
		SerialNumber: big.NewInt(7),
		NotBefore:    time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2024, 3, 2, 0, 0, 0, 0, time.UTC),
	})
	for _, test := range []struct{ name, cert, key, want string }{
		{"no certificate file", "", dir.key(), "no certificate file given"},
		{"no key file", dir.cert(), "", "no key file given"},
		{"missing file", filepath.Join(string(dir), "nothing.crt"), dir.key(), "nothing.crt: no such file"},
		{"a folder", string(dir), dir.key(), "not a regular file"},
		{"a device", "/dev/null", dir.key(), "not a regular file"},
		{"another's key", dir.cert(), other("two.key", keyPEM), "two.key is not the key of"},
		{"swapped", dir.key(), dir.cert(), "holds no certificate, the first PEM block is \"PRIVATE KEY\""},
		{"issuer first", other("chain.crt", append(a.PEM(), certPEM...)), other("two.key", keyPEM), "is number 2 in the file, put it first"},
		{"too large", other("large.crt", make([]byte, maxFile+1)), dir.key(), "larger than"},
		{
			"expired", other("old.crt", encodeCertificate(expired.Certificate[0])), other("old.key", encoded(t, expired.PrivateKey.(crypto.Signer))),
			"old.crt: expired at 2024-03-02T00:00:00Z (valid from 2024-03-01T00:00:00Z)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := LoadKeyPair(test.cert, test.key)
			wantError(t, test.name, err, "load key pair: ", test.want)
		})
	}
	_, err := LoadBundle("")
	wantError(t, "no bundle", err, "load CA bundle: no file given")
	_, err = LoadBundle(other("half.crt", append(a.PEM(), certPEM[:100]...)))
	wantError(t, "half a bundle", err, "half.crt: half-written or damaged: 1 of 2")
}

func TestLoadKeyPairTellsOfAnOpenKey(t *testing.T) {
	a, dir := newAuthority(t, RoleAgents), folder(t.TempDir())
	dir.put(t, a, "one")
	for mode, lines := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		log := new(logLines)
		if err := os.Chmod(dir.key(), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeyPair(dir.cert(), dir.key(), log.option()); err != nil {
			t.Fatal(err)
		}
		log.want(t, lines, fmt.Sprintf("level=WARN msg=\"a certificate or key is not as it should be\" what=\"key pair\" problem=\"%[1]s: mode %04[2]o opens this private key to other users: chmod 600 %[1]s\"", dir.key(), mode))
		log.want(t, lines, "")
	}
}

// Files whose times are old are told apart by identity, size and time alone.
func TestSettledFilesAreNotReadUnlessTheyChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, log := filepath.Join(t.TempDir(), "ca.crt"), new(logLines)
		old := time.Now().Add(-time.Hour)
		put := func(path string, data string) {
			write(t, path, []byte(data), 0o644)
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		parsed := 0
		put(file, "one")
		f, err := follow(newOptions("text", []Option{log.option()}), func(in []input) (string, error) {
			parsed++
			return string(in[0].data), nil
		}, required(file)...)
		if err != nil {
			t.Fatal(err)
		}
		want := func(reason, value string, times int) {
			t.Helper()
			time.Sleep(checkInterval)
			if got := f.get(); got != value || parsed != times {
				t.Errorf("%s: %q after %d readings, want %q after %d", reason, got, parsed, value, times)
			}
		}
		want("nothing changed", "one", 1)
		put(file, "two")
		want("in place, same size and time: cannot be seen", "one", 1)
		put(file+".new", "six")
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		want("another file of the same size and time", "six", 2)
		old = old.Add(time.Second)
		put(file, "ten")
		want("another time", "ten", 3)
		put(file, "eleven")
		want("another size", "eleven", 4)
		old = time.Now()
		put(file, "twelve")
		want("fresh", "twelve", 5)
		put(file, "zwoelf")
		want("fresh, same size and time", "zwoelf", 6)
		want("fresh, same content", "zwoelf", 6)
		time.Sleep(settleTime)
		want("settled", "zwoelf", 6)
	})
}

func TestReloadWhileHandshakesRun(t *testing.T) {
	t.Run("by rename", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			dir := folder(t.TempDir())
			// Files that are replaced one after the other may be seen between.
			reloadUnderLoad(t, dir, func(a *Authority, cluster string) { dir.put(t, a, cluster) })
		})
	})
	t.Run("by symbolic link", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := mountedSecret(t)
			log := reloadUnderLoad(t, folder(v.root), func(a *Authority, cluster string) {
				v.swap(t, func(dir string) { folder(dir).put(t, a, cluster) })
			})
			log.want(t, 0, "cannot be used") // the swap is one step, and is seen as one
		})
	})
}

// reloadUnderLoad changes an agent's certificate and the hub's trust in agents
// many times while handshakes run one after the other in several goroutines, and
// wants each of them to succeed and the last certificate to be in force.
func reloadUnderLoad(t *testing.T, dir folder, put func(a *Authority, cluster string)) *logLines {
	t.Helper()
	w, log := newWorld(t), new(logLines)
	put(w.agents, "version-0")
	pair, err := LoadKeyPair(dir.cert(), dir.key(), log.option())
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := LoadBundle(dir.ca(), log.option())
	if err != nil {
		t.Fatal(err)
	}
	server, client := hub(w.pair, bundle), agent(tls.Certificate{}, w.serving, "hub.example.com")
	client.GetClientCertificate = pair.GetClientCertificate

	const workers, versions = 3, 8
	stop := make(chan struct{})
	counts := make(chan int)
	work := func() {
		count := 0
		for {
			select {
			case <-stop:
				counts <- count
				return
			case <-time.After(100 * time.Millisecond):
			}
			atServer, atClient := handshake(t, server, client)
			if atServer.err != nil || atClient.err != nil {
				t.Errorf("handshake while files change: server: %v, client: %v", atServer.err, atClient.err)
			}
			count++
		}
	}
	for range workers {
		go work()
	}
	for version := range versions {
		put(w.agents, fmt.Sprintf("version-%d", version))
		time.Sleep(1300 * time.Millisecond)
	}
	time.Sleep(2 * checkInterval)
	close(stop)
	total := 0
	for range workers {
		total += <-counts
	}
	if total < workers*versions {
		t.Errorf("%d handshakes only", total)
	}
	wantCluster(t, "after the last change", pair, fmt.Sprintf("version-%d", versions-1))
	return log
}
