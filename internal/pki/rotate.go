package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/culvertdev/culvert/internal/filelock"
)

// maxRotations is how many authorities of one role may be trusted at a time
// before another rotation is refused.
const maxRotations = 8

// retireTime is how long an authority stays trusted at least after its successor
// came: other processes may sign with it until they look at the files.
const retireTime = time.Hour

// Rotate makes a new certificate and key, which sign from then on, and keeps
// trusting the ones before: what they signed stays good until it expires. The old
// key is gone. Nothing that runs is cut off.
//
// The new authority of [RoleServing] is also signed by the old one, and whoever
// is served gets that cross certificate with the chain, so that a client that
// knows the old one only goes on to trust the hub until that one expires.
//
// It is on the disk when it returns. A process that is killed within leaves the
// old authority in force. Of several processes that rotate at once, one follows
// the other. It is an error for an operator's authority, and with eight of a role
// that are still trusted.
func (a *Authority) Rotate() (*x509.Certificate, error) {
	cert, err := a.rotate()
	if err != nil {
		return nil, fmt.Errorf("rotate the %s CA: %w", a.role, err)
	}
	return cert, nil
}

func (a *Authority) rotate() (cert *x509.Certificate, err error) {
	if !a.own {
		return nil, fmt.Errorf("it is not the hub's own: its owner replaces %s, the new certificate first and the old one after it, "+
			"and then the key", a.certFile)
	}
	unlock, err := filelock.Folder(filepath.Dir(a.certFile))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := a.Reload(); err != nil {
		return nil, err
	}
	if _, err := a.prune(time.Now()); err != nil {
		return nil, err
	}
	old := a.now()
	if len(old.trusted) >= maxRotations {
		return nil, fmt.Errorf("%d certificates are trusted already, which is the most: what the oldest signed is in use until %s",
			len(old.trusted), a.inUse(old.trusted[len(old.trusted)-1]))
	}
	next, key, err := a.successor(old)
	if err != nil {
		return nil, err
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	// First the trust, then who is trusted: until the key is there, the old one
	// signs, and is found behind the new one.
	if err := a.retire(old.active, next); err != nil {
		return nil, err
	}
	if err := replace(a.certFile, append(encodeCertificate(next.Raw), old.pem...), modePublic); err != nil {
		return nil, err
	}
	if err := replace(a.keyFile, keyPEM, modeKey); err != nil {
		return nil, err
	}
	return next, a.Reload()
}

// successor makes the next authority and, for serving, writes the chain to it.
func (a *Authority) successor(old *signers) (*x509.Certificate, crypto.Signer, error) {
	key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := selfSign(key, a.role, time.Now(), a.lifetime)
	if err != nil {
		return nil, nil, err
	}
	next, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	if a.role != RoleServing {
		return next, key, nil
	}
	cross, err := crossSign(next, old.active, old.key)
	if err != nil {
		return nil, nil, err
	}
	chain := encodeCertificate(cross)
	for _, cert := range old.chain {
		chain = append(chain, encodeCertificate(cert.Raw)...)
	}
	return next, key, replace(a.crossFile, chain, modePublic)
}

// Prune stops trusting authorities that were rotated away, when nothing they
// signed can be valid any more, and returns them. One of which that is not known,
// because the hub did not make it, stays until it expires.
func (a *Authority) Prune() (gone []*x509.Certificate, err error) {
	if !a.own {
		return nil, nil
	}
	gone, err = a.pruneLocked()
	if err != nil {
		return nil, fmt.Errorf("prune the %s CA: %w", a.role, err)
	}
	return gone, nil
}

func (a *Authority) pruneLocked() (gone []*x509.Certificate, err error) {
	if len(a.now().trusted) < 2 {
		return nil, nil // the usual case costs nothing
	}
	unlock, err := filelock.Folder(filepath.Dir(a.certFile))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := a.Reload(); err != nil {
		return nil, err
	}
	return a.prune(time.Now())
}

// prune is called with the folder locked and the files just read.
func (a *Authority) prune(now time.Time) ([]*x509.Certificate, error) {
	record, err := a.readRecord()
	if err != nil {
		return nil, err
	}
	var kept, gone []*x509.Certificate
	for _, cert := range a.now().trusted {
		entry, known := record.Authorities[Pin(cert)]
		if !cert.Equal(a.now().active) && known && !entry.Retired.IsZero() &&
			now.After(entry.Latest) && now.After(entry.Retired.Add(retireTime)) {
			gone = append(gone, cert)
			delete(record.Authorities, Pin(cert))
			continue
		}
		kept = append(kept, cert)
	}
	if len(gone) == 0 {
		return nil, nil
	}
	var text []byte
	for _, cert := range kept {
		text = append(text, encodeCertificate(cert.Raw)...)
	}
	if err := replace(a.certFile, text, modePublic); err != nil {
		return nil, err
	}
	if err := a.writeRecord(record); err != nil {
		return nil, err
	}
	return gone, a.Reload()
}

// issuedRecord is what dir/<role>-ca.json holds: what is known of the keys that
// the hub made itself, by pin.
type issuedRecord struct {
	Format      int                    `json:"format"`
	Authorities map[string]issuedEntry `json:"authorities"`
}

// issuedEntry says until when what a key has signed may be in use.
type issuedEntry struct {
	Latest  time.Time `json:"latest,omitzero"`
	Retired time.Time `json:"retired,omitzero"`
}

const issuedFormat = 1

func (a *Authority) recordFile() string { return strings.TrimSuffix(a.certFile, ".crt") + ".json" }

func (a *Authority) readRecord() (issuedRecord, error) {
	record := issuedRecord{Format: issuedFormat, Authorities: map[string]issuedEntry{}}
	data, _, err := readFile(a.recordFile())
	if errors.Is(err, fs.ErrNotExist) {
		return record, nil
	}
	if err != nil {
		return record, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&record); err != nil {
		return record, fmt.Errorf("%s: %w: move it away, then authorities that were rotated away are trusted until they expire", a.recordFile(), err)
	}
	if record.Format != issuedFormat {
		return record, fmt.Errorf("%s: format %d, this version knows %d: run the newer version", a.recordFile(), record.Format, issuedFormat)
	}
	if record.Authorities == nil {
		record.Authorities = map[string]issuedEntry{}
	}
	return record, nil
}

func (a *Authority) writeRecord(record issuedRecord) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	return replace(a.recordFile(), append(text, '\n'), modeKey)
}

