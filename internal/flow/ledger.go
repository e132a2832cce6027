package flow

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Ledger is what all peers of a server may make it hold together, in accounts.
// Up to half of it everybody has what its own limits give. Above half the share
// of any one account is an eighth of what is free, and falls with it. Above
// three quarters whoever holds the most is ended: Go's collector lets a heap
// grow to twice what lives in it. A nil one has no bound.
type Ledger struct {
	most  int64
	block int64
	used  atomic.Int64
	left  atomic.Int64 // see Forgot

	promised atomic.Int64 // what may be taken soon: see Account.Promise

	mu     sync.Mutex
	large  map[*Account]struct{} // those that have drawn so much that ending them helps
	owners map[string]int64      // what those have drawn, by owner
	swept  time.Time             // when the collector was last asked
}

// NewLedger makes a ledger of most bytes.
func NewLedger(most int64) *Ledger {
	return &Ledger{most: most, block: max(1, min(block, most/1024)), large: map[*Account]struct{}{}, owners: map[string]int64{}}
}

// Used is how many bytes are drawn.
func (l *Ledger) Used() int64 {
	if l == nil {
		return 0
	}
	return l.used.Load()
}

// Forgot notes bytes that an account had not given back when it was closed, where
// it should have; Left is their sum. It is for tests.
func (l *Ledger) Forgot(n int64) {
	if l != nil {
		l.left.Add(n)
	}
}

// Promised is what accounts have promised to take.
func (l *Ledger) Promised() int64 { return l.promised.Load() }

// Left is the sum of what was forgotten.
func (l *Ledger) Left() int64 { return l.left.Load() }

// Pressed reports that half is in use, or promised.
func (l *Ledger) Pressed() bool { return l != nil && l.used.Load()+l.promised.Load() > l.most/2 }

// least is what every account may hold until nothing is free, and half of it even
// then: enough for small calls. Whoever holds less is not worth ending.
func (l *Ledger) least() int64 { return min(1<<20, l.most/64) }

// share is what an account may hold that wants n bytes more.
func (l *Ledger) share(n int) int64 {
	used := l.used.Load() + l.promised.Load()
	free := l.most - used
	switch {
	case used == 0: // one may have something that is larger than all
		return 1<<63 - 1
	case used+int64(n) <= l.most/2:
		return 1<<63 - 1
	case free > 0:
		return max(free/8, l.least())
	}
	return l.least() / 2
}

// room reports whether n bytes more may come without anybody having to end.
func (l *Ledger) room(n int) bool {
	return l.used.Load()+l.promised.Load()+int64(n) <= l.most/4*3
}

// drew notes that a, whose mu is held, has drawn now and not was any more.
func (l *Ledger) drew(a *Account, was, now int64) {
	used := l.used.Add(now - was)
	least := l.least()
	full := now > was && used > l.most/4*3
	if was < least && now < least && !full {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delistLocked(a, was)
	l.listLocked(a, now)
	if full {
		l.relieveLocked()
	}
}

func (l *Ledger) listLocked(a *Account, drawn int64) {
	if drawn < l.least() {
		return
	}
	a.listed = drawn
	l.large[a] = struct{}{}
	if a.owner != "" {
		l.owners[a.owner] += drawn
	}
}

func (l *Ledger) delistLocked(a *Account, drawn int64) {
	if drawn < l.least() {
		return
	}
	a.listed = 0
	delete(l.large, a)
	l.disownLocked(a, drawn)
}

func (l *Ledger) disownLocked(a *Account, drawn int64) {
	if a.owner == "" {
		return
	}
	if l.owners[a.owner] -= drawn; l.owners[a.owner] <= 0 {
		delete(l.owners, a.owner)
	}
}

// patience is how long it is believed that what one holds who was told to end
// comes back at any moment.
const patience = time.Second

// relieveLocked ends those who hold the most, until what they hold is enough: of
// the owner that does, the account that does.
func (l *Ledger) relieveLocked() {
	now := time.Now()
	left := l.used.Load()
	for a := range l.large {
		if !a.ended.IsZero() && now.Sub(a.ended) < patience {
			left -= a.listed
		}
	}
	for left > l.most/4*3 {
		var worst *Account
		var sum int64
		for a := range l.large {
			s := max(a.listed, l.owners[a.owner])
			if a.ended.IsZero() && a.evict != nil && (worst == nil || s > sum || s == sum && a.listed > worst.listed) {
				worst, sum = a, s
			}
		}
		if worst == nil {
			return
		}
		worst.ended = now
		left -= worst.listed
		l.disownLocked(worst, worst.listed)
		worst.owner = ""
		go worst.evict()
		if now.Sub(l.swept) > sweepEvery {
			l.swept = now
			time.AfterFunc(sweepAfter, runtime.GC)
		}
	}
}

// What those held who were ended is garbage a moment later, and the collector would
// let as much again pile up before it looked. So it is asked, but not all the time.
const (
	sweepAfter = 60 * time.Millisecond
	sweepEvery = 300 * time.Millisecond
)
