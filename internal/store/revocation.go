package store

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// revocationFormat is the newest format of a revocation's record.
const revocationFormat = 1

// Revocation says that what a cluster had before a time is not trusted any more.
// It is a copy.
type Revocation struct {
	// Cluster is which one.
	Cluster string
	// At is when, By by whom and Reason why, for people.
	At         time.Time
	By, Reason string
	// Restored is when the cluster got a certificate with a new join token after
	// that, or was restored by name; zero while it is kept out. Certificates from
	// before stay refused.
	Restored time.Time
}

// revocationRecord is a Revocation on the disk; its key is the cluster.
type revocationRecord struct {
	Format   int       `json:"format"`
	Event    uint64    `json:"event"`
	At       time.Time `json:"at"`
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Restored time.Time `json:"restored,omitzero"`
}

func (r revocationRecord) revocation(cluster string) Revocation {
	return Revocation{Cluster: cluster, At: r.At, By: r.By, Reason: r.Reason, Restored: r.Restored}
}

func (r revocationRecord) refusal(cluster string) *RevokedError {
	return &RevokedError{Cluster: cluster, At: r.At, Reason: r.Reason}
}

// RevokedError says that a cluster, or what it shows, was revoked.
type RevokedError struct {
	// Cluster is which one, At when and Reason why.
	Cluster string
	At      time.Time
	Reason  string
	// Foreign is that it shows a certificate which the hub does not renew, and
	// Restored that the cluster was restored since.
	Foreign, Restored bool
}

// Error names the cluster, when and why it was revoked, and what brings it back.
func (e *RevokedError) Error() string {
	why := ""
	if e.Reason != "" {
		why = fmt.Sprintf(" (%s)", e.Reason)
	}
	back := "to bring it back, make a join token with culvert token create --cluster " + e.Cluster
	switch {
	case e.Foreign && e.Restored:
		back = "it was restored, but this certificate is from before: let whoever issued it issue a new one"
	case e.Foreign:
		back = "to bring it back, run culvert clusters restore " + e.Cluster + " at the hub, and let whoever issues its certificates issue a new one"
	}
	return fmt.Sprintf("cluster %s was revoked at %s%s: %s", e.Cluster, e.At.Format(time.RFC3339), why, back)
}

// ErrNotRevoked is what RestoreCluster says of a cluster that is not kept out.
var ErrNotRevoked = errors.New("the cluster is not revoked")

// RestoreCluster lets a revoked cluster come back with certificates that the hub does
// not issue itself and that are from after the revocation; those from before stay
// refused: see [Store.CheckForeignCertificate]. For agents that have joined it lifts
// nothing, they need a new join token. It is [ErrNotRevoked] where the cluster is not
// revoked or was restored before.
func (s *Store) RestoreCluster(cluster string, at time.Time) (Revocation, error) {
	revocation, err := s.restoreCluster(cluster, at)
	if err != nil {
		return Revocation{}, fmt.Errorf("restore cluster: %w", err)
	}
	return revocation, nil
}

func (s *Store) restoreCluster(cluster string, at time.Time) (Revocation, error) {
	if err := route.CheckCluster(cluster); err != nil {
		return Revocation{}, err
	}
	at, err := moment(at)
	if err != nil {
		return Revocation{}, err
	}
	var record revocationRecord
	err = s.db.Update(func(tx *bbolt.Tx) error {
		var found bool
		var err error
		if record, found, err = getRevocation(tx, cluster); err != nil {
			return err
		}
		if !found || !record.Restored.IsZero() {
			return ErrNotRevoked
		}
		record.Restored = at
		return put(tx.Bucket([]byte(bucketRevocations)), "revocation", cluster, record)
	})
	if err != nil {
		return Revocation{}, err
	}
	return record.revocation(cluster), nil
}

