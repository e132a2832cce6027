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
var heavy = make(turns, max(1, runtime.GOMAXPROCS(0)-1))

// turns has a place for each that may work at once.
type turns chan struct{}

// turnWait bounds the wait for a turn: code of the program may have one, in a codec,
// and may block.
const turnWait = 2 * time.Second

func (p turns) wait() (done func()) {
	select {
	case p <- struct{}{}:
		return p.leave
	default:
	}
	t := time.NewTimer(turnWait)
	defer t.Stop()
	select {
	case p <- struct{}{}:
		return p.leave
	case <-t.C:
		return func() {}
	}
}

func (p turns) leave() { <-p }
