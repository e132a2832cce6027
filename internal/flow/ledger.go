package flow

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Ledger is what all peers of a server may make it hold together, in accounts.
// Up to half of it everybody has what its own limits give. Above half the share
// of any one account is an eighth of what is free below three quarters, and falls
// with it. Above nine sixteenths whoever holds the most is ended: Go's collector
// lets a heap grow to twice what lives in it, and keeps what it had from the
// system. A nil one has no bound.
type Ledger struct {
	most  int64
	block int64
	began time.Time
	_     [64]byte // what follows is written all the time: a cache line of its own
	used  atomic.Int64
	left  atomic.Int64 // see Left

	promised atomic.Int64 // what may be taken soon: see Account.Promise

	mu     sync.Mutex
	open   *Account  // all of them, a ring
	looked time.Time // when it was last seen who holds what …
	since  int64     // … and what was drawn since then
	fresh  int64     // drawn since the collector was last asked …
	swept  time.Time // … which was then
	told   int64     // accounts whose holders were told to end
}

// NewLedger makes a ledger of most bytes.
func NewLedger(most int64) *Ledger {
	return &Ledger{most: most, block: max(1, min(block, most/1024)), began: time.Now()}
}

// Used is how many bytes are drawn.
func (l *Ledger) Used() int64 {
	if l == nil {
		return 0
	}
	return l.used.Load()
}

// Evicted is how many accounts were ended because the ledger was nearly full.
func (l *Ledger) Evicted() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

// Most is what the ledger has.
func (l *Ledger) Most() int64 { return l.most }

// Promised is what accounts have promised to take.
func (l *Ledger) Promised() int64 { return l.promised.Load() }

// Left is the sum of what closed accounts were never given back. It is for tests.
func (l *Ledger) Left() int64 { return l.left.Load() }

// Pressed reports that half is in use, or promised.
func (l *Ledger) Pressed() bool { return l != nil && l.used.Load()+l.promised.Load() > l.most/2 }

// least is what every account may hold until nothing is free, and half of it even
// then.
func (l *Ledger) least() int64 { return min(1<<20, l.most/64) }

// small is the most of a small message with its handler. Those are taken even when
// nothing is free, up to as many as a connection may have: to hold many is no
// fault, where this side is slow, and whoever does can be ended.
const small = 16 << 10

func (l *Ledger) leastSmall() int64 { return min(16<<20, l.most/16) }

// share is what an account may hold that wants n bytes more.
func (l *Ledger) share(n int) int64 {
	used := l.used.Load() + l.promised.Load()
	free := l.most/4*3 - used
	switch {
	case used == 0: // one may have something that is larger than all
		return 1<<63 - 1
	case used+int64(n) <= l.most/2:
		return 1<<63 - 1
	case n <= small:
		return max(free/8, l.leastSmall())
	case free > 0:
		return max(free/8, l.least())
	}
	return l.least() / 2
}

// full is where accounts begin to be ended.
func (l *Ledger) full() int64 { return l.most / 16 * 9 }

// allows reports whether an account may hold sum bytes that wants n of them now.
// So little as everybody always may is allowed without a look at what all have.
func (l *Ledger) allows(sum int64, n int) bool { return sum <= l.least()/2 || sum <= l.share(n) }

// room reports whether n bytes more may come without anybody having to end. What is large
// needs an eighth: or it would not come to a small ledger, empty as that may be.
func (l *Ledger) room(n int) bool {
	return l.used.Load()+l.promised.Load()+min(int64(n), l.most/8) <= l.full()
}

// enter and leave keep the ring of accounts.
func (l *Ledger) enter(a *Account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		a.prev, a.next, l.open = a, a, a
		return
	}
	a.prev, a.next = l.open.prev, l.open
	a.prev.next, a.next.prev = a, a
}

func (l *Ledger) leave(a *Account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == a {
		l.open = a.next
	}
	if a.next == a {
		l.open = nil
	}
	a.prev.next, a.next.prev = a.next, a.prev
	a.prev, a.next = nil, nil
}

// accounts ranges over those that are open. Under mu.
func (l *Ledger) accounts(yield func(*Account) bool) {
	for a := l.open; a != nil; {
		if !yield(a) {
			return
		}
		if a = a.next; a == l.open {
			return
		}
	}
}

// drew notes that an account has drawn n bytes more, or less.
func (l *Ledger) drew(n int64) {
	if used := l.used.Add(n); n > 0 && used > l.most/2 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lookLocked(n)
	}
}

const (
	// patience is how long it is believed that what one holds who was told to end
	// comes back at any moment.
	patience = time.Second
	// lookEvery is how long nobody else is ended, unless much more is drawn.
	lookEvery = 10 * time.Millisecond
	// sweepEvery is how often the collector is asked at most.
	sweepEvery = 250 * time.Millisecond
)

// lookLocked is called when more than half is in use and n bytes more were drawn.
func (l *Ledger) lookLocked(n int64) {
	now := time.Now()
	l.since += n
	if l.used.Load() > l.full() && (l.since > l.most/64 || now.Sub(l.looked) >= lookEvery) {
		l.since, l.looked = 0, now
		l.relieveLocked(now)
	}
	// Where much comes and goes, most of a heap of twice what lives is dead: the
	// collector would let it, so it is asked before.
	if l.fresh += n; l.fresh > l.most/8 && now.Sub(l.swept) >= sweepEvery {
		l.fresh, l.swept = 0, now
		go runtime.GC()
	}
}

// relieveLocked ends those who hold the most, until what they hold is enough: of
// the owner that does, the account that does. What waits for handlers of ours
// weighs an eighth of what waits for a peer to go on, or to read: on a busy
// machine the calls of those who do nothing wrong pile up as well.
func (l *Ledger) relieveLocked(now time.Time) {
	left, stuck := l.used.Load(), int64(0)
	owners := map[string]int64{}
	var held []holding
	for a := range l.accounts {
		drawn := a.drawn.Load()
		switch {
		case drawn == 0 || a.evict == nil:
		case a.told > 0:
			if now.Sub(l.began)-a.told < patience {
				left -= drawn
			} else {
				stuck += drawn
			}
		default:
			h := holding{a, drawn, max(drawn/8, drawn-a.served.Load()/8*7)}
			held = append(held, h)
			if a.owner != "" {
				owners[a.owner] += h.weight
			}
		}
	}
	for left > l.full() && len(held) > 0 {
		worst, most := 0, int64(-1)
		for i, h := range held {
			sum := max(h.weight, owners[h.owner])
			if sum > most || sum == most && h.weight > held[worst].weight {
				worst, most = i, sum
			}
		}
		h := held[worst]
		held[worst] = held[len(held)-1]
		held = held[:len(held)-1]
		if stuck > l.full()/2 && h.drawn <= l.least()/2 {
			continue // what those hold who do not go is not the fault of this one
		}
		left -= h.drawn
		if h.owner != "" {
			owners[h.owner] -= h.weight
		}
		h.told = max(now.Sub(l.began), 1)
		l.told++
		go h.evict()
	}
}

// holding is what an account has drawn, and how much of it is held against it.
type holding struct {
	*Account
	drawn, weight int64
}
