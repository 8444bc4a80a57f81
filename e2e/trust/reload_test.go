package trust

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/culvertdev/culvert/e2e/testbed"
)

// secret is a folder as the kubelet mounts a Secret: the names lead through a
// symbolic link to a folder with all the files, and an update swaps that link.
type secret struct {
	dir  string
	next int
}

func newSecret(dir string) (*secret, error) {
	return &secret{dir: dir}, os.MkdirAll(dir, 0o700)
}

// put swaps in new files.
func (s *secret) put(files map[string][]byte) error {
	s.next++
	data := fmt.Sprintf("..%d", s.next)
	errs := []error{os.Mkdir(filepath.Join(s.dir, data), 0o700)}
	for name, text := range files {
		errs = append(errs, os.WriteFile(filepath.Join(s.dir, data, name), text, 0o600))
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(s.dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
		}
	}
	temp := filepath.Join(s.dir, "..data_tmp")
	errs = append(errs, os.Symlink(data, temp), os.Rename(temp, filepath.Join(s.dir, "..data")))
	if s.next > 1 {
		errs = append(errs, os.RemoveAll(filepath.Join(s.dir, fmt.Sprintf("..%d", s.next-1))))
	}
	return errors.Join(errs...)
}

// putPair swaps in a certificate with its key and CA.
func (s *secret) putPair(cert tls.Certificate, ca []byte) error {
	certPEM, keyPEM, err := pemOf(cert)
	if err != nil {
		return err
	}
	return s.put(map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM, "ca.crt": ca})
}

// rename puts a file in the place of another.
func rename(path string, text []byte) error {
	return errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path))
}

