package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// pendingFormat is the newest format of a pending cluster's record.
const pendingFormat = 1

// MaxPending is how many clusters may wait to be accepted at a time.
const MaxPending = 1_000

// ErrNotPending says that no request of that cluster, or of that key, waits.
var ErrNotPending = errors.New("no such cluster waits to be accepted")

// Pending is a cluster's request to join that somebody has to accept. It is a
// copy.
type Pending struct {
	// Cluster is which one.
	Cluster string
	// Key is the fingerprint of the public key in CSR.
	Key string
	// CSR is the certificate request, DER.
	CSR []byte
	// Token is the id of the join token that was shown; empty without one.
	Token string
	// Remote describes the peer for people, such as its address.
	Remote string
	// Asked is when it asked first.
	Asked time.Time
	// Accepted and AcceptedBy are when and by whom it was accepted; zero before.
	Accepted   time.Time
	AcceptedBy string
}

// pendingRecord is a Pending on the disk; its key is the cluster.
type pendingRecord struct {
	Format     int       `json:"format"`
	Key        string    `json:"key"`
	CSR        []byte    `json:"csr"`
	Token      string    `json:"token,omitempty"`
	Remote     string    `json:"remote,omitempty"`
	Asked      time.Time `json:"asked"`
	Accepted   time.Time `json:"accepted,omitzero"`
	AcceptedBy string    `json:"acceptedBy,omitempty"`
}

func (r pendingRecord) pending(cluster string) Pending {
	return Pending{
		Cluster: cluster, Key: r.Key, CSR: r.CSR, Token: r.Token, Remote: r.Remote,
		Asked: r.Asked, Accepted: r.Accepted, AcceptedBy: r.AcceptedBy,
	}
}

// Ask records a request to join, and returns what is known of it: who asks again
// with the same key and token learns here whether it was accepted. A request of
// another key for the same cluster takes the place of the one before, and has to
// be accepted anew. Of want, Cluster, Key, CSR, Token and Remote count. With
// [MaxPending] clusters the error is [ErrTooMany].
func (s *Store) Ask(want Pending, at time.Time) (Pending, error) {
	pending, err := s.ask(want, at)
	if err != nil {
		return Pending{}, fmt.Errorf("ask to join: %w", err)
	}
	return pending, nil
}

func (s *Store) ask(want Pending, at time.Time) (Pending, error) {
	if err := errors.Join(route.CheckCluster(want.Cluster), checkText("remote", want.Remote)); err != nil {
		return Pending{}, err
	}
	if want.Key == "" {
		return Pending{}, errors.New("key: empty, want the fingerprint of a public key")
	}
	at, err := moment(at)
	if err != nil {
		return Pending{}, err
	}
	// Who only asks again costs no write.
	if last, found, err := s.Pending(want.Cluster); err != nil || found && same(last, want) {
		return last, err
	}
	record := pendingRecord{
		Format: pendingFormat, Key: want.Key, CSR: want.CSR, Token: want.Token, Remote: want.Remote, Asked: at,
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketPending))
		last, found, err := getPending(tx, want.Cluster)
		switch {
		case err != nil:
			return err
		case found && same(last.pending(want.Cluster), want):
			record = last // another call was first
			return nil
		case !found && count(bucket, MaxPending) >= MaxPending:
			return fmt.Errorf("%w: %d clusters wait to be accepted, which is the most", ErrTooMany, MaxPending)
		}
		return put(bucket, "pending cluster", want.Cluster, record)
	})
	if err != nil {
		return Pending{}, err
	}
	return record.pending(want.Cluster), nil
}

// same tells whether two requests are one that is repeated. An agent that is
// started again signs a new certificate request with the key it keeps.
func same(a, b Pending) bool { return a.Key == b.Key && a.Token == b.Token }

// Accept lets a cluster that waits have its certificate when it asks again. key
// is the fingerprint that was looked at, so that nobody else is accepted in its
// place; empty accepts whoever asks. The error is [ErrNotPending] when there is
// no such request. Accepting again changes nothing.
func (s *Store) Accept(cluster, key, by string, at time.Time) (Pending, error) {
	pending, err := s.accept(cluster, key, by, at)
	if err != nil {
		return Pending{}, fmt.Errorf("accept cluster %q: %w", cluster, err)
	}
	return pending, nil
}

func (s *Store) accept(cluster, key, by string, at time.Time) (Pending, error) {
	at, err := moment(at)
	if err != nil {
		return Pending{}, err
	}
	if err := checkText("by", by); err != nil {
		return Pending{}, err
	}
	var record pendingRecord
	err = s.db.Update(func(tx *bbolt.Tx) error {
		var found bool
		if record, found, err = getPending(tx, cluster); err != nil {
			return err
		}
		switch {
		case !found:
			return ErrNotPending
		case key != "" && key != record.Key:
			return fmt.Errorf("%w with key %s: the one that waits has %s", ErrNotPending, key, record.Key)
		case !record.Accepted.IsZero():
			return nil
		}
		record.Accepted, record.AcceptedBy = at, by
		return put(tx.Bucket([]byte(bucketPending)), "pending cluster", cluster, record)
	})
	if err != nil {
		return Pending{}, err
	}
	return record.pending(cluster), nil
}

// RemovePending forgets the request of a cluster, because it got its certificate
// or is turned down. It does nothing when key is not empty and another key asks
// by now, or nobody does.
func (s *Store) RemovePending(cluster, key string) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		record, found, err := getPending(tx, cluster)
		if err != nil || !found || key != "" && key != record.Key {
			return err
		}
		return tx.Bucket([]byte(bucketPending)).Delete([]byte(cluster))
	})
	if err != nil {
		return fmt.Errorf("remove pending cluster: %w", err)
	}
	return nil
}

func getPending(tx *bbolt.Tx, cluster string) (pendingRecord, bool, error) {
	value := tx.Bucket([]byte(bucketPending)).Get([]byte(cluster))
	if value == nil {
		return pendingRecord{}, false, nil
	}
	record, err := decode[pendingRecord]("pending cluster", cluster, value, pendingFormat)
	return record, err == nil, err
}

// Pending returns the request of a cluster; false when it has none.
func (s *Store) Pending(cluster string) (pending Pending, found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		var record pendingRecord
		var err error
		record, found, err = getPending(tx, cluster)
		if found {
			pending = record.pending(cluster)
		}
		return err
	})
	if err != nil {
		return Pending{}, false, fmt.Errorf("read pending cluster: %w", err)
	}
	return pending, found, nil
}

// AllPending returns every cluster that waits or was accepted and has not asked
// since, by name.
func (s *Store) AllPending() ([]Pending, error) {
	var all []Pending
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketPending)).ForEach(func(cluster, value []byte) error {
			record, err := decode[pendingRecord]("pending cluster", string(cluster), value, pendingFormat)
			all = append(all, record.pending(string(cluster)))
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list pending clusters: %w", err)
	}
	return all, nil
}
