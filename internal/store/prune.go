package store

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// TokenRetention is how long a token is kept after it expired, so that who
	// tries it is told what became of it.
	TokenRetention = 7 * 24 * time.Hour
	// PendingRetention is how long a request to join waits to be accepted.
	PendingRetention = 7 * 24 * time.Hour
)

// Pruned counts what [Store.Prune] removed.
type Pruned struct {
	// Tokens, Certificates and Pending are numbers of records.
	Tokens, Certificates, Pending int
}

// Prune removes what no answer depends on any more at a time: tokens
// [TokenRetention] after they expired, certificates that have expired, and
// requests to join after [PendingRetention]. Revocations stay. A record that
// cannot be read, because a newer version wrote it, is an error and stays, and so
// does everything else then.
func (s *Store) Prune(at time.Time) (Pruned, error) {
	var pruned Pruned
	err := s.db.Update(func(tx *bbolt.Tx) error {
		var err error
		pruned.Tokens, err = pruneBucket(tx, bucketTokens, "token", tokenFormat, func(r tokenRecord) bool {
			return at.After(r.Expires.Add(TokenRetention))
		})
		if err != nil {
			return err
		}
		pruned.Certificates, err = pruneBucket(tx, bucketCertificates, "certificate", certificateFormat, func(r certificateRecord) bool {
			return at.After(r.NotAfter)
		})
		if err != nil {
			return err
		}
		pruned.Pending, err = pruneBucket(tx, bucketPending, "pending cluster", pendingFormat, func(r pendingRecord) bool {
			return at.After(r.Asked.Add(PendingRetention))
		})
		return err
	})
	if err != nil {
		return Pruned{}, fmt.Errorf("prune hub state: %w", err)
	}
	return pruned, nil
}

func pruneBucket[T any](tx *bbolt.Tx, name, kind string, known int, over func(T) bool) (int, error) {
	bucket := tx.Bucket([]byte(name))
	var gone [][]byte
	err := bucket.ForEach(func(key, value []byte) error {
		record, err := decode[T](kind, string(key), value, known)
		if err == nil && over(record) {
			gone = append(gone, slices.Clone(key))
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(gone), removeAll(bucket, gone)
}
