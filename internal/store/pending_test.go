package store

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func TestPending(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	ask := func(reason string, want Pending, at time.Time) {
		t.Helper()
		asked := want
		asked.Asked, asked.Accepted, asked.AcceptedBy = time.Time{}, time.Time{}, ""
		if got, err := s.Ask(asked, at); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v: %v", reason, got, want, err)
		}
		if got, found, err := s.Pending(want.Cluster); err != nil || !found || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v is kept, want %+v: %v", reason, got, want, err)
		}
	}
	one := Pending{Cluster: "edge-1", Key: "key-1", CSR: []byte{1}, Token: "t", Remote: "192.0.2.1:4", Asked: day(1)}
	ask("first", one, day(1))
	ask("again", one, day(2))
	if got, err := s.Ask(Pending{Cluster: "edge-1", Key: "key-1", CSR: []byte{9}, Token: "t"}, day(2)); err != nil || !reflect.DeepEqual(got, one) {
		t.Errorf("with another signature: %+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	ask("after a restart", one, day(3))

	_, err := s.Accept("edge-1", "key-2", "admin", day(4))
	wantError(t, "another key", err, `accept cluster "edge-1": no such cluster waits to be accepted with key key-2: the one that waits has key-1`)
	_, err = s.Accept("edge-2", "", "admin", day(4))
	if !errors.Is(err, ErrNotPending) {
		t.Errorf("%v is not ErrNotPending", err)
	}
	one.Accepted, one.AcceptedBy = day(4), "admin"
	for _, at := range []time.Time{day(4), day(5)} {
		if got, err := s.Accept("edge-1", "key-1", "admin", at); err != nil || !reflect.DeepEqual(got, one) {
			t.Errorf("accepted: %+v, %v", got, err)
		}
	}
	ask("it learns that it was accepted", one, day(5))

	two := Pending{Cluster: "edge-1", Key: "key-2", CSR: []byte{2}, Asked: day(6)}
	ask("another key has to be accepted anew", two, day(6))
	if err := s.RemovePending("edge-1", "key-1"); err != nil {
		t.Fatal(err)
	}
	ask("another's request was removed", two, day(7))
	all, err := s.AllPending()
	if err != nil || !reflect.DeepEqual(all, []Pending{two}) {
		t.Errorf("%+v, %v", all, err)
	}
	for range 2 {
		if err := s.RemovePending("edge-1", "key-2"); err != nil {
			t.Fatal(err)
		}
	}
	if _, found, err := s.Pending("edge-1"); found || err != nil {
		t.Errorf("removed: %v, %v", found, err)
	}

	ask("a new one", Pending{Cluster: "edge-3", Key: "k", Asked: day(8)}, day(8))
	if pruned, err := s.Prune(day(8).Add(PendingRetention)); err != nil || pruned != (Pruned{}) {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	if pruned, err := s.Prune(day(8).Add(PendingRetention + 1)); err != nil || pruned != (Pruned{Pending: 1}) {
		t.Errorf("pruned %+v, %v", pruned, err)
	}
	_, err = s.Ask(Pending{Cluster: "edge-1"}, day(1))
	wantError(t, "no key", err, "ask to join: key: empty")
	_, err = s.Ask(Pending{Cluster: "", Key: "k"}, day(1))
	wantError(t, "no cluster", err, "cluster: empty")
	_, err = s.Ask(Pending{Cluster: "a", Key: "k", CSR: make([]byte, maxRecord)}, day(1))
	wantError(t, "too long", err, "at most 65536 can be kept")
}

// Who accepts clusters by hand may do so after the token has expired.
func TestWaitingOutlivesTheToken(t *testing.T) {
	s := newStore(t)
	token, secret := createToken(t, s, Token{Cluster: "edge-1", Approval: true}, day(1))
	mustUse(t, s, use(token, secret, "key", day(1)))
	expired := &TokenExpiredError{}
	if _, err := s.UseToken(use(token, secret, "key", day(2))); !errors.As(err, &expired) {
		t.Errorf("expired, and it does not wait: %v", err)
	}
	if _, err := s.Ask(Pending{Cluster: "edge-1", Key: "key", Token: token.ID}, day(1)); err != nil {
		t.Fatal(err)
	}
	mustUse(t, s, use(token, secret, "key", day(2)))
	used := &TokenUsedError{}
	if _, err := s.UseToken(use(token, secret, "other", day(2))); !errors.As(err, &used) {
		t.Errorf("another key: %v", err)
	}
	if _, err := s.Accept("edge-1", "key", "admin", day(3)); err != nil {
		t.Fatal(err)
	}
	mustUse(t, s, use(token, secret, "key", day(4)))
	if err := s.RemovePending("edge-1", "key"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UseToken(use(token, secret, "key", day(4))); !errors.As(err, &expired) {
		t.Errorf("it has its certificate: %v", err)
	}
}

func TestPendingHasABound(t *testing.T) {
	s := newStore(t)
	fill(t, s, bucketPending, MaxPending, pendingRecord{Format: 1, Key: "k", Asked: day(1)})
	_, err := s.Ask(Pending{Cluster: "edge-1", Key: "k"}, day(1))
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("%v is not ErrTooMany", err)
	}
	if _, err := s.Ask(Pending{Cluster: "fill-1", Key: "other"}, day(1)); err != nil {
		t.Errorf("one that is there already: %v", err)
	}
}

func TestNewerRecordsOfEveryKindAreRefused(t *testing.T) {
	s := newStore(t)
	const newer = `{"format":2,"hash":1,"key":2,"at":3,"event":"x"}`
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(
			tx.Bucket([]byte(bucketTokens)).Put([]byte("t"), []byte(newer)),
			tx.Bucket([]byte(bucketCertificates)).Put([]byte("edge-1/a"), []byte(newer)),
			tx.Bucket([]byte(bucketRevocations)).Put([]byte("edge-2"), []byte(newer)),
			tx.Bucket([]byte(bucketPending)).Put([]byte("edge-3"), []byte(newer)),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	const says = "written by a newer Culvert: format 2, this version knows up to 1"
	for name, call := range map[string]func() error{
		"tokens":        func() error { _, err := s.Tokens(); return err },
		"token":         func() error { _, _, err := s.Token("t"); return err },
		"use":           func() error { _, err := s.UseToken(Use{ID: "t", Key: "k", At: day(1)}); return err },
		"revoke token":  func() error { _, err := s.RevokeToken("t", "", day(1)); return err },
		"certificates":  func() error { _, err := s.Certificates("edge-1"); return err },
		"record":        func() error { return issue(s, "edge-1", cert(1, day(1)), "", "") },
		"revocation":    func() error { _, _, err := s.Revocation("edge-2"); return err },
		"revocations":   func() error { _, err := s.Revocations(); return err },
		"check":         func() error { return s.CheckCertificate("edge-2", cert(1, day(1))) },
		"record of it":  func() error { return issue(s, "edge-2", cert(1, day(1)), "", "") },
		"revoke again":  func() error { _, err := s.RevokeCluster("edge-2", "", "", day(1)); return err },
		"pending":       func() error { _, _, err := s.Pending("edge-3"); return err },
		"all pending":   func() error { _, err := s.AllPending(); return err },
		"ask":           func() error { _, err := s.Ask(Pending{Cluster: "edge-3", Key: "k"}, day(1)); return err },
		"accept":        func() error { _, err := s.Accept("edge-3", "", "", day(1)); return err },
		"remove":        func() error { return s.RemovePending("edge-3", "") },
		"prune":         func() error { _, err := s.Prune(day(1)); return err },
		"revoke others": func() error { _, err := s.RevokeCluster("edge-9", "", "", day(1)); return err },
	} {
		wantError(t, name, call(), says)
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		for bucket, key := range map[string]string{bucketTokens: "t", bucketCertificates: "edge-1/a", bucketRevocations: "edge-2", bucketPending: "edge-3"} {
			if got := tx.Bucket([]byte(bucket)).Get([]byte(key)); string(got) != newer {
				t.Errorf("the newer record of %s was changed to %s", bucket, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOlderLayoutIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	saw(t, s, "edge-1", "v1", nil, day(1))
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, bucket := range []string{bucketTokens, bucketCertificates, bucketRevocations, bucketPending} {
			if err := tx.DeleteBucket([]byte(bucket)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyLayout), []byte("1"))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	wantClusters(t, "after it", s, Cluster{Name: "edge-1", Version: "v1", FirstSeen: day(1), LastSeen: day(1)})
	createToken(t, s, Token{Cluster: "edge-1"}, day(1))
	err = s.db.View(func(tx *bbolt.Tx) error {
		if got := tx.Bucket([]byte(bucketMeta)).Get([]byte(keyLayout)); string(got) != "2" {
			t.Errorf("layout %s: an older version would pass over revocations", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEveryCallOfAClosedStoreFails(t *testing.T) {
	s := newStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, tokenErr := s.Tokens()
	_, useErr := s.UseToken(Use{ID: "a", Key: "k", At: day(1)})
	_, revokeErr := s.RevokeCluster("a", "", "", day(1))
	_, askErr := s.Ask(Pending{Cluster: "a", Key: "k"}, day(1))
	_, pruneErr := s.Prune(day(1))
	// A revocation that cannot be read must not let anybody through.
	checkErr := s.CheckCertificate("a", cert(1, day(1)))
	for _, err := range []error{tokenErr, useErr, revokeErr, askErr, pruneErr, checkErr} {
		if err == nil || !strings.HasSuffix(err.Error(), "database not open") {
			t.Errorf("%v", err)
		}
	}
}