// beginRecord notes that a key is new, so that all that it signs will be known.
func (a *Authority) beginRecord(key crypto.Signer) error {
	pin, err := PinKey(key.Public())
	if err != nil {
		return err
	}
	return a.changeRecord(func(record issuedRecord) bool {
		record.Authorities[pin] = issuedEntry{}
		return true
	})
}

// changeRecord takes the lock; change says whether there is something to write.
func (a *Authority) changeRecord(change func(issuedRecord) bool) (err error) {
	unlock, err := filelock.Folder(filepath.Dir(a.certFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	record, err := a.readRecord()
	if err != nil || !change(record) {
		return err
	}
	return a.writeRecord(record)
}

// retire is called with the folder locked.
func (a *Authority) retire(old, next *x509.Certificate) error {
	record, err := a.readRecord()
	if err != nil {
		return err
	}
	if entry, known := record.Authorities[Pin(old)]; known {
		entry.Retired = time.Now().UTC()
		record.Authorities[Pin(old)] = entry
	}
	record.Authorities[Pin(next)] = issuedEntry{}
	return a.writeRecord(record)
}

// remember notes, before active signs it, that a certificate will be valid until
// a time. A quarter of its life is added, so that few certificates need a write.
func (a *Authority) remember(active *x509.Certificate, notAfter time.Time, lifetime time.Duration) error {
	if !a.own {
		return nil
	}
	pin := Pin(active)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !notAfter.After(a.issued[pin]) {
		return nil
	}
	until := notAfter.Add(lifetime / 4).UTC().Truncate(time.Second)
	err := a.changeRecord(func(record issuedRecord) bool {
		entry, known := record.Authorities[pin]
		switch {
		case !known:
			until = active.NotAfter // never pruned before that
			return false
		case !notAfter.After(entry.Latest):
			until = entry.Latest
			return false
		}
		entry.Latest = until
		record.Authorities[pin] = entry
		return true
	})
	if err == nil {
		a.issued[pin] = until
	}
	return err
}

// inUse says, for people, until when an authority is needed.
func (a *Authority) inUse(cert *x509.Certificate) string {
	if record, err := a.readRecord(); err == nil {
		if entry, known := record.Authorities[Pin(cert)]; known && entry.Latest.Before(cert.NotAfter) {
			return timestamp(slices.MaxFunc([]time.Time{entry.Latest, entry.Retired.Add(retireTime)}, time.Time.Compare))
		}
	}
	return timestamp(cert.NotAfter)
}
