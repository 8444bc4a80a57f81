package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// tokenFormat is the newest format of a token's record.
const tokenFormat = 1

const (
	tokenID     = 8  // bytes of an id: it is no secret, it only has to be unique
	tokenSecret = 32 // bytes of a secret
)

// MaxTokens is how many tokens are kept at a time, those that cannot be used any
// more included.
const MaxTokens = 10_000

// Token is a join token without its secret, of which only a digest is stored. It
// is a copy: changing it changes nothing in the store.
type Token struct {
	// ID names the token: sixteen hexadecimal digits, no secret.
	ID string
	// Cluster is the one cluster that the token is for.
	Cluster string
	// Labels are given to the cluster when it joins; nil when there are none.
	Labels map[string]string
	// Approval says that a cluster that joins with the token has to be accepted.
	Approval bool
	// Created and CreatedBy are when and by whom it was made, in UTC.
	Created   time.Time
	CreatedBy string
	// Expires is when it can be used no more.
	Expires time.Time
	// Used is when it was used, UsedBy by whom and UsedKey for which key (as the
	// caller of UseToken put it); zero while it was not.
	Used            time.Time
	UsedBy, UsedKey string
	// Revoked is when it was taken back, RevokedBy by whom; zero while it is not.
	Revoked   time.Time
	RevokedBy string
}

// tokenRecord is a Token on the disk; its key is the id.
type tokenRecord struct {
	Format    int               `json:"format"`
	Hash      []byte            `json:"hash"`
	Cluster   string            `json:"cluster"`
	Labels    map[string]string `json:"labels,omitempty"`
	Approval  bool              `json:"approval,omitempty"`
	Created   time.Time         `json:"created"`
	CreatedBy string            `json:"createdBy,omitempty"`
	Expires   time.Time         `json:"expires"`
	Used      time.Time         `json:"used,omitzero"`
	UsedBy    string            `json:"usedBy,omitempty"`
	UsedKey   string            `json:"usedKey,omitempty"`
	UsedEvent uint64            `json:"usedEvent,omitempty"`
	Revoked   time.Time         `json:"revoked,omitzero"`
	RevokedBy string            `json:"revokedBy,omitempty"`
}

func (r tokenRecord) token(id string) Token {
	return Token{
		ID: id, Cluster: r.Cluster, Labels: r.Labels, Approval: r.Approval,
		Created: r.Created, CreatedBy: r.CreatedBy, Expires: r.Expires,
		Used: r.Used, UsedBy: r.UsedBy, UsedKey: r.UsedKey,
		Revoked: r.Revoked, RevokedBy: r.RevokedBy,
	}
}

// CreateToken makes a token of the Cluster, Labels, Approval, CreatedBy and
// Expires of want; its other fields are set here. The secret is returned once
// and cannot be had again. at is the present time. With [MaxTokens] tokens the
// error is [ErrTooMany]: [Store.Prune] makes room.
func (s *Store) CreateToken(want Token, at time.Time) (token Token, secret string, err error) {
	token, secret, err = s.createToken(want, at)
	if err != nil {
		return Token{}, "", fmt.Errorf("create token: %w", err)
	}
	return token, secret, nil
}

func (s *Store) createToken(want Token, at time.Time) (Token, string, error) {
	if err := route.CheckCluster(want.Cluster); err != nil {
		return Token{}, "", err
	}
	if err := checkText("created by", want.CreatedBy); err != nil {
		return Token{}, "", err
	}
	at, err := moment(at)
	if err != nil {
		return Token{}, "", err
	}
	if !want.Expires.After(at) {
		return Token{}, "", errors.New("expires: not after the present time")
	}
	random := make([]byte, tokenID+tokenSecret)
	if _, err := rand.Read(random); err != nil {
		return Token{}, "", err
	}
	id, secret := hex.EncodeToString(random[:tokenID]), base64.RawURLEncoding.EncodeToString(random[tokenID:])
	hash := sha256.Sum256([]byte(secret))
	record := tokenRecord{
		Format: tokenFormat, Hash: hash[:], Cluster: want.Cluster, Labels: want.Labels, Approval: want.Approval,
		Created: at, CreatedBy: want.CreatedBy, Expires: want.Expires.UTC().Round(0),
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketTokens))
		if count(bucket, MaxTokens) >= MaxTokens {
			return fmt.Errorf("%w: there are %d tokens, which is the most: revoke what is not needed", ErrTooMany, MaxTokens)
		}
		return put(bucket, "token", id, record)
	})
	if err != nil {
		return Token{}, "", err
	}
	return record.token(id), secret, nil
}

// count goes through the keys of a bucket, up to a bound.
func count(bucket *bbolt.Bucket, most int) int {
	n := 0
	cursor := bucket.Cursor()
	for key, _ := cursor.First(); key != nil && n < most; key, _ = cursor.Next() {
		n++
	}
	return n
}

// Tokens returns every token that is kept, the oldest first. One record that
// cannot be read is an error.
func (s *Store) Tokens() ([]Token, error) {
	var tokens []Token
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketTokens)).ForEach(func(id, value []byte) error {
			record, err := decode[tokenRecord]("token", string(id), value, tokenFormat)
			tokens = append(tokens, record.token(string(id)))
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	slices.SortStableFunc(tokens, func(a, b Token) int { return a.Created.Compare(b.Created) })
	return tokens, nil
}

// Token returns one token; false when it is not known.
func (s *Store) Token(id string) (token Token, found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket([]byte(bucketTokens)).Get([]byte(id))
		if value == nil {
			return nil
		}
		record, err := decode[tokenRecord]("token", id, value, tokenFormat)
		token, found = record.token(id), err == nil
		return err
	})
	if err != nil {
		return Token{}, false, fmt.Errorf("read token: %w", err)
	}
	return token, found, nil
}

// RevokeToken takes a token back, so that it cannot be used any more. What it was
// used for before stays: [Store.RevokeCluster] is for that. A token that is
// revoked already stays as it is. The error is [ErrTokenUnknown] for an id that
// is not kept.
func (s *Store) RevokeToken(id, by string, at time.Time) (token Token, err error) {
	token, err = s.revokeToken(id, by, at)
	if err != nil {
		return Token{}, fmt.Errorf("revoke token: %w", err)
	}
	return token, nil
}

func (s *Store) revokeToken(id, by string, at time.Time) (Token, error) {
	at, err := moment(at)
	if err != nil {
		return Token{}, err
	}
	if err := checkText("revoked by", by); err != nil {
		return Token{}, err
	}
	var record tokenRecord
	err = s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketTokens))
		value := bucket.Get([]byte(id))
		if value == nil {
			return ErrTokenUnknown
		}
		var err error
		if record, err = decode[tokenRecord]("token", id, value, tokenFormat); err != nil {
			return err
		}
		if !record.Revoked.IsZero() {
			return nil
		}
		record.Revoked, record.RevokedBy = at, by
		return put(bucket, "token", id, record)
	})
	if err != nil {
		return Token{}, err
	}
	return record.token(id), nil
}
