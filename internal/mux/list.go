package mux

import "time"

// The lists a session may be in at the same time. The session carries the
// nodes, so that moving between lists allocates nothing.
const (
	creditList = iota
	dataList
	idleList
	listKinds
)

type node struct {
	next, prev *Session
	in         *list
}

// list is a doubly linked list of sessions. The zero value is empty. All lists
// given the same kind are exclusive: a session is in one of them at most.
type list struct {
	head, tail *Session
	n          int
}

// add appends s unless it already is in a list of this kind.
func (l *list) add(s *Session, kind int) {
	nd := &s.nodes[kind]
	if nd.in != nil {
		return
	}
	nd.in, nd.prev, nd.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.nodes[kind].next = s
	} else {
		l.head = s
	}
	l.tail = s
	l.n++
}

// leave takes s out of the list of this kind that it is in, if any.
func (s *Session) leave(kind int) {
	nd := &s.nodes[kind]
	l := nd.in
	if l == nil {
		return
	}
	if nd.prev != nil {
		nd.prev.nodes[kind].next = nd.next
	} else {
		l.head = nd.next
	}
	if nd.next != nil {
		nd.next.nodes[kind].prev = nd.prev
	} else {
		l.tail = nd.prev
	}
	l.n--
	*nd = node{}
}

// lru holds sessions in the order of their last receipt, oldest first.
type lru struct{ list }

// touch makes s the newest.
func (l *lru) touch(s *Session, now time.Time) {
	s.lastRecv = now
	if l.tail == s {
		return
	}
	s.leave(idleList)
	l.add(s, idleList)
}
