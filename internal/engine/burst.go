package engine

import (
	"runtime"
	"sync/atomic"
	"time"
)

// crowd is how many handlers of a connection may begin before others have their
// turns: who asks for a thousand at once has no more of the processors than who
// asks for one.
const crowd = 1 << doublings

// doublings lead from one to a crowd.
const doublings = 5

// slowHandlers is for how long the handlers of a crowd may keep a processor, by what they took
// lately: less than a preemption does. Of sixty connections, each with a crowd, that is
// much: where who gave way has waited for lag, it is a tenth, unless they are so fast that what
// the queues are long of is not handlers.
const (
	slowHandlers = 300 * time.Microsecond
	lag          = 2 * time.Millisecond
	notFast      = 20 * time.Microsecond
)

// burst is how many handlers of a connection may be begun and not have returned before
// those that begin them give way after each. It begins with one, and doubles with each
// handler that was fast, up to a crowd, as long as so many of its kind are fast together; after a slow one
// it is what they are: thirty-two that take a third of a millisecond stand in the processors'
// queues for a good part of a second, and whoever comes then is behind them. Whether a handler works or
// waits nobody can tell; to give way before those that wait costs nothing.
type burst struct{ state atomic.Uint32 } // how often it has doubled, and lagged

// lagged is said of the last that gave way.
const lagged = 1 << 8

func (b *burst) most() int { return 1 << (b.state.Load() &^ lagged) }

// looks reports whether the handler of the call with this id is to be looked at: each
// until there is a crowd, and then one of eight, because clocks cost.
func (b *burst) looks(id uint64) bool { return id%8 == 0 || b.state.Load()&^lagged < doublings }

// note is told how long a handler took. Two at once may be taken for one, which is of no
// matter.
func (b *burst) note(took time.Duration) {
	now := b.state.Load()
	late, slow := now&lagged, slowHandlers
	if late != 0 && took >= notFast {
		slow /= 10
	}
	n := min(now&^lagged+1, doublings)
	for n > 0 && took<<n >= slow {
		n--
	}
	b.state.Store(n | late)
}

// giveWay lets others have their turns.
func (b *burst) giveWay() {
	began := time.Now()
	runtime.Gosched()
	doubled := b.state.Load() &^ lagged
	if time.Since(began) >= lag {
		doubled |= lagged
	}
	b.state.Store(doubled)
}
