package flow

import (
	"sync"
	"sync/atomic"
	"time"
)

// Account is what one connection holds of a Ledger, or whatever else a peer can
// make a server hold: a link that is opening, a POST. It counts what the memory
// costs, records included, and not what a peer was promised. A nil one, and one
// of no ledger, has no bound.
//
// It draws on its ledger in blocks, so that most changes touch nothing that is
// shared. All methods may be called by any goroutine, and none waits.
type Account struct {
	ledger *Ledger
	evict  func()
	used   atomic.Int64
	drawn  atomic.Int64 // of the ledger; changed under mu
	served atomic.Int64 // of used, roughly: see Serve
	serves int64        // the same, exactly

	mu     sync.Mutex // before Ledger.mu
	closed bool
	left   int64 // of used, where it is closed: what the ledger's left counts of it

	// under Ledger.mu
	prev, next *Account
	owner      string
	told       time.Duration // when evict was called, since Ledger.began; 0: it was not
}

// block is what accounts draw at once, of a ledger that is large enough.
const block = 16 << 10

// Open makes a an account of the ledger, nil for no bound. evict is called, on a
// goroutine of its own and once at most, when the ledger is nearly full and a
// holds the most of it: whoever has the account then ends, and closes it.
func (a *Account) Open(l *Ledger, evict func()) {
	if a.ledger, a.evict = l, evict; l != nil {
		l.enter(a)
	}
}

// Own says whom the account belongs to, "" for nobody who is known: all accounts
// of one owner are looked at together.
func (a *Account) Own(owner string) {
	if a == nil || a.ledger == nil {
		return
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	a.owner = owner
}

// Owner is what Own was told.
func (a *Account) Owner() string {
	if a == nil || a.ledger == nil {
		return ""
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	return a.owner
}

// Take takes n bytes if the ledger has them, and the account's share of it.
func (a *Account) Take(n int) bool {
	if !a.Has(n) {
		return false
	}
	a.Force(n)
	return true
}

// Has reports whether Take would take n bytes.
func (a *Account) Has(n int) bool {
	return a == nil || a.ledger == nil || a.ledger.allows(a.used.Load()+int64(n), n)
}

// Fits reports whether n bytes are no more than most, and than it may hold now of
// what is not small.
func (a *Account) Fits(n, most int) bool {
	return n <= most && (a == nil || a.ledger == nil || a.ledger.allows(int64(n), small+1))
}

// Force takes n bytes whether they are there or not.
func (a *Account) Force(n int) {
	if a == nil || a.ledger == nil || n == 0 {
		return
	}
	used, drawn := a.used.Add(int64(n)), a.drawn.Load()
	if used > drawn || used <= 0 || drawn-used > 4*a.ledger.block { // a closed one has drawn nothing
		a.settle()
	}
}

// Give gives n bytes back.
func (a *Account) Give(n int) { a.Force(-n) }

// Serve says that n bytes of what was taken wait for this side and not for the
// peer: a handler has them. Served gives them back. One goroutine at a time may
// call these two.
func (a *Account) Serve(n int) {
	if a == nil || a.ledger == nil {
		return
	}
	a.serves += int64(n)
	if d := a.serves - a.served.Load(); max(d, -d) > a.ledger.block {
		a.served.Store(a.serves)
	}
}

// Served gives back n bytes that Serve told of, but for kept of them, or as many
// more, that wait for the peer from now on.
func (a *Account) Served(n, kept int) {
	a.Serve(-n)
	a.Give(n - kept)
}

// Promise says that n bytes more, or less, may be taken soon: the shares of all
// are smaller for it, but nobody is ended.
func (a *Account) Promise(n int) {
	if a != nil && a.ledger != nil && n != 0 {
		a.ledger.promised.Add(int64(n))
	}
}

// Room reports whether n bytes more may come without anybody having to end for
// them.
func (a *Account) Room(n int) bool { return a == nil || a.ledger == nil || a.ledger.room(n) }

// Used is how many bytes it holds.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.used.Load()
}

// Pressed reports that half of the ledger is in use: nobody gets more than the
// least.
func (a *Account) Pressed() bool { return a != nil && a.ledger.Pressed() }

// Close gives everything back, for good: what is taken and given later counts
// nothing. What had not been given back, or was still to be served, and does not
// come back later, is the ledger's Left.
func (a *Account) Close() {
	if a == nil || a.ledger == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	a.ledger.drew(-a.drawn.Swap(0)) // before it is asked what is used: Force looks the other way round
	a.leftLocked()
	a.ledger.left.Add(max(a.serves, -a.serves))
	a.ledger.leave(a)
}

// leftLocked notes what is used of a closed account.
func (a *Account) leftLocked() {
	now := a.used.Load()
	a.ledger.left.Add(now - a.left)
	a.left = now
}

// settle draws what is used, in blocks.
func (a *Account) settle() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		a.leftLocked()
		return
	}
	used, was, block := a.used.Load(), a.drawn.Load(), a.ledger.block
	now := was
	switch {
	case used <= 0:
		now = 0
	case used > was, was-used > 4*block:
		now = (used + block - 1) / block * block
		if was > 0 && used-was < block { // in small steps, which come and go
			now += block
		}
	}
	if now != was {
		a.drawn.Store(now)
		a.ledger.drew(now - was)
	}
}
