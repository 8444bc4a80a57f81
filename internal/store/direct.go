package store

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// SetDirect records how a cluster is reached without the hub; without a URL, that
// nothing is known of it. A cluster that has never joined is known from then on. It
// is on the disk when it returns.
func (s *Store) SetDirect(name string, direct Direct) error {
	if err := s.setDirect(name, direct); err != nil {
		return fmt.Errorf("save cluster: %w", err)
	}
	return nil
}

func (s *Store) setDirect(name string, direct Direct) error {
	if err := route.CheckCluster(name); err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketClusters))
		record := clusterRecord{Format: clusterFormat}
		if value := bucket.Get([]byte(name)); value != nil {
			var err error
			if record, err = decode[clusterRecord]("cluster", name, value, clusterFormat); err != nil {
				return err
			}
		}
		record.Direct = &direct
		if direct.URL == "" {
			record.Direct = nil
		}
		return put(bucket, "cluster", name, record)
	})
}
