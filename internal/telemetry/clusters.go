package telemetry

import "sync"

const (
	// unknownCluster is the label of names that no cluster has, otherCluster of
	// clusters beyond maxClusters. Neither can be a cluster's name.
	unknownCluster = "_unknown"
	otherCluster   = "_other"
	// maxClusters bounds the clusters that have series of their own.
	maxClusters = 5000
	// maxSeries bounds the series of one metric; further ones are counted together
	// with the label otel_metric_overflow="true".
	maxSeries = 20 * maxClusters
)

// clusters turns names of clusters, which a caller may invent, into labels, of
// which there is a bounded number. It is safe for concurrent use.
type clusters struct {
	known func(string) bool

	mu    sync.RWMutex
	names map[string]struct{}
}

func newClusters(known func(string) bool) *clusters {
	return &clusters{known: known, names: make(map[string]struct{})}
}

// label returns the label of a cluster that a caller named; an empty name stays
// empty.
func (c *clusters) label(name string) string {
	if name == "" {
		return ""
	}
	c.mu.RLock()
	_, ok := c.names[name]
	c.mu.RUnlock()
	switch {
	case ok:
		return name
	case c.known(name):
		return c.admit(name)
	default:
		return unknownCluster
	}
}

// admit returns the label of a cluster that exists.
func (c *clusters) admit(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.names[name]; !ok && len(c.names) >= maxClusters {
		return otherCluster
	}
	c.names[name] = struct{}{}
	return name
}
