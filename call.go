package typedrpc

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// call is one outgoing call. It is where Conn.mu says it is: in waiting or
// queue (by item), in pending (by id), or nowhere. Whoever takes it out of
// there settles it, once.
type call struct {
	target target // whom to ask for a connection at the next attempt
	spec   *spec
	ctx    context.Context
	conn   *Conn // of the latest attempt
	item   item  // the CALL and its payload

	id       uint64 // while in pending
	deadline time.Time
	nested   bool      // made by a handler of the same connection
	lost     bool      // an earlier attempt may have run
	claimed  bool      // the latest attempt counts among its key's uses
	order    uint64    // the id of an attempt that was not run: its place in line
	exchange *exchange // the items of a stream; nil: none
	attempts int       // that failed, by the policy's count
	resends  int       // after the loss of a session
	policy   *RetryPolicy

	// the result, written before ready is signalled
	ready chan struct{} // capacity 1 for Call, closed for a future
	body  *buf.Buf
	meta  map[string]string
	err   *Error

	mu       sync.Mutex
	there    *Conn                // in whose tables the call is; nil between attempts
	givenUp  func(Outcome) *Error // not nil: no further attempt, this is the error
	timer    *time.Timer          // of the next attempt
	shared   bool                 // a future: ready is closed, watchers are told
	settled  bool                 // shared: ready is closed
	watchers []watcher
	stop     func() bool // shared: unties the call from its context
}

// newCall returns a call to be recycled. Each connection has a pool of its own
// because a channel belongs to the testing/synctest bubble it was made in.
func (c *Conn) newCall() *call {
	if cl, ok := c.spare.Get().(*call); ok {
		return cl
	}
	return &call{ready: make(chan struct{}, 1)}
}

// recycle gives back a call that nobody else knows any more: one that was
// answered, or failed, and whose caller took the signal.
func (cl *call) recycle() {
	if cl.policy != nil {
		return // a timer may still know it
	}
	conn, ready := cl.conn, cl.ready
	*cl = call{ready: ready}
	conn.spare.Put(cl)
}

// begin starts the first attempt. When it cannot even be queued the call is
// settled at once.
func (cl *call) begin() {
	if cl.policy != nil {
		cl.policy.Budget.earn()
	}
	if cl.policy == nil && !cl.shared && cl.exchange == nil {
		// Its caller is the only one who can give up, and does so later.
		cl.there = cl.conn
		if err := cl.conn.start(cl); err != nil {
			cl.settle(nil, nil, err)
		}
		return
	}
	cl.launch(0)
}

// launch makes the attempt with number n on cl.conn.
func (cl *call) launch(n int) {
	conn := cl.conn
	if err := conn.start(cl); err != nil {
		cl.settle(nil, nil, err)
		return
	}
	cl.mu.Lock()
	if cl.attempts != n {
		cl.mu.Unlock() // this attempt is over
		return
	}
	cl.there = conn
	why := cl.givenUp
	cl.mu.Unlock()
	if why == nil {
		return
	}
	if o, ok := conn.abandon(cl); ok { // giveUp came before there was set
		cl.settle(nil, nil, why(o))
	}
}

// aim prepares the CALL for a connection.
func (cl *call) aim(conn *Conn) {
	cl.conn = conn
	cl.nested = false
	cl.item.frame.Flags &= wire.NoItems
	if in := inboundFrom(cl.ctx); in != nil && in.req.Conn == conn {
		cl.nested = true
		if in.ordered {
			cl.item.frame.Flags |= wire.Lane
		}
	}
}

