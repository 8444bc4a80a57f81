package store

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// certificateFormat is the newest format of a certificate's record.
const certificateFormat = 1

// MaxCertificates is how many certificates of one cluster are kept that have not
// expired; of more, the oldest are forgotten. A forgotten one is judged as one
// that was made elsewhere: see [Store.CheckCertificate].
const MaxCertificates = 256

// Certificate is one that the hub issued for a cluster's agent. It is a copy.
type Certificate struct {
	// Cluster is whose agent it is for.
	Cluster string
	// Serial is its serial number as [SerialOf] has it.
	Serial string
	// NotBefore and NotAfter are its validity.
	NotBefore, NotAfter time.Time
	// Issued is when it was issued.
	Issued time.Time
	// Token is the id of the join token it was issued for; empty otherwise.
	Token string
	// Previous is the serial number of the certificate that asked for it, when it
	// is a renewal; empty otherwise.
	Previous string
}

// certificateRecord is a Certificate on the disk; its key is the cluster, a
// slash, which is in no name, and the serial number.
type certificateRecord struct {
	Format    int       `json:"format"`
	Event     uint64    `json:"event"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Issued    time.Time `json:"issued"`
	Token     string    `json:"token,omitempty"`
	Previous  string    `json:"previous,omitempty"`
}

// SerialOf writes a serial number as the store keeps it: hexadecimal, lower case.
func SerialOf(number *big.Int) string { return number.Text(16) }

func certificateKey(cluster, serial string) []byte { return []byte(cluster + "/" + serial) }

// RecordCertificate keeps what the hub issues, before the agent gets it. It is
// also where a revocation bites that came meanwhile: the error is
// [*RevokedError] when the cluster is revoked, unless the join token of Token was
// used after that, or the certificate of Previous was issued after that.
//
// Unless it is a renewal, the cluster becomes known, with the labels of the join
// token: see [Cluster.Joined]. Records of the cluster that have expired are removed.
func (s *Store) RecordCertificate(c Certificate) error {
	if err := s.recordCertificate(c); err != nil {
		return fmt.Errorf("record certificate: %w", err)
	}
	return nil
}

func (s *Store) recordCertificate(c Certificate) error {
	if err := route.CheckCluster(c.Cluster); err != nil {
		return err
	}
	if c.Serial == "" || strings.Trim(c.Serial, "0123456789abcdef") != "" {
		return fmt.Errorf("serial %q: want lower-case hexadecimal digits", c.Serial)
	}
	issued, err := moment(c.Issued)
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		event, err := nextEvent(tx)
		if err != nil {
			return err
		}
		if err := mayIssue(tx, c); err != nil {
			return err
		}
		bucket := tx.Bucket([]byte(bucketCertificates))
		if err := makeRoom(bucket, c.Cluster, issued); err != nil {
			return err
		}
		key := string(certificateKey(c.Cluster, c.Serial))
		if bucket.Get([]byte(key)) != nil {
			return fmt.Errorf("certificate %s: is there already", key)
		}
		err = put(bucket, "certificate", key, certificateRecord{
			Format: certificateFormat, Event: event,
			NotBefore: c.NotBefore.UTC().Round(0), NotAfter: c.NotAfter.UTC().Round(0),
			Issued: issued, Token: c.Token, Previous: c.Previous,
		})
		if err != nil || c.Previous != "" {
			return err
		}
		return join(tx, c, issued)
	})
}

// mayIssue compares with the cluster's revocation what the certificate is issued
// for.
func mayIssue(tx *bbolt.Tx, c Certificate) error {
	revocation, revoked, err := getRevocation(tx, c.Cluster)
	if err != nil || !revoked {
		return err
	}
	var basis uint64
	if c.Token != "" {
		if value := tx.Bucket([]byte(bucketTokens)).Get([]byte(c.Token)); value != nil {
			token, err := decode[tokenRecord]("token", c.Token, value, tokenFormat)
			if err != nil {
				return err
			}
			if token.Cluster == c.Cluster {
				basis = token.UsedEvent
			}
		}
	}
	if c.Previous != "" {
		record, found, err := getCertificate(tx, c.Cluster, c.Previous)
		if err != nil {
			return err
		}
		if found {
			basis = max(basis, record.Event)
		}
	}
	if basis > revocation.Event {
		return nil
	}
	return revocation.refusal(c.Cluster)
}

// makeRoom removes what has expired, and the oldest above the bound.
func makeRoom(bucket *bbolt.Bucket, cluster string, now time.Time) error {
	type kept struct {
		key   []byte
		event uint64
	}
	var gone [][]byte
	var live []kept
	err := forEachOf(bucket, cluster, func(key []byte, record certificateRecord) error {
		if now.After(record.NotAfter) {
			gone = append(gone, slices.Clone(key))
		} else {
			live = append(live, kept{slices.Clone(key), record.Event})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if over := len(live) + 1 - MaxCertificates; over > 0 {
		slices.SortFunc(live, func(a, b kept) int { return int(int64(a.event) - int64(b.event)) })
		for _, old := range live[:over] {
			gone = append(gone, old.key)
		}
	}
	return removeAll(bucket, gone)
}

func forEachOf(bucket *bbolt.Bucket, cluster string, each func(key []byte, record certificateRecord) error) error {
	prefix := certificateKey(cluster, "")
	cursor := bucket.Cursor()
	for key, value := cursor.Seek(prefix); bytes.HasPrefix(key, prefix); key, value = cursor.Next() {
		record, err := decode[certificateRecord]("certificate", string(key), value, certificateFormat)
		if err != nil {
			return err
		}
		if err := each(key, record); err != nil {
			return err
		}
	}
	return nil
}

func getCertificate(tx *bbolt.Tx, cluster, serial string) (certificateRecord, bool, error) {
	key := certificateKey(cluster, serial)
	value := tx.Bucket([]byte(bucketCertificates)).Get(key)
	if value == nil {
		return certificateRecord{}, false, nil
	}
	record, err := decode[certificateRecord]("certificate", string(key), value, certificateFormat)
	return record, err == nil, err
}

// Certificates returns the certificates of a cluster that are kept, the oldest
// first.
func (s *Store) Certificates(cluster string) ([]Certificate, error) {
	var certificates []Certificate
	events := map[string]uint64{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return forEachOf(tx.Bucket([]byte(bucketCertificates)), cluster, func(key []byte, r certificateRecord) error {
			serial := string(key[len(cluster)+1:])
			events[serial] = r.Event
			certificates = append(certificates, Certificate{
				Cluster: cluster, Serial: serial, NotBefore: r.NotBefore, NotAfter: r.NotAfter,
				Issued: r.Issued, Token: r.Token, Previous: r.Previous,
			})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list certificates: %w", err)
	}
	slices.SortFunc(certificates, func(a, b Certificate) int { return int(int64(events[a.Serial]) - int64(events[b.Serial])) })
	return certificates, nil
}

// CheckCertificate judges a certificate of a cluster, whose chain was verified
// before, against revocations: the error is [*RevokedError] when the cluster was
// revoked and the certificate was not issued by the hub after that. One that the
// store does not know, because an operator made it, is refused when its validity
// begins at or before the revocation; it begins a few minutes before the
// certificate was made. The function fits pki.VerifyAgent, and is cheap.
func (s *Store) CheckCertificate(cluster string, cert *x509.Certificate) error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		revocation, revoked, err := getRevocation(tx, cluster)
		if err != nil || !revoked {
			return err
		}
		if cert == nil || cert.SerialNumber == nil {
			return errors.New("certificate without a serial number")
		}
		record, found, err := getCertificate(tx, cluster, SerialOf(cert.SerialNumber))
		switch {
		case err != nil:
			return err
		case found && record.Event > revocation.Event, !found && cert.NotBefore.After(revocation.At):
			return nil
		}
		return revocation.refusal(cluster)
	})
	if err != nil {
		return fmt.Errorf("check revocation: %w", err)
	}
	return nil
}
