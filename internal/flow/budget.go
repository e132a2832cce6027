package flow

import "sync/atomic"

// Budget is what somebody may hold, as the subscriptions of one connection may. A
// nil one has no bound. What a server's connections hold is its Ledger's.
type Budget struct {
	most int64
	used atomic.Int64
}

// NewBudget makes a budget of most bytes.
func NewBudget(most int64) *Budget { return &Budget{most: most} }

// Used is how many bytes are taken.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}

// Take takes n bytes if they are there.
func (b *Budget) Take(n int) bool {
	if b == nil {
		return true
	}
	if used := b.used.Add(int64(n)); used > b.most && used > int64(n) {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// Force takes n bytes whether they are there or not.
func (b *Budget) Force(n int) { b.Give(-n) }

// Give gives n bytes back.
func (b *Budget) Give(n int) {
	if b != nil {
		b.used.Add(-int64(n))
	}
}

// Pressed reports that half is in use: nobody gets more than the least.
func (b *Budget) Pressed() bool { return b != nil && b.used.Load() > b.most/2 }
