package mux

import "github.com/culvertdev/culvert/internal/wire"

// StatusChanged has [Config.Status] asked, and the peer told, soon. It never
// waits. Of several changes that are near to each other the peer may be told the
// last one only, so that they cannot pile up.
func (l *Link) StatusChanged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.Status != nil && l.peer != nil { // else HELLO will do it
		l.statusDue = true
		l.wakeSender()
	}
}

// PeerStatus returns what the peer said last of how ready it is, which nobody
// changes; nil when it has said nothing, and then it counts as ready.
func (l *Link) PeerStatus() *wire.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peerStatus
}

// emitStatus appends what the peer is to be told of this side. mu is held.
func (l *Link) emitStatus(b *wire.Batch) {
	if !l.statusDue {
		return
	}
	l.statusDue = false
	if status := l.cfg.Status(); status != nil && status != l.statusSent {
		l.statusSent = status
		b.Append(&wire.Frame{Kind: wire.KindStatus, Status: status})
	}
}
