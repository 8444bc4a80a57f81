package store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func cert(serial int64, notBefore time.Time) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: notBefore, NotAfter: notBefore.Add(30 * 24 * time.Hour)}
}

// issue records a certificate.
func issue(s *Store, cluster string, c *x509.Certificate, token, previous string) error {
	return s.RecordCertificate(Certificate{
		Cluster: cluster, Serial: SerialOf(c.SerialNumber), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		Issued: c.NotBefore, Token: token, Previous: previous,
	})
}

func mustIssue(t *testing.T, s *Store, cluster string, c *x509.Certificate, token, previous string) {
	t.Helper()
	if err := issue(s, cluster, c, token, previous); err != nil {
		t.Fatal(err)
	}
}

func wantRevoked(t *testing.T, reason string, err error) {
	t.Helper()
	revoked := &RevokedError{}
	if !errors.As(err, &revoked) || revoked.Cluster != "edge-1" {
		t.Errorf("%s: %v, want that cluster edge-1 is revoked", reason, err)
	}
}

func TestRevocation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	at := day(10)
	before, operators := cert(0xab, day(9)), cert(2, day(10))
	mustIssue(t, s, "edge-1", before, "", "")
	for _, c := range []*x509.Certificate{before, operators} {
		if err := s.CheckCertificate("edge-1", c); err != nil {
			t.Errorf("before the revocation: %v", err)
		}
	}
	open1, openSecret := createToken(t, s, Token{Cluster: "edge-1"}, day(9).Add(23*time.Hour+59*time.Minute))
	other, otherSecret := createToken(t, s, Token{Cluster: "edge-2"}, day(10))
	if _, err := s.Ask(Pending{Cluster: "edge-1", Key: "k"}, at); err != nil {
		t.Fatal(err)
	}

	revocation, err := s.RevokeCluster("edge-1", "admin", "laptop stolen", at)
	want := Revocation{Cluster: "edge-1", At: at, By: "admin", Reason: "laptop stolen"}
	if err != nil || revocation != want {
		t.Errorf("%+v, %v", revocation, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path) // what follows is after a restart
	if got, found, err := s.Revocation("edge-1"); err != nil || !found || got != want {
		t.Errorf("%+v, %v, %v", got, found, err)
	}
	err = s.CheckCertificate("edge-1", before)
	wantRevoked(t, "issued before", err)
	wantError(t, "the text", err, "check revocation: cluster edge-1 was revoked at 2026-01-10T12:00:00Z (laptop stolen): to bring it back, make a join token with culvert token create --cluster edge-1")
	wantRevoked(t, "an operator's of the same second", s.CheckCertificate("edge-1", operators))
	wantRevoked(t, "an operator's, dated back", s.CheckCertificate("edge-1", cert(3, day(1))))
	if err := s.CheckCertificate("edge-1", cert(4, day(11))); err != nil {
		t.Errorf("an operator's from after it: %v", err)
	}
	if err := s.CheckCertificate("edge-2", cert(0xab, day(9))); err != nil {
		t.Errorf("another cluster: %v", err)
	}
	revokedToken := &TokenRevokedError{}
	if _, err := s.UseToken(use(open1, openSecret, "k", at)); !errors.As(err, &revokedToken) {
		t.Errorf("a token from before: %v", err)
	}
	mustUse(t, s, use(other, otherSecret, "k", at))
	if _, found, err := s.Pending("edge-1"); found || err != nil {
		t.Errorf("it still waits to be accepted: %v, %v", found, err)
	}

	wantRevoked(t, "renewal of one from before", issue(s, "edge-1", cert(5, day(11)), "", SerialOf(before.SerialNumber)))
	wantRevoked(t, "with nothing to show", issue(s, "edge-1", cert(5, day(11)), "", ""))
	wantRevoked(t, "with another cluster's token", issue(s, "edge-1", cert(5, day(11)), other.ID, ""))
	wantRevoked(t, "with an unknown token", issue(s, "edge-1", cert(5, day(11)), "nothing", ""))
	fresh, secret := createToken(t, s, Token{Cluster: "edge-1", Labels: map[string]string{"a": "b"}}, day(11))
	wantRevoked(t, "with a token that was not used", issue(s, "edge-1", cert(5, day(11)), fresh.ID, ""))
	mustUse(t, s, use(fresh, secret, "k", day(11)))
	after := cert(6, day(1)) // the clock was set back: the order counts
	mustIssue(t, s, "edge-1", after, fresh.ID, "")
	renewed := cert(7, day(12))
	mustIssue(t, s, "edge-1", renewed, "", "6")
	for _, c := range []*x509.Certificate{after, renewed} {
		if err := s.CheckCertificate("edge-1", c); err != nil {
			t.Errorf("after a new token: %v", err)
		}
	}
	wantRevoked(t, "one from before, after a new token", s.CheckCertificate("edge-1", before))
	revocations, err := s.Revocations()
	want.Restored = day(1)
	if err != nil || !reflect.DeepEqual(revocations, []Revocation{want}) {
		t.Errorf("%+v, %v", revocations, err)
	}
	cluster, found, err := s.Cluster("edge-1")
	if err != nil || !found || !cluster.Joined.Equal(day(1)) || cluster.TokenLabels["a"] != "b" || !cluster.FirstSeen.IsZero() {
		t.Errorf("%+v, %v, %v", cluster, found, err)
	}
	saw(t, s, "edge-1", "v1", nil, day(12))
	if cluster, _, err = s.Cluster("edge-1"); err != nil || cluster.TokenLabels["a"] != "b" || !cluster.FirstSeen.Equal(day(12)) {
		t.Errorf("seen after joining: %+v, %v", cluster, err)
	}

	// Again, with a clock that was set back.
	if got, err := s.RevokeCluster("edge-1", "", "", day(2)); err != nil || !got.At.Equal(at) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []*x509.Certificate{after, renewed} {
		wantRevoked(t, "revoked again", s.CheckCertificate("edge-1", c))
	}
	_, err = s.RevokeCluster("a b", "", "", day(2))
	wantError(t, "a name that is none", err, "revoke cluster: cluster: ")
	_, err = s.RevokeCluster("a", "", "", time.Time{})
	wantError(t, "no time", err, "time: not set")
}