func TestReload(t *testing.T) {
	t.Parallel() // beside TestRenewal
	ctx := within(t, 4*time.Minute)
	ca, err := newAuthority("the operator's CA")
	must(t, err)
	sign := func(t *testing.T, names ...string) tls.Certificate {
		t.Helper()
		cert, err := ca.sign(serverTemplate(names...))
		must(t, err)
		return cert
	}
	// combined has the key before the certificate, in base64.
	combined := func(t *testing.T, cert tls.Certificate) []byte {
		t.Helper()
		certPEM, keyPEM, err := pemOf(cert)
		must(t, err)
		return []byte(base64.StdEncoding.EncodeToString(append(keyPEM, certPEM...)))
	}
	dir := filepath.Join(testbed.Dir(), "serving")
	file := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(dir, 0o700))
	mounted, err := newSecret(file("secret"))
	must(t, err)
	main, place, moved, swapped := sign(t, "hub.example.com", "localhost", testbed.HubAddress.String()), sign(t, "place.example.com"), sign(t, "moved.example.com"), sign(t, "swapped.example.com")
	must(t, writePair(file("place.crt"), file("place.key"), place))
	must(t, rename(file("moved.pem"), combined(t, moved)))
	must(t, mounted.putPair(swapped, ca.pem()))
	must(t, os.WriteFile(file("ca.crt"), ca.pem(), 0o600))
	tokens := filepath.Join(dir, "tokens.csv")
	must(t, os.WriteFile(tokens, fmt.Appendf(nil, "%s,ada,1,\"dev\"\n", the.ada), 0o600))
	h := startHub(ctx, t, "reload", hubConfig{
		yaml: fmt.Sprintf(`tlsCert: %[1]s/main.crt
tlsKey: %[1]s/main.key
tls:
  minVersion: "1.2"
  ca: %[1]s/ca.crt
  certificates:
  - {cert: %[1]s/place.crt, key: %[1]s/place.key, ca: %[1]s/ca.crt}
  - {cert: %[1]s/moved.pem, ca: %[1]s/ca.crt}
  - {dir: %[1]s/secret}
`, dir),
		args: []string{"--token-file", tokens},
	})
	serves := func(t *testing.T, name string, want tls.Certificate) {
		t.Helper()
		check(t, testbed.Poll(ctx, "the certificate of "+name, func(ctx context.Context) error { return h.serves(ctx, name, want.Leaf) }))
	}

	t.Run("O8,O10: without its serving certificate the hub issues its own and says so, and changes to the configured one when that appears", func(t *testing.T) {
		must(t, h.ready(ctx)) // with the hub's own CA
		awaitLine(ctx, t, h.process.Log(), 0, "certificate", "own CA")
		must(t, writePair(file("main.crt"), file("main.key"), main))
		serves(t, "hub.example.com", main)
		h.cfg.roots = ca.pool()
		must(t, h.ready(ctx))
	})

	t.Run("D16: each host name gets its own certificate by SNI, an address the default one, and a name that none has is refused", func(t *testing.T) {
		for name, want := range map[string]tls.Certificate{
			"place.example.com": place, "moved.example.com": moved, "swapped.example.com": swapped,
			"hub.example.com": main, testbed.HubAddress.String(): main,
		} {
			check(t, h.serves(ctx, name, want.Leaf))
		}
		if err := h.serves(ctx, "unknown.example.com", main.Leaf); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("an unknown name: %v", err)
		}
	})

	t.Run("N7,P5,V11,O10: a serving certificate is replaced while running: in place, by rename, and by the swap of a mounted Secret", func(t *testing.T) {
		for name, change := range map[string]func(tls.Certificate) error{
			"place.example.com":   func(c tls.Certificate) error { return writePair(file("place.crt"), file("place.key"), c) },
			"moved.example.com":   func(c tls.Certificate) error { return rename(file("moved.pem"), combined(t, c)) },
			"swapped.example.com": func(c tls.Certificate) error { return mounted.putPair(c, ca.pem()) },
		} {
			for range 2 {
				next := sign(t, name)
				started := time.Now()
				must(t, change(next))
				serves(t, name, next)
				t.Logf("%s: in force after %v", name, time.Since(started).Round(time.Millisecond))
			}
		}
	})

	t.Run("N7,P5: a bad new certificate leaves the old one in force, and readyz?verbose, a metric and the log say so until it is mended", func(t *testing.T) {
		before, err := h.presented(ctx, "place.example.com")
		must(t, err)
		skip := len(logLines(t, h.process.Log(), ""))
		other := sign(t, "place.example.com")
		certPEM, _, err := pemOf(other)
		must(t, err)
		must(t, os.WriteFile(file("place.crt"), certPEM, 0o600)) // without its key
		report := awaitReport(ctx, t, h, true, file("place.crt"))
		t.Logf("readyz?verbose: %s", report)
		t.Logf("log: %s", awaitLine(ctx, t, h.process.Log(), skip, "level=ERROR", "stays in force", "place.crt"))
		after, err := h.presented(ctx, "place.example.com")
		must(t, err)
		if !after[0].Equal(before[0]) {
			t.Error("another certificate is shown")
		}
		check(t, testbed.Poll(ctx, "a metric that counts the failure", func(ctx context.Context) error {
			failures, err := h.metric(ctx, "culvert_reload_failures_total")
			if err == nil && !slices.ContainsFunc(failures, func(line string) bool { return !strings.HasSuffix(line, " 0") }) {
				err = fmt.Errorf("%q", failures)
			}
			return err
		}))
		expiry, err := h.metric(ctx, "culvert_certificate_expiry_timestamp_seconds{")
		must(t, err)
		if len(expiry) < 5 {
			t.Errorf("%d expiry times: %q", len(expiry), expiry)
		}
		must(t, writePair(file("place.crt"), file("place.key"), other))
		serves(t, "place.example.com", other)
		awaitReport(ctx, t, h, false, file("place.crt"))
	})

	t.Run("D22,N7: a new token file is used without a restart, a bad one is not, and SIGHUP reads at once", func(t *testing.T) {
		second, third := "second-token-"+the.ada, "third-token-"+the.ada
		the.plant("the second token", second)
		the.plant("the third token", third)
		is := func(token string, want int) func(context.Context) error {
			return func(ctx context.Context) error {
				status, body, err := h.getAs(ctx, "/nosuch/version", token)
				if err == nil && status != want {
					err = fmt.Errorf("%d, want %d: %s", status, want, body)
				}
				return err
			}
		}
		must(t, is(second, 401)(ctx))
		must(t, rename(tokens, fmt.Appendf(nil, "%s,ada,1,\"dev\"\n%s,bob,2,\"dev\"\n", the.ada, second)))
		must(t, testbed.Poll(ctx, "bob's token", is(second, 404)))
		must(t, is(the.ada, 404)(ctx))
		must(t, rename(tokens, []byte("one column\n")))
		awaitReport(ctx, t, h, true, "token")
		must(t, is(second, 404)(ctx))
		must(t, rename(tokens, fmt.Appendf(nil, "%s,ada,1,\"dev\"\n%s,eve,3,\"dev\"\n", the.ada, third)))
		skip := len(logLines(t, h.process.Log(), ""))
		must(t, syscall.Kill(h.process.PID(), syscall.SIGHUP))
		t.Logf("SIGHUP: %s", awaitLine(ctx, t, h.process.Log(), skip, "SIGHUP"))
		must(t, testbed.Poll(ctx, "eve's token", is(third, 404)))
		must(t, is(second, 401)(ctx))
	})

	t.Run("D6: the port for users has TLS 1.3, or 1.2 with forward secrecy where it is asked for", func(t *testing.T) {
		for _, c := range []struct {
			name   string
			hub    *hub
			change func(*tls.Config)
			good   bool
		}{
			{"TLS 1.3", the.hub, func(*tls.Config) {}, true},
			{"TLS 1.2 by default", the.hub, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false},
			{"TLS 1.2 where it is set", h, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, true},
			{"TLS 1.2 with RSA key exchange", h, func(c *tls.Config) {
				c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
			}, false},
			{"TLS 1.1", h, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, false},
		} {
			cfg := &tls.Config{RootCAs: c.hub.roots()}
			c.change(cfg)
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", c.hub.addr())
			if err == nil {
				conn.Close()
			}
			if (err == nil) != c.good {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	})
}

// awaitReport waits until readyz?verbose reports a problem, or none, in a line
// with the part, and returns that line.
func awaitReport(ctx context.Context, t *testing.T, h *hub, problem bool, part string) string {
	t.Helper()
	var found string
	check(t, testbed.Poll(ctx, "the report on "+part, func(ctx context.Context) error {
		body, err := h.readyz(ctx)
		if err != nil {
			return err
		}
		bad := ""
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "[!]") && strings.Contains(line, part) {
				bad = strings.TrimSpace(line)
			}
		}
		if (bad != "") != problem {
			return fmt.Errorf("problem %q in %s", bad, body)
		}
		found = bad
		return nil
	}))
	return found
}