// CheckForeignCertificate is [Store.CheckCertificate] for authorities that issue new
// certificates of a cluster by themselves, whatever the hub has revoked: a revoked
// cluster is refused until it was restored, and certificates whose validity begins at
// or before the revocation are refused for good.
func (s *Store) CheckForeignCertificate(cluster string, cert *x509.Certificate) error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		revocation, revoked, err := getRevocation(tx, cluster)
		if err != nil || !revoked {
			return err
		}
		restored := !revocation.Restored.IsZero()
		if restored && cert != nil && cert.NotBefore.After(revocation.At) {
			return nil
		}
		refusal := revocation.refusal(cluster)
		refusal.Foreign, refusal.Restored = true, restored
		return refusal
	})
	if err != nil {
		return fmt.Errorf("check revocation: %w", err)
	}
	return nil
}

// RevokeCluster revokes everything that a cluster has: its certificates, its
// tokens that are not used yet and a request to be accepted. It is on the disk
// when it returns. The cluster need not be known: operators revoke what they read
// in a log. Revoking again moves the time, so that what came in between is
// refused as well.
func (s *Store) RevokeCluster(cluster, by, reason string, at time.Time) (Revocation, error) {
	revocation, err := s.revokeCluster(cluster, by, reason, at)
	if err != nil {
		return Revocation{}, fmt.Errorf("revoke cluster: %w", err)
	}
	return revocation, nil
}

func (s *Store) revokeCluster(cluster, by, reason string, at time.Time) (Revocation, error) {
	if err := errors.Join(route.CheckCluster(cluster), checkText("by", by), checkText("reason", reason)); err != nil {
		return Revocation{}, err
	}
	at, err := moment(at)
	if err != nil {
		return Revocation{}, err
	}
	record := revocationRecord{Format: revocationFormat, At: at, By: by, Reason: reason}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		last, found, err := getRevocation(tx, cluster)
		if err != nil {
			return err
		}
		// A clock that was set back must not lift a revocation.
		if found && last.At.After(record.At) {
			record.At = last.At
		}
		if record.Event, err = nextEvent(tx); err != nil {
			return err
		}
		if err := put(tx.Bucket([]byte(bucketRevocations)), "revocation", cluster, record); err != nil {
			return err
		}
		if err := revokeTokensOf(tx, cluster, by, at); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketPending)).Delete([]byte(cluster))
	})
	if err != nil {
		return Revocation{}, err
	}
	return record.revocation(cluster), nil
}

// revokeTokensOf takes back the unused tokens of a cluster: one of them may be
// with whom the revocation is for.
func revokeTokensOf(tx *bbolt.Tx, cluster, by string, at time.Time) error {
	bucket := tx.Bucket([]byte(bucketTokens))
	open := map[string]tokenRecord{}
	err := bucket.ForEach(func(id, value []byte) error {
		record, err := decode[tokenRecord]("token", string(id), value, tokenFormat)
		if err != nil {
			return err
		}
		if record.Cluster == cluster && record.Used.IsZero() && record.Revoked.IsZero() {
			record.Revoked, record.RevokedBy = at, by
			open[string(id)] = record
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, record := range open {
		if err := put(bucket, "token", id, record); err != nil {
			return err
		}
	}
	return nil
}

func getRevocation(tx *bbolt.Tx, cluster string) (revocationRecord, bool, error) {
	value := tx.Bucket([]byte(bucketRevocations)).Get([]byte(cluster))
	if value == nil {
		return revocationRecord{}, false, nil
	}
	record, err := decode[revocationRecord]("revocation", cluster, value, revocationFormat)
	return record, err == nil, err
}

// Revocation returns the revocation of a cluster; false when there was none.
func (s *Store) Revocation(cluster string) (Revocation, bool, error) {
	var record revocationRecord
	var found bool
	err := s.db.View(func(tx *bbolt.Tx) error {
		var err error
		record, found, err = getRevocation(tx, cluster)
		return err
	})
	if err != nil || !found {
		if err != nil {
			err = fmt.Errorf("read revocation: %w", err)
		}
		return Revocation{}, false, err
	}
	return record.revocation(cluster), true, nil
}

// Revocations returns every revocation, by cluster.
func (s *Store) Revocations() ([]Revocation, error) {
	var revocations []Revocation
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketRevocations)).ForEach(func(cluster, value []byte) error {
			record, err := decode[revocationRecord]("revocation", string(cluster), value, revocationFormat)
			revocations = append(revocations, record.revocation(string(cluster)))
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list revocations: %w", err)
	}
	return revocations, nil
}
