package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// maxRecord bounds one value, so that no peer can fill the disk with one call.
const maxRecord = 64 << 10

// maxText bounds texts that come from elsewhere: who did something, and why.
const maxText = 512

// ErrTooMany says that a bound of the store is reached: how many tokens or
// pending clusters there may be at a time.
var ErrTooMany = errors.New("too many")

// decode returns a record of the newest known format. kind and name are for its
// error.
func decode[T any](kind, name string, value []byte, known int) (T, error) {
	var record T
	// The number first: nothing else of a newer record has to make sense here.
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return record, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	if err := checkFormat(head.Format, known); err != nil {
		return record, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	if err := json.Unmarshal(value, &record); err != nil {
		return record, fmt.Errorf("%s %s: %w", kind, name, err)
	}
	return record, nil
}

// put writes a record.
func put[T any](bucket *bbolt.Bucket, kind, name string, record T) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	if len(value) > maxRecord {
		return fmt.Errorf("%s %s: %d bytes, at most %d can be kept", kind, name, len(value), maxRecord)
	}
	return bucket.Put([]byte(name), value)
}

// removeAll deletes keys after the walk that found them: bbolt's walks do not
// stand changes.
func removeAll(bucket *bbolt.Bucket, keys [][]byte) error {
	for _, key := range keys {
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// nextEvent numbers what is later compared as before or after. The order of
// transactions is what counts, not a clock that may be set back.
func nextEvent(tx *bbolt.Tx) (uint64, error) {
	return tx.Bucket([]byte(bucketMeta)).NextSequence()
}

// moment is a time as it comes back from the disk.
func moment(at time.Time) (time.Time, error) {
	if at.IsZero() {
		return at, errors.New("time: not set")
	}
	return at.UTC().Round(0), nil // without the clock reading
}

func checkText(field, text string) error {
	if len(text) > maxText {
		return fmt.Errorf("%s: %d bytes, at most %d are allowed", field, len(text), maxText)
	}
	return nil
}
