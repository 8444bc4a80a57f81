package store

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// ErrTokenUnknown says that there is no token of that id, or that the secret is
// not the token's. Which of the two is not told: who guesses learns nothing.
var ErrTokenUnknown = errors.New("no such join token, or one that was cut off or changed: make a new one with culvert token create")

// TokenUsedError says that a token was used before.
type TokenUsedError struct {
	// ID and Cluster are the token's.
	ID, Cluster string
	// At and By are when and by whom it was used.
	At time.Time
	By string
}

// Error says when and by whom the token was used, and what to do.
func (e *TokenUsedError) Error() string {
	return fmt.Sprintf("join token %s was used at %s by %s and is good for one use: make a new one with culvert token create --cluster %s",
		e.ID, e.At.Format(time.RFC3339), e.By, e.Cluster)
}

// TokenExpiredError says that a token is too old.
type TokenExpiredError struct {
	// ID and Cluster are the token's.
	ID, Cluster string
	// At is when it expired.
	At time.Time
}

// Error says when the token expired, and what to do.
func (e *TokenExpiredError) Error() string {
	return fmt.Sprintf("join token %s expired at %s: make a new one with culvert token create --cluster %s",
		e.ID, e.At.Format(time.RFC3339), e.Cluster)
}

// TokenRevokedError says that a token was taken back.
type TokenRevokedError struct {
	// ID and Cluster are the token's.
	ID, Cluster string
	// At is when it was revoked.
	At time.Time
}

// Error says when the token was revoked, and what to do.
func (e *TokenRevokedError) Error() string {
	return fmt.Sprintf("join token %s was revoked at %s: make a new one with culvert token create --cluster %s",
		e.ID, e.At.Format(time.RFC3339), e.Cluster)
}

// TokenClusterError says that a token is for another cluster.
type TokenClusterError struct {
	// ID and Cluster are the token's, Asked is the cluster it was shown for.
	ID, Cluster, Asked string
}

// Error names both clusters, and what to do.
func (e *TokenClusterError) Error() string {
	return fmt.Sprintf("join token %s is for cluster %s and not for %q: make one with culvert token create for that cluster",
		e.ID, e.Cluster, e.Asked)
}

// Use is who wants to use a token, and for what.
type Use struct {
	// ID and Secret are those of the token's text.
	ID, Secret string
	// Cluster is what the peer calls itself; empty when it did not say.
	Cluster string
	// Key is the fingerprint of the peer's public key.
	Key string
	// By describes the peer for people, such as its address.
	By string
	// At is the present time.
	At time.Time
}

// UseToken marks a token as used and returns it, in one transaction: of any
// number of calls for a token, also in processes that are killed, the peers of
// one key have success.
//
// The key it was used for may use it again until it expires, and after that as long
// as its request of the same key waits to be accepted ([Store.Ask]): a peer that
// lost the answer, or waits, asks again, and what it gets is of no use to anybody
// without that key. This ends when the cluster is revoked.
//
// The errors are [ErrTokenUnknown], [*TokenRevokedError], [*TokenUsedError],
// [*TokenExpiredError] and [*TokenClusterError], judged in this order; the latter
// four are only given to who knows the secret. Nothing is changed then.
func (s *Store) UseToken(use Use) (Token, error) {
	token, err := s.useToken(use)
	if err != nil {
		return Token{}, fmt.Errorf("use join token: %w", err)
	}
	return token, nil
}

func (s *Store) useToken(use Use) (Token, error) {
	at, err := moment(use.At)
	if err != nil {
		return Token{}, err
	}
	if use.Key == "" {
		return Token{}, errors.New("key: empty, want the fingerprint of a public key")
	}
	if err := errors.Join(checkText("key", use.Key), checkText("by", use.By)); err != nil {
		return Token{}, err
	}
	// Guesses do not wait for, or hold up, the one writer.
	if err := s.db.View(func(tx *bbolt.Tx) error { _, err := judgeToken(tx, use, at); return err }); err != nil {
		return Token{}, err
	}
	var record tokenRecord
	err = s.db.Update(func(tx *bbolt.Tx) error {
		if record, err = judgeToken(tx, use, at); err != nil || !record.Used.IsZero() {
			return err
		}
		if record.UsedEvent, err = nextEvent(tx); err != nil {
			return err
		}
		record.Used, record.UsedBy, record.UsedKey = at, use.By, use.Key
		return put(tx.Bucket([]byte(bucketTokens)), "token", use.ID, record)
	})
	if err != nil {
		return Token{}, err
	}
	return record.token(use.ID), nil
}

// judgeToken returns the token when it may be used.
func judgeToken(tx *bbolt.Tx, use Use, at time.Time) (tokenRecord, error) {
	value := tx.Bucket([]byte(bucketTokens)).Get([]byte(use.ID))
	if value == nil || use.ID == "" {
		value = nil
	}
	record := tokenRecord{Hash: make([]byte, sha256.Size)}
	if value != nil {
		var err error
		if record, err = decode[tokenRecord]("token", use.ID, value, tokenFormat); err != nil {
			return tokenRecord{}, err
		}
	}
	hash := sha256.Sum256([]byte(use.Secret))
	if subtle.ConstantTimeCompare(hash[:], record.Hash) != 1 || value == nil {
		return tokenRecord{}, ErrTokenUnknown
	}
	again, waits, err := usedBySame(tx, use, record)
	if err != nil {
		return tokenRecord{}, err
	}
	switch {
	case !record.Revoked.IsZero():
		return tokenRecord{}, &TokenRevokedError{ID: use.ID, Cluster: record.Cluster, At: record.Revoked}
	case !record.Used.IsZero() && !again:
		return tokenRecord{}, &TokenUsedError{ID: use.ID, Cluster: record.Cluster, At: record.Used, By: record.UsedBy}
	case !at.Before(record.Expires) && !waits:
		return tokenRecord{}, &TokenExpiredError{ID: use.ID, Cluster: record.Cluster, At: record.Expires}
	case use.Cluster != "" && use.Cluster != record.Cluster:
		return tokenRecord{}, &TokenClusterError{ID: use.ID, Cluster: record.Cluster, Asked: use.Cluster}
	}
	return record, nil
}

// usedBySame tells whether the key that used the token uses it again, and whether
// that key waits to be accepted.
func usedBySame(tx *bbolt.Tx, use Use, record tokenRecord) (again, waits bool, err error) {
	if record.Used.IsZero() || record.UsedKey != use.Key {
		return false, false, nil
	}
	// What was revoked does not come back with its old token.
	revocation, revoked, err := getRevocation(tx, record.Cluster)
	if err != nil || revoked && revocation.Event > record.UsedEvent {
		return false, false, err
	}
	pending, found, err := getPending(tx, record.Cluster)
	return err == nil, found && pending.Key == use.Key && pending.Token == use.ID, err
}
