package mux

import "sync/atomic"

// DefaultBudget is the receive memory that a process commits itself to, in
// bytes.
const DefaultBudget = 256 << 20

// Budget bounds the credit that links have granted and that has not been read
// yet: what peers could make the process hold. It is shared by the links of a
// process and safe for concurrent use.
//
// The bound is soft by MinWindow for each session: that much is granted even
// when the budget is used up, since a session without credit could never go on.
//
// What sessions have queued for sending is counted beside it: once that is a
// quarter of the limit, each session queues little.
type Budget struct {
	limit  int64
	used   atomic.Int64
	queued atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used returns the bytes that are committed now.
func (b *Budget) Used() int64 { return b.used.Load() }

// Queued returns the bytes that wait to be sent.
func (b *Budget) Queued() int64 { return b.queued.Load() }

// Limit returns the bytes that the budget allows.
func (b *Budget) Limit() int64 { return b.limit }

// reserve commits up to want bytes, but floor in any case, and returns how many.
func (b *Budget) reserve(want, floor int64) int64 {
	for {
		used := b.used.Load()
		n := max(min(want, b.limit-used), min(floor, want), 0)
		if n == 0 || b.used.CompareAndSwap(used, used+n) {
			return n
		}
	}
}

// commit takes n bytes whatever the limit says.
func (b *Budget) commit(n int64) { b.used.Add(n) }

// release gives n bytes back.
func (b *Budget) release(n int64) { b.used.Add(-n) }

// short tells that idle sessions should give credit back.
func (b *Budget) short() bool { return b.used.Load() > b.limit/2 }

// crowded tells that sessions should queue little for sending.
func (b *Budget) crowded() bool { return b.queued.Load() > b.limit/4 }

// share returns the window that a session may have while the budget is short, in
// bytes: less, the less is left, so that there is always some for the next one.
func (b *Budget) share() int { return int(max(b.limit-b.used.Load(), 0) / 64) }

// spare returns how much a window may grow by, in bytes: sessions that are fast leave half
// of the budget, but for what is theirs while it is short, to the next ones.
func (b *Budget) spare() int { return max(int(b.limit/2-b.used.Load()), b.share()) }

// exhausted tells that not even the least windows of more sessions can be
// afforded.
func (b *Budget) exhausted() bool { return b.used.Load() >= b.limit+b.limit/2 }
