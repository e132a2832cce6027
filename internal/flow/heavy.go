package flow

import (
	"runtime"
	"time"
)

// HeavyFrom is how large a message is whose encoding and copying have turns: they
// keep a processor busy for a good part of a millisecond, which is what a small call
// waits for behind each of them.
const HeavyFrom = 256 << 10

// Heavy waits for a turn at work on a large message. done ends it.
func Heavy() (done func()) { return heavy.wait() }

// heavy is the process's: what they want is its processors, of which one is left to
// others. With two at work on two, small calls waited for both.
var heavy = newTurns(max(1, runtime.GOMAXPROCS(0)-1))

// BulkFrom is how much has turns too, of which there are more than processors: one of these
// is nothing, but who waits behind hundreds of them, in the scheduler's line, waits for all. With
// turns most of them are not in that line (measured: a thousand readers of a stream of 60 kB items
// had a small call take a second).
const BulkFrom = 16 << 10

// Bulk waits for a turn at work on BulkFrom bytes or more. done ends it. Nobody has both, and
// nobody waits for a peer with one.
func Bulk() (done func()) { return bulk.wait() }

var bulk = newTurns(2 * runtime.GOMAXPROCS(0))

// AtBulk is how many turns are had. It is for tests.
func AtBulk() int { return len(bulk.had) }

// turns has a place for each that may work at once.
type turns struct {
	had   chan struct{}
	leave func()
}

func newTurns(n int) *turns {
	had := make(chan struct{}, n)
	return &turns{had, func() { <-had }}
}

// turnWait bounds the wait for a turn: code of the program may have one, in a codec,
// and may block.
const turnWait = 2 * time.Second

func (p *turns) wait() (done func()) {
	select {
	case p.had <- struct{}{}:
		return p.leave
	default:
	}
	t := time.NewTimer(turnWait)
	defer t.Stop()
	select {
	case p.had <- struct{}{}:
		return p.leave
	case <-t.C:
		return func() {}
	}
}
