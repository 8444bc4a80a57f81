package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// clusterFormat is the newest format of a cluster's record.
const clusterFormat = 1

// Cluster is what the hub knows of a cluster whose agent was connected at some
// time. It is a copy: changing it changes nothing in the store.
type Cluster struct {
	// Name is the cluster's name, a DNS-1123 label.
	Name string
	// Version is that of the agent that was seen last.
	Version string
	// Labels are those that the agent seen last came with; nil when it had none.
	Labels map[string]string
	// FirstSeen and LastSeen are when an agent of the cluster was seen, in UTC.
	FirstSeen, LastSeen time.Time
}

// clusterRecord is a Cluster on the disk; its key is the name.
type clusterRecord struct {
	Format    int               `json:"format"`
	Version   string            `json:"version,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	FirstSeen time.Time         `json:"firstSeen"`
	LastSeen  time.Time         `json:"lastSeen"`
}

// SawCluster records that an agent of the cluster name was seen at a time, with
// its version and labels, and makes the cluster known with the first call. The
// labels stay the caller's. When calls come out of order, version, labels and
// LastSeen stay those of the latest time. It is on the disk when it returns.
func (s *Store) SawCluster(name, version string, labels map[string]string, at time.Time) error {
	if err := s.sawCluster(name, version, labels, at); err != nil {
		return fmt.Errorf("save cluster: %w", err)
	}
	return nil
}

func (s *Store) sawCluster(name, version string, labels map[string]string, at time.Time) error {
	if err := route.CheckCluster(name); err != nil {
		return err
	}
	if at.IsZero() {
		return errors.New("time: not set")
	}
	at = at.UTC().Round(0) // without the clock reading, as it comes back
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketClusters))
		next := clusterRecord{Format: clusterFormat, Version: version, Labels: labels, FirstSeen: at, LastSeen: at}
		if value := bucket.Get([]byte(name)); value != nil {
			last, err := decodeCluster(name, value)
			if err != nil {
				return err
			}
			if at.Before(last.LastSeen) {
				next.Version, next.Labels, next.LastSeen = last.Version, last.Labels, last.LastSeen
			}
			if last.FirstSeen.Before(at) {
				next.FirstSeen = last.FirstSeen
			}
		}
		value, err := json.Marshal(next)
		if err != nil {
			return err
		}
		return bucket.Put([]byte(name), value)
	})
}

// Cluster returns what is known of a cluster; false when nothing is.
func (s *Store) Cluster(name string) (Cluster, bool, error) {
	var cluster Cluster
	found := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		value := tx.Bucket([]byte(bucketClusters)).Get([]byte(name))
		if value == nil {
			return nil
		}
		var err error
		cluster, err = decodeCluster(name, value)
		found = err == nil
		return err
	})
	if err != nil {
		return Cluster{}, false, fmt.Errorf("read cluster: %w", err)
	}
	return cluster, found, nil
}

// Clusters returns every cluster that is known, by name. One record that cannot
// be read is an error, so that nobody takes a part for the whole.
func (s *Store) Clusters() ([]Cluster, error) {
	var clusters []Cluster
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketClusters)).ForEach(func(name, value []byte) error {
			cluster, err := decodeCluster(string(name), value)
			clusters = append(clusters, cluster)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	return clusters, nil
}

func decodeCluster(name string, value []byte) (Cluster, error) {
	// The number first: nothing else of a newer record has to make sense here.
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return Cluster{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	if err := checkFormat(head.Format, clusterFormat); err != nil {
		return Cluster{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	var record clusterRecord
	if err := json.Unmarshal(value, &record); err != nil {
		return Cluster{}, fmt.Errorf("cluster %s: %w", name, err)
	}
	return Cluster{
		Name:      name,
		Version:   record.Version,
		Labels:    record.Labels,
		FirstSeen: record.FirstSeen,
		LastSeen:  record.LastSeen,
	}, nil
}