// A certificate that is being made while its cluster is revoked is never good.
func TestRevocationWhileCertificatesAreMade(t *testing.T) {
	s := newStore(t)
	token, secret := createToken(t, s, Token{Cluster: "edge-1"}, day(1))
	mustUse(t, s, use(token, secret, "k", day(1)))
	mustIssue(t, s, "edge-1", cert(1, day(1)), token.ID, "")
	type result struct {
		serial int64
		err    error
	}
	const goroutines, each = 4, 10
	results := make(chan result)
	renew := func(n int64) {
		for i := range int64(each) {
			serial := 100*n + i
			results <- result{serial, issue(s, "edge-1", cert(serial, day(1)), "", "1")}
		}
	}
	for n := range int64(goroutines) {
		go renew(n + 1)
	}
	made := 0
	for n := range goroutines * each {
		if n == goroutines*each/2 {
			if _, err := s.RevokeCluster("edge-1", "", "", day(1)); err != nil {
				t.Error(err)
			}
		}
		r := <-results
		if r.err == nil {
			made++
			continue
		}
		wantRevoked(t, "a renewal after it", r.err)
	}
	if made == 0 || made == goroutines*each {
		t.Errorf("%d of %d were made: nothing is shown", made, goroutines*each)
	}
	certificates, err := s.Certificates("edge-1")
	if err != nil || len(certificates) != made+1 {
		t.Errorf("%d certificates, %v", len(certificates), err)
	}
	for _, c := range certificates {
		number, ok := new(big.Int).SetString(c.Serial, 16)
		if !ok {
			t.Fatal(c.Serial)
		}
		wantRevoked(t, c.Serial, s.CheckCertificate("edge-1", cert(number.Int64(), day(1))))
	}
}

func TestCertificates(t *testing.T) {
	s := newStore(t)
	mustIssue(t, s, "edge", cert(0xff, day(2)), "", "")
	mustIssue(t, s, "edge", cert(0x0a, day(3)), "", "ff")
	mustIssue(t, s, "edge-1", cert(0x01, day(3)), "", "")
	want := []Certificate{
		{Cluster: "edge", Serial: "ff", NotBefore: day(2), NotAfter: day(32), Issued: day(2)},
		{Cluster: "edge", Serial: "a", NotBefore: day(3), NotAfter: day(33), Issued: day(3), Previous: "ff"},
	}
	if got, err := s.Certificates("edge"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, err := s.Certificates("edg"); err != nil || got != nil {
		t.Errorf("of no cluster: %+v, %v", got, err)
	}
	wantError(t, "twice", issue(s, "edge", cert(0x0a, day(3)), "", ""), "record certificate: certificate edge/a: is there already")
	wantError(t, "serial", s.RecordCertificate(Certificate{Cluster: "edge", Serial: "A/", Issued: day(1)}), `serial "A/"`)
	wantError(t, "cluster", s.RecordCertificate(Certificate{Serial: "a", Issued: day(1)}), "cluster: empty")
	wantError(t, "time", s.RecordCertificate(Certificate{Cluster: "a", Serial: "a"}), "time: not set")

	// What has expired goes with the next one.
	mustIssue(t, s, "edge", cert(0x0b, day(32).Add(time.Second)), "", "a")
	if got, err := s.Certificates("edge"); err != nil || len(got) != 2 || got[0].Serial != "a" || got[1].Serial != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	pruned, err := s.Prune(day(100))
	if err != nil || pruned != (Pruned{Certificates: 3}) {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
}

func TestCertificatesHaveABound(t *testing.T) {
	s := newStore(t)
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for i := range MaxCertificates {
			err := put(tx.Bucket([]byte(bucketCertificates)), "certificate", fmt.Sprintf("edge-1/%x", 1000-i), certificateRecord{
				Format: 1, Event: uint64(i + 1), NotBefore: day(1), NotAfter: day(9), Issued: day(1),
			})
			if err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketMeta)).SetSequence(MaxCertificates)
	})
	if err != nil {
		t.Fatal(err)
	}
	mustIssue(t, s, "edge-1", cert(1, day(2)), "", "")
	certificates, err := s.Certificates("edge-1")
	if err != nil || len(certificates) != MaxCertificates || certificates[0].Serial != SerialOf(big.NewInt(999)) || certificates[MaxCertificates-1].Serial != "1" {
		t.Errorf("%d certificates, %v", len(certificates), err)
	}
	if _, err := s.RevokeCluster("edge-1", "", "", day(3)); err != nil {
		t.Fatal(err)
	}
	wantRevoked(t, "one that was forgotten", s.CheckCertificate("edge-1", cert(1000, day(1))))
}
