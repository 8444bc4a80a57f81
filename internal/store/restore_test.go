package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRestoreCluster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s := open(t, path)
	before, after := cert(1, day(9)), cert(2, day(11))
	if err := s.CheckForeignCertificate("edge-1", before); err != nil {
		t.Errorf("before the revocation: %v", err)
	}
	if _, err := s.RestoreCluster("edge-1", day(10)); !errors.Is(err, ErrNotRevoked) {
		t.Errorf("one that was never revoked: %v", err)
	}
	if _, err := s.RestoreCluster("Edge.1", day(10)); err == nil || errors.Is(err, ErrNotRevoked) {
		t.Errorf("an illegal name: %v", err)
	}
	if _, err := s.RevokeCluster("edge-1", "admin", "laptop stolen", day(10)); err != nil {
		t.Fatal(err)
	}
	wantRevoked(t, "an old one", s.CheckForeignCertificate("edge-1", before))
	wantRevoked(t, "one from after the revocation", s.CheckForeignCertificate("edge-1", after))
	wantRevoked(t, "none", s.CheckForeignCertificate("edge-1", nil))
	if err := s.CheckForeignCertificate("edge-2", before); err != nil {
		t.Errorf("another cluster: %v", err)
	}
	if err := s.CheckForeignCertificate("edge-1", after); !strings.Contains(err.Error(), "culvert clusters restore edge-1") {
		t.Errorf("%v", err)
	}
	restored, err := s.RestoreCluster("edge-1", day(12))
	if err != nil || !restored.Restored.Equal(day(12)) || !restored.At.Equal(day(10)) {
		t.Fatalf("%+v, %v", restored, err)
	}
	if _, err := s.RestoreCluster("edge-1", day(13)); !errors.Is(err, ErrNotRevoked) {
		t.Errorf("twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path) // it is on the disk
	if err := s.CheckForeignCertificate("edge-1", after); err != nil {
		t.Errorf("restored: %v", err)
	}
	wantRevoked(t, "an old one", s.CheckForeignCertificate("edge-1", before))
	wantRevoked(t, "one of the second of the revocation", s.CheckForeignCertificate("edge-1", cert(3, day(10))))
	// Certificates that the hub issued are not lifted by it.
	issued := cert(4, day(9))
	mustIssue(t, s, "edge-3", issued, "", "")
	if _, err := s.RevokeCluster("edge-3", "admin", "", day(10)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RestoreCluster("edge-3", day(12)); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckCertificate("edge-3", issued); err == nil {
		t.Error("a restored cluster's issued certificate is good again")
	}
	// Revoked again, it is out again.
	if _, err := s.RevokeCluster("edge-1", "admin", "again", day(14)); err != nil {
		t.Fatal(err)
	}
	wantRevoked(t, "again", s.CheckForeignCertificate("edge-1", cert(5, day(15).Add(time.Hour))))
}
