package telemetry

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/culvertdev/culvert/internal/mux"
	"github.com/culvertdev/culvert/internal/wire"
)

// LinkInfo says whose a link is.
type LinkInfo struct {
	// Cluster is empty at an agent.
	Cluster string
	// Name, Instance and Version are what the agent says of itself.
	Name, Instance, Version string
	Remote                  net.Addr
}

// Links are the tunnels of a process: what there is now, and what those that have
// ended counted. It is safe for concurrent use; a nil *Links has none and takes
// none.
type Links struct {
	mu       sync.Mutex
	live     []*liveLink // oldest first
	follow   []followed
	clusters map[string]*linkTotals // also of links that have ended; bounded
}

type liveLink struct {
	info  LinkInfo
	label string // of its cluster
	link  *mux.Link
	since time.Time
}

type followed struct {
	info    LinkInfo
	current func() *mux.Link
}

// linkTotals is what the links of one cluster that have ended counted.
type linkTotals struct {
	sent, received uint64
	stall          time.Duration
}

// NewLinks returns an empty Links.
func NewLinks() *Links { return &Links{clusters: make(map[string]*linkTotals)} }

// Add enters a link. It is taken out by remove, or by itself some time after it
// has ended.
func (l *Links) Add(info LinkInfo, link *mux.Link) (remove func()) {
	if l == nil {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	entry := l.add(info, link)
	return func() { l.remove(entry) }
}

// Follow enters the links that current returns, one after the other, nil where
// there is none now: it is called whenever somebody looks. It is for a side that
// keeps one link, as an agent does; what a link counted that came and went between
// two looks is lost.
func (l *Links) Follow(info LinkInfo, current func() *mux.Link) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.follow = append(l.follow, followed{info: info, current: current})
}

// add is called with mu held.
func (l *Links) add(info LinkInfo, link *mux.Link) *liveLink {
	entry := &liveLink{info: info, label: info.Cluster, link: link, since: time.Now()}
	if l.clusters[entry.label] == nil && len(l.clusters) >= maxClusters {
		entry.label = otherCluster
	}
	if l.clusters[entry.label] == nil {
		l.clusters[entry.label] = &linkTotals{}
	}
	l.live = append(l.live, entry)
	return entry
}

// has tells whether the cluster has, or had, a link.
func (l *Links) has(cluster string) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clusters[cluster] != nil
}

func (l *Links) remove(entry *liveLink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = slices.DeleteFunc(l.live, func(e *liveLink) bool {
		if e == entry {
			l.retire(e)
		}
		return e == entry
	})
}

// retire keeps what a link counted; mu is held.
func (l *Links) retire(e *liveLink) {
	s, t := e.link.Stats(), l.clusters[e.label]
	t.sent += s.Sent
	t.received += s.Received
	t.stall += s.StallTime
}

// refresh takes followed links in and ended ones out; mu is held.
func (l *Links) refresh() {
	for _, f := range l.follow {
		link := f.current()
		if link != nil && !slices.ContainsFunc(l.live, func(e *liveLink) bool { return e.link == link }) {
			l.add(f.info, link)
		}
	}
	l.live = slices.DeleteFunc(l.live, func(e *liveLink) bool {
		select {
		case <-e.link.Done():
			l.retire(e)
			return true
		default:
			return false
		}
	})
}

// now returns the links that are alive, oldest first.
func (l *Links) now() []*liveLink {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh()
	return slices.Clone(l.live)
}

// clusterLinks is the sum of the links of one cluster.
type clusterLinks struct {
	links          int
	unready        int       // of them, for Kubernetes
	stats          mux.Stats // RTT is the smallest
	sent, received uint64
	stall          time.Duration
}

// byCluster adds up by label, of all clusters that ever had a link.
func (l *Links) byCluster() map[string]*clusterLinks {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh()
	out := make(map[string]*clusterLinks, len(l.clusters))
	for label, t := range l.clusters {
		out[label] = &clusterLinks{sent: t.sent, received: t.received, stall: t.stall}
	}
	for _, e := range l.live {
		c, s := out[e.label], e.link.Stats()
		c.links++
		if r := s.Peer.For(wire.KubernetesAPI()); r != nil && !r.Ready {
			c.unready++
		}
		c.sent += s.Sent
		c.received += s.Received
		c.stall += s.StallTime
		c.stats.Sessions += s.Sessions
		c.stats.Pending += s.Pending
		c.stats.Stalled += s.Stalled
		c.stats.Queued += s.Queued
		if s.RTT > 0 && (c.stats.RTT == 0 || s.RTT < c.stats.RTT) {
			c.stats.RTT = s.RTT
		}
	}
	return out
}
