package store

import (
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/culvertdev/culvert/internal/route"
)

// clusterFormat is the newest format of a cluster's record.
const clusterFormat = 1

// Cluster is what the hub knows of a cluster whose agent joined or was connected at
// some time. It is a copy: changing it changes nothing in the store.
type Cluster struct {
	// Name is the cluster's name, a DNS-1123 label.
	Name string
	// Version is that of the agent that was seen last.
	Version string
	// Labels are those that the agent seen last came with; nil when it had none.
	Labels map[string]string
	// FirstSeen and LastSeen are when an agent of the cluster was seen, in UTC;
	// zero when none was.
	FirstSeen, LastSeen time.Time
	// Joined is when the cluster last got a certificate that was no renewal; zero
	// when it never did.
	Joined time.Time
	// TokenLabels are those of the join token of that time; nil when there are none.
	TokenLabels map[string]string
	// Direct is how the cluster is reached without the hub; the zero value where
	// nothing is recorded.
	Direct Direct
}

// Direct is how clients reach a cluster's API server without the hub.
type Direct struct {
	// URL is that of the API server; empty for none.
	URL string `json:"url"`
	// CA verifies it, PEM; empty for the clients' own systems.
	CA string `json:"ca,omitempty"`
}

// clusterRecord is a Cluster on the disk; its key is the name.
type clusterRecord struct {
	Format    int               `json:"format"`
	Version   string            `json:"version,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	FirstSeen time.Time         `json:"firstSeen"`
	LastSeen  time.Time         `json:"lastSeen"`

	Joined      time.Time         `json:"joined,omitzero"`
	TokenLabels map[string]string `json:"tokenLabels,omitempty"`
	Direct      *Direct           `json:"direct,omitempty"`
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
	at, err := moment(at)
	if err != nil {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketClusters))
		next := clusterRecord{Format: clusterFormat, Version: version, Labels: labels, FirstSeen: at, LastSeen: at}
		if value := bucket.Get([]byte(name)); value != nil {
			last, err := decode[clusterRecord]("cluster", name, value, clusterFormat)
			if err != nil {
				return err
			}
			next.Joined, next.TokenLabels, next.Direct = last.Joined, last.TokenLabels, last.Direct
			if at.Before(last.LastSeen) {
				next.Version, next.Labels, next.LastSeen = last.Version, last.Labels, last.LastSeen
			}
			if !last.FirstSeen.IsZero() && last.FirstSeen.Before(at) {
				next.FirstSeen = last.FirstSeen
			}
		}
		return put(bucket, "cluster", name, next)
	})
}

// join makes a cluster known, with the labels of the token of its certificate.
func join(tx *bbolt.Tx, c Certificate, at time.Time) error {
	bucket := tx.Bucket([]byte(bucketClusters))
	record := clusterRecord{Format: clusterFormat}
	if value := bucket.Get([]byte(c.Cluster)); value != nil {
		var err error
		if record, err = decode[clusterRecord]("cluster", c.Cluster, value, clusterFormat); err != nil {
			return err
		}
	}
	record.Joined, record.TokenLabels = at, nil
	if value := tx.Bucket([]byte(bucketTokens)).Get([]byte(c.Token)); c.Token != "" && value != nil {
		token, err := decode[tokenRecord]("token", c.Token, value, tokenFormat)
		if err != nil {
			return err
		}
		record.TokenLabels = token.Labels
	}
	if err := put(bucket, "cluster", c.Cluster, record); err != nil {
		return err
	}
	revocation, revoked, err := getRevocation(tx, c.Cluster)
	if err != nil || !revoked {
		return err
	}
	revocation.Restored = at
	return put(tx.Bucket([]byte(bucketRevocations)), "revocation", c.Cluster, revocation)
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
	record, err := decode[clusterRecord]("cluster", name, value, clusterFormat)
	if err != nil {
		return Cluster{}, err
	}
	cluster := Cluster{
		Name:        name,
		Version:     record.Version,
		Labels:      record.Labels,
		FirstSeen:   record.FirstSeen,
		LastSeen:    record.LastSeen,
		Joined:      record.Joined,
		TokenLabels: record.TokenLabels,
	}
	if record.Direct != nil {
		cluster.Direct = *record.Direct
	}
	return cluster, nil
}