// settle completes the call, or arranges another attempt.
func (cl *call) settle(body *buf.Buf, meta map[string]string, err *Error) {
	if cl.target.key != nil {
		err = cl.attempted(meta, err)
	}
	if err != nil && err.Outcome == NotSent && cl.lost {
		err = err.with(MayHaveRun)
	}
	if err != nil && cl.tryAgain(err) {
		return
	}
	cl.item.body.Release()
	cl.item.body = nil
	if cl.exchange != nil {
		cl.exchange.settle(body, meta, err)
		return
	}
	cl.body, cl.meta, cl.err = body, meta, err
	if !cl.shared {
		cl.ready <- struct{}{} // the last touch: the caller may recycle it now
		return
	}
	cl.mu.Lock()
	cl.settled = true
	watchers := cl.watchers
	cl.watchers = nil
	stop := cl.stop
	cl.mu.Unlock()
	close(cl.ready)
	for _, w := range watchers {
		w.settled()
	}
	if stop != nil {
		stop()
	}
}

// tryAgain arranges another attempt if the policy, the outcome, the budget and
// the deadline allow one.
func (cl *call) tryAgain(err *Error) bool {
	if cl.policy == nil {
		return false
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if cl.givenUp != nil || cl.ctx.Err() != nil {
		return false
	}
	cl.attempts++
	cl.there = nil
	wait, ok := cl.policy.next(err, cl.attempts, cl.repeatable())
	if !ok || !cl.deadline.IsZero() && time.Until(cl.deadline) <= wait {
		return false
	}
	cl.lost = cl.lost || err.Outcome != NotSent
	if cl.target.pick == nil && !cl.conn.rest(cl) {
		return false // the connection ends, and no other would be asked
	}
	// Not 0: timers that are due at once crash the race detector when several
	// goroutines of one testing/synctest bubble start them (Go 1.26).
	cl.timer = time.AfterFunc(max(wait, 1), cl.again)
	return true
}

// again makes the next attempt, on the connection that is picked for it.
func (cl *call) again() {
	cl.conn.wake(cl)
	cl.mu.Lock()
	cl.timer = nil
	why, n := cl.givenUp, cl.attempts
	cl.mu.Unlock()
	if why != nil {
		cl.settle(nil, nil, why(NotSent)) // this attempt; settle knows of the others
		return
	}
	conn, err := cl.target.next(cl.ctx, cl.spec.name)
	if err != nil {
		cl.settle(nil, nil, err)
		return
	}
	cl.aim(conn)
	cl.launch(n)
}

// giveUp ends the call because its context did, or the user cancelled it. The
// call is settled when giveUp returns, or is just being settled elsewhere.
func (cl *call) giveUp(why func(Outcome) *Error) {
	cl.mu.Lock()
	cl.givenUp = why
	timer, there := cl.timer, cl.there
	cl.mu.Unlock()
	switch {
	case timer != nil:
		if timer.Stop() {
			cl.conn.wake(cl)
			cl.settle(nil, nil, why(NotSent)) // the next attempt; settle knows of the others
		} // else again is about to see givenUp
	case there != nil:
		if o, ok := there.abandon(cl); ok {
			cl.settle(nil, nil, why(o))
		} // else the peer's answer is here
	} // else launch is about to see givenUp
}

// wait returns when the call is settled, which its context's end hurries up.
func (cl *call) wait() {
	done := cl.ctx.Done()
	if done == nil {
		<-cl.ready
		return
	}
	select {
	case <-cl.ready:
	case <-done:
		cl.giveUp(func(o Outcome) *Error { return ended(cl.ctx, o) })
		<-cl.ready
	}
}

// watcher is told that a future is settled.
type watcher struct {
	ch chan<- int // has room for every call it watches
	n  int
}

func (w watcher) settled() { w.ch <- w.n }

// watch tells w when the call is settled, at once if it is.
func (cl *call) watch(w watcher) {
	cl.mu.Lock()
	settled := cl.settled
	if !settled {
		cl.watchers = append(cl.watchers, w)
	}
	cl.mu.Unlock()
	if settled {
		w.settled()
	}
}

// unwatch forgets the watchers of ch, so that waiting often for a long call
// does not pile up memory.
func (cl *call) unwatch(ch chan<- int) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.watchers = slices.DeleteFunc(cl.watchers, func(w watcher) bool { return w.ch == ch })
}
