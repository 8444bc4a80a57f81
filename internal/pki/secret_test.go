package pki

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// volume is a folder as the kubelet mounts a Secret: tls.crt -> ..data/tls.crt,
// ..data -> ..<version>.
type volume struct {
	root    string
	version int
}

func mountedSecret(t *testing.T) *volume {
	t.Helper()
	v := &volume{root: t.TempDir()}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(v.root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// swap makes the next version with put, points to it in one step and removes the
// one before.
func (v *volume) swap(t *testing.T, put func(dir string)) {
	t.Helper()
	v.version++
	name := fmt.Sprintf("..v%d", v.version)
	put(filepath.Join(v.root, name))
	if err := os.Symlink(name, filepath.Join(v.root, "..new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(v.root, "..new"), filepath.Join(v.root, "..data")); err != nil {
		t.Fatal(err)
	}
	if v.version > 1 {
		if err := os.RemoveAll(filepath.Join(v.root, fmt.Sprintf("..v%d", v.version-1))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServingFromAMountedSecret(t *testing.T) {
	t.Run("O10: the certificate of a mounted Secret is followed, with its CA, and a bad one keeps the old one working", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v, log := mountedSecret(t), new(logLines)
			put := func(name string) issuer {
				root := newIssuer(t, name, nil, nil)
				certPEM, keyPEM := root.serve(t, nil, name+".example.com")
				v.swap(t, func(dir string) {
					if err := WriteKeyPair(dir, certPEM, keyPEM, root.pem()); err != nil {
						t.Fatal(err)
					}
				})
				return root
			}
			first := put("one")
			pair, err := LoadServing(Source{Dir: v.root}, log.option())
			if err != nil {
				t.Fatal(err)
			}
			want := func(reason string, root issuer) {
				t.Helper()
				time.Sleep(checkInterval)
				name := root.cert.Subject.CommonName + ".example.com"
				server := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: pair.GetCertificate}
				client := &tls.Config{ServerName: name, InsecureSkipVerify: true, VerifyConnection: VerifyServer(pool{poolOf(pair.CA())}, name)}
				atServer, atClient := handshake(t, server, client)
				wantThrough(t, reason, atServer, atClient)
			}
			want("at first", first)
			second := put("two")
			want("swapped", second)
			v.swap(t, func(dir string) {
				certPEM, keyPEM := second.serve(t, nil, "two.example.com")
				if err := WriteKeyPair(dir, certPEM, keyPEM, first.pem()); err != nil { // of another CA
					t.Fatal(err)
				}
			})
			want("bad", second)
			log.want(t, 1, "neither in the file nor the given CA")
			want("good again", put("three"))
		})
	})
}