func TestServingAtStart(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	dir := t.TempDir()
	ca, err := newAuthority("the operator's CA")
	must(t, err)
	files := func(name string, template *x509.Certificate) (cert, key string) {
		t.Helper()
		pair, err := ca.sign(template)
		must(t, err)
		cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
		must(t, writePair(cert, key, pair))
		return cert, key
	}
	good, goodKey := files("good", serverTemplate("localhost"))
	_, otherKey := files("other", serverTemplate("localhost"))
	past := serverTemplate("localhost")
	past.NotAfter = time.Now().Add(-time.Minute)
	expired, expiredKey := files("expired", past)
	open := filepath.Join(dir, "open.key")
	text, err := os.ReadFile(goodKey)
	must(t, err)
	must(t, os.WriteFile(open, text, 0o600))
	must(t, os.Chmod(open, 0o644))
	garbage := filepath.Join(dir, "garbage.crt")
	// A chain with somebody else's CA in the place of the issuer.
	stranger, err := newAuthority("a stranger")
	must(t, err)
	broken := filepath.Join(dir, "broken.crt")
	leaf, err := os.ReadFile(good)
	must(t, err)
	must(t, os.WriteFile(broken, append(leaf, stranger.pem()...), 0o600))
	must(t, os.WriteFile(garbage, []byte("not PEM"), 0o600))

	t.Run("P5,V15: a serving certificate that cannot be good keeps the hub from starting, with the exact reason", func(t *testing.T) {
		for _, c := range []struct {
			name string
			args []string
			says []string
		}{
			{"key of another", []string{"--tls-cert", good, "--tls-key", otherKey}, []string{"good.crt", "other.key", "key"}},
			{"expired", []string{"--tls-cert", expired, "--tls-key", expiredKey}, []string{"expired.crt", "expired at"}},
			{"a broken chain", []string{"--tls-cert", broken, "--tls-key", goodKey}, []string{"broken.crt", "the operator's CA", "a stranger"}},
			{"another name", []string{"--tls-cert", good, "--tls-key", goodKey, "--tls-name", "hub.example.com"}, []string{"good.crt", "localhost", "hub.example.com"}},
			{"not PEM", []string{"--tls-cert", garbage, "--tls-key", goodKey}, []string{"garbage.crt"}},
			{"no key in a combined file", []string{"--tls-cert", good}, []string{"good.crt", "key"}},
			{"an open key", []string{"--tls-cert", good, "--tls-key", open, "--config", yamlFile(t, "certificates: {openKeys: refuse}\n")}, []string{"open.key", "0644", "chmod"}},
		} {
			started, cancel := context.WithTimeout(ctx, time.Minute)
			_, err := run(started, "culvert-hub", append([]string{"--listen", "127.0.0.1:0", "--state", filepath.Join(t.TempDir(), "s"), "--token-file", the.tokens}, c.args...)...)
			cancel()
			if err == nil || started.Err() != nil && errors.Is(started.Err(), context.DeadlineExceeded) {
				t.Errorf("%s: the hub started: %v", c.name, err)
				continue
			}
			t.Logf("%s: %v", c.name, err)
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: does not say %q", c.name, part)
				}
			}
		}
	})

	t.Run("D5,P5,V14: one PEM file with key and certificate in any order is accepted, and an encrypted key with its passphrase from a file", func(t *testing.T) {
		pair, err := ca.sign(serverTemplate("localhost", testbed.HubAddress.String()))
		must(t, err)
		certPEM, keyPEM, err := pemOf(pair)
		must(t, err)
		combined := filepath.Join(dir, "combined.pem")
		must(t, os.WriteFile(combined, append(keyPEM, certPEM...), 0o600))
		passphrase := rand.Text()
		the.plant("a passphrase", passphrase)
		phraseFile, encrypted := filepath.Join(dir, "passphrase"), filepath.Join(dir, "encrypted.key")
		must(t, os.WriteFile(phraseFile, []byte(passphrase+"\n"), 0o600))
		out, err := exec.CommandContext(ctx, "openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", combined, "-out", encrypted, "-passout", "file:"+phraseFile).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl: %v: %s", err, out)
		}
		must(t, os.WriteFile(good, certPEM, 0o600))
		for name, cfg := range map[string]hubConfig{
			"combined":  {args: []string{"--tls-cert", combined}},
			"encrypted": {args: []string{"--tls-cert", good, "--tls-key", encrypted}, yaml: "tls: {passphraseFile: " + phraseFile + "}\n"},
		} {
			cfg.roots = ca.pool()
			h := startHub(ctx, t, name, cfg)
			check(t, h.serves(ctx, "localhost", pair.Leaf))
		}
	})

	t.Run("O9: the certificate that the hub issues itself carries the names of its Service, and lives as long as is set", func(t *testing.T) {
		h := startHub(ctx, t, "service", hubConfig{yaml: "tls: {service: culvert/hub}\ncertificates: {servingLifetime: 48h}\n"})
		chain, err := h.presented(ctx, "localhost")
		must(t, err)
		for _, name := range []string{"hub.culvert.svc", "hub.culvert.svc.cluster.local", "localhost", testbed.HubAddress.String()} {
			check(t, verifies(h.roots(), chain, name))
		}
		if left := time.Until(chain[0].NotAfter); left < 47*time.Hour || left > 48*time.Hour {
			t.Errorf("it ends in %v, want 48h", left)
		}
	})

	t.Run("V15: a CA's key that others can read is refused, with the command that mends it", func(t *testing.T) {
		state := filepath.Join(t.TempDir(), "s")
		_, err := run(ctx, "culvert", "pki", "init", "--state", state)
		must(t, err)
		key := filepath.Join(state, "pki", "agents-ca.key")
		must(t, os.Chmod(key, 0o640))
		_, err = run(ctx, "culvert-hub", "--listen", "127.0.0.1:0", "--state", state, "--token-file", the.tokens)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+key) {
			t.Errorf("%v", err)
		}
	})
}

func yamlFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hub.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}
