package engine

import (
	"sync/atomic"
	"time"
)

// crowd is how many handlers of a connection may begin before others have their
// turns: who asks for a thousand at once has no more of the processors than who
// asks for one.
const crowd = 1 << doublings

// doublings lead from one to a crowd.
const doublings = 5

// slowHandler is from when on a handler is: a crowd of those that are faster keeps the
// processors for less than a preemption does.
const slowHandler = 300 * time.Microsecond

// burst is how many handlers of a connection may be begun and not have returned before
// those that begin them give way after each. It begins with one, doubles with each
// handler that was fast, up to a crowd, and is one again after a slow one: thirty-two
// of those stand in the processors' queues for a good part of a second, and whoever
// comes then is behind them. Whether a handler works or waits nobody can tell;
// to give way before those that wait costs nothing.
type burst struct{ doubled atomic.Uint32 }

func (b *burst) most() int { return 1 << b.doubled.Load() }

// looks reports whether the handler of the call with this id is to be looked at: each
// until there is a crowd, and then one of eight, because clocks cost.
func (b *burst) looks(id uint64) bool { return id%8 == 0 || b.doubled.Load() < doublings }

// note is told how long a handler took. Two at once may be taken for one, which is of no
// matter.
func (b *burst) note(took time.Duration) {
	if took >= slowHandler {
		b.doubled.Store(0)
		return
	}
	b.doubled.Store(min(b.doubled.Load()+1, doublings))
}
