package pki

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/youmark/pkcs8"
)

// passphrase is that of the keys in testdata, which OpenSSL 3 wrote.
const passphrase = "correct"

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEncryptedKeysOfOpenSSL(t *testing.T) {
	for _, name := range []string{"encrypted-pbkdf2.pem", "encrypted-scrypt.pem"} {
		if _, err := parseKey(testdata(t, name), []byte(passphrase)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := parseKey(testdata(t, name), []byte("wrong"))
		wantError(t, name, err, "encrypted private key: ", "check the passphrase")
		_, err = parseKey(testdata(t, name), nil)
		wantError(t, name, err, "the private key is encrypted: name a file or an environment variable")
	}
	_, err := parseKey(testdata(t, "encrypted-dek-info.pem"), []byte(passphrase))
	wantError(t, "the old way", err, "convert it with openssl pkcs8 -topk8")
}

func TestEncryptedKeysHaveBounds(t *testing.T) {
	block, _ := pem.Decode(testdata(t, "encrypted-pbkdf2.pem"))
	der := string(block.Bytes)
	iterations := "\x02\x02\x08\x00" // 2048
	if strings.Count(der, iterations) != 1 {
		t.Fatal("the iterations are elsewhere")
	}
	_, err := decryptKey([]byte(strings.Replace(der, iterations, "\x02\x02\x80\x00", 1)), []byte(passphrase))
	wantError(t, "negative", err, "-32768 iterations of PBKDF2, want 1 to")
	for name, data := range map[string]string{
		"text":           "secret",
		"data behind":    der + "x",
		"not encrypted":  "\x30\x08\x30\x04\x06\x02\x2a\x03\x04\x00",
		"cut ciphertext": der[:len(der)-3],
	} {
		if _, err := decryptKey([]byte(data), []byte(passphrase)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func encryptedKey(t *testing.T, key any, secret string) []byte {
	t.Helper()
	der, err := pkcs8.MarshalPrivateKey(key, []byte(secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	return block(blockEncrypted, der)
}

func TestPassphrases(t *testing.T) {
	dir := folder(t.TempDir())
	phrase := filepath.Join(string(dir), "passphrase")
	put := func(t *testing.T, secret string) {
		t.Helper()
		a := newAuthority(t, RoleAgents)
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		certPEM, err := a.IssueAgent(key.Public(), trustDomain, secret, 0)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir.key(), encryptedKey(t, key, secret), 0o600)
		write(t, phrase, []byte(secret+"\r\nnot read"), 0o600)
		write(t, dir.cert(), certPEM, 0o644)
	}
	t.Run("V14: a private key is decrypted with a passphrase from a file, which is followed with it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			put(t, "one")
			log := new(logLines)
			pair, err := LoadKeyPair(dir.cert(), dir.key(), WithPassphraseFile(phrase), log.option())
			if err != nil {
				t.Fatal(err)
			}
			wantCluster(t, "from a file", pair, "one")
			put(t, "two")
			time.Sleep(checkInterval)
			wantCluster(t, "all three changed", pair, "two")
			write(t, phrase, []byte("wrong"), 0o600)
			time.Sleep(checkInterval)
			wantCluster(t, "wrong passphrase", pair, "two")
			if got := pair.Status().Err; !strings.Contains(got, "check the passphrase") {
				t.Errorf("status: %q", got)
			}
			for _, secret := range []string{"wrong", "PRIVATE"} {
				log.want(t, 0, secret)
			}
		})
	})
	t.Run("V14: a private key is decrypted with a passphrase from the environment", func(t *testing.T) {
		put(t, "three")
		t.Setenv("CULVERT_TEST_PASSPHRASE", "three")
		pair, err := LoadKeyPair(dir.cert(), dir.key(), WithPassphraseEnv("CULVERT_TEST_PASSPHRASE"))
		if err != nil {
			t.Fatal(err)
		}
		wantCluster(t, "from the environment", pair, "three")
	})
	_, err := LoadKeyPair(dir.cert(), dir.key(), WithPassphraseEnv("CULVERT_TEST_NOT_SET"))
	wantError(t, "not set", err, `the environment variable "CULVERT_TEST_NOT_SET" is empty or not set`)
	_, err = LoadKeyPair(dir.cert(), dir.key(), WithPassphraseEnv("A"), WithPassphraseFile("b"))
	wantError(t, "both", err, "not both")
	write(t, phrase, []byte("\nsecond line"), 0o600)
	_, err = LoadKeyPair(dir.cert(), dir.key(), WithPassphraseFile(phrase))
	wantError(t, "empty", err, "passphrase: the first line, which is the passphrase, is empty")
	_, err = LoadKeyPair(dir.cert(), dir.key())
	wantError(t, "none", err, "tls.key: the private key is encrypted")
}

// Files are read before anybody looks at them, so that no content may do harm.
func FuzzPEM(f *testing.F) {
	f.Add(testdata(f, "encrypted-pbkdf2.pem"), []byte(nil))
	f.Add(testdata(f, "encrypted-dek-info.pem"), []byte("x"))
	f.Add([]byte("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSQo="), []byte(nil))
	f.Add([]byte("\x30\x03\x02\x01\x01"), []byte("x"))
	f.Add([]byte{}, []byte(nil))
	f.Fuzz(func(t *testing.T, data, secret []byte) {
		certs, err := parseCertificates(data)
		if (err == nil) != (len(certs) > 0) {
			t.Errorf("%d certificates and error %v", len(certs), err)
		}
		if key, err := parseKey(data, nil); (err == nil) != (key != nil) {
			t.Errorf("key %v and error %v", key, err)
		}
		// What a file may make the hub compute is bounded, but not to what a fuzzer
		// does a thousand times a second.
		if checkDerivation(data) != nil && len(secret) > 0 {
			if _, err := decryptKey(data, secret); err == nil {
				t.Error("decrypted what was refused")
			}
		}
	})
}
