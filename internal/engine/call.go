package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Call is one outgoing call. It is where Conn.mu says it is: in waiting or
// queue (by item), in pending (by id), or nowhere. Whoever takes it out of
// there settles it, once.
//
// The exported fields are filled in before Begin or Open. A Call is embedded in a
// record of the API's, which may pool it for its connection: a channel belongs to
// the testing/synctest bubble that it was made in.
type Call struct {
	Conn    *Conn // of the latest attempt
	Ctx     context.Context
	Decl    *Decl
	Key     *replay.Key // of a keyed call; nil: none
	Above   any         // the record that it is embedded in
	Resends int         // how often it is sent again after its session was lost

	FailFast bool  // it does not wait for a link
	Retries  bool  // Owner.Again is asked when it fails
	Roams    bool  // Owner.Next may name another connection
	Shared   bool  // a future: Done is closed, watchers are told
	Depth    int16 // of its payload, see Measure

	item    item
	content content // the CALL and its payload

	id       uint64 // while in pending
	rank     uint64 // of the latest attempt among the connection's, by when they were begun
	passed   bool   // it went before a larger one that waited
	lack     string // what it had waited for when it was given up, if that was the peer's doing
	deadline time.Time
	within   *Inbound      // the handler of the same connection that makes it; nil: none does
	answered int32         // bytes of its answers that count as the handler's …
	answer   *counted      // … or, of a future, as the futures'
	lost     bool          // an earlier attempt may have run
	unmade   bool          // the latest attempt is a retry that has not left
	claimed  bool          // the latest attempt counts among its key's uses
	stream   *Stream       // the items of a stream; nil: none
	attempts int           // that failed, by the policy's count …
	failed   *status.Error // … the last one with this
	resends  int           // after the loss of a session
	counted  int           // bytes of the connection's account
	told     uint32        // the last outage in which it was logged that it waits …
	began    time.Time     // … which is since then; zero: it had a link. With a Recorder: when it began

	// the result, written before ready is signalled
	ready chan struct{} // capacity 1 for Call, closed for a future
	body  *buf.Buf
	meta  map[string]string
	err   *status.Error

	mu       sync.Mutex
	there    *Conn                              // in whose tables the call is; nil between attempts
	givenUp  func(status.Outcome) *status.Error // not nil: no further attempt, this is the error
	timer    *time.Timer                        // of the next attempt
	settled  bool                               // Shared: ready is closed
	watchers []watcher
	stop     func() bool // shared: unties the call from its context
}

// Init makes what a new record needs, once.
func (cl *Call) Init(shared bool) {
	cl.Shared = shared
	if shared {
		cl.ready = make(chan struct{})
	} else {
		cl.ready = make(chan struct{}, 1)
	}
}

// Reset makes a call that nobody else knows any more, one whose caller took the
// signal and which never retried, one to be used again.
func (cl *Call) Reset() { *cl = Call{ready: cl.ready} }

// Begin starts the first attempt: it takes a reference of body and never waits.
// When the call cannot even be queued it is settled at once.
func (cl *Call) Begin(body *buf.Buf, meta map[string]string) {
	cl.prepare(body, meta)
	cl.start()
}

func (cl *Call) prepare(body *buf.Buf, meta map[string]string) {
	cl.deadline, _ = cl.Ctx.Deadline()
	if cl.Conn.config.Recorder != nil {
		cl.began = time.Now()
	}
	cl.item.call, cl.item.ordered, cl.item.depth = cl, cl.Decl.Serial, cl.Depth
	cl.content = content{wire.Frame{Type: wire.Call, Method: cl.Decl.Name, Meta: meta}, body.Retain()}
	cl.item.content = &cl.content
	cl.item.cost = body.Len() + flow.MetaSize(meta) + flow.MessageOverhead
	cl.aim(cl.Conn)
}

func (cl *Call) start() {
	if !cl.Retries && !cl.Shared && cl.stream == nil {
		// Its caller is the only one who can give up, and does so later.
		cl.there = cl.Conn
		if err := cl.Conn.start(cl); err != nil {
			cl.Settle(nil, nil, err)
		}
		return
	}
	cl.launch(0)
}

// Done is closed when a shared call is settled.
func (cl *Call) Done() <-chan struct{} { return cl.ready }

// Result is how the call ended, with a reference to its body, after Wait or Done.
func (cl *Call) Result() (body *buf.Buf, meta map[string]string, err *status.Error) {
	return cl.body, cl.meta, cl.err
}

// Untie gives a shared call what unties it from its context when it is settled.
// Called before Begin.
func (cl *Call) Untie(stop func() bool) { cl.stop = stop }

// launch makes the attempt with number n on cl.Conn.
func (cl *Call) launch(n int) {
	conn := cl.Conn
	if err := conn.start(cl); err != nil {
		cl.Settle(nil, nil, err)
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
		cl.Settle(nil, nil, why(o))
	}
}

// aim prepares the CALL for a connection.
func (cl *Call) aim(conn *Conn) {
	cl.Conn = conn
	cl.within = nil
	cl.content.frame.Flags &= wire.NoItems
	if in := From(cl.Ctx); in.nestedOn(conn) {
		cl.within = in
		if in.ordered {
			cl.content.frame.Flags |= wire.Lane
		}
	}
}

// Settle completes the call, or arranges another attempt.
func (cl *Call) Settle(body *buf.Buf, meta map[string]string, err *status.Error) {
	if cl.counted > 0 {
		cl.Conn.account.Give(cl.counted)
		cl.counted = 0
	}
	cl.unspend()
	if cl.Key != nil {
		err = cl.attempted(meta, err)
	}
	if err != nil && err.Outcome == status.NotSent && cl.lost {
		err = err.With(status.MayHaveRun)
	}
	if err != nil && cl.tryAgain(err) {
		return
	}
	cl.content.body.Release()
	cl.content.body = nil
	if c := cl.Conn; c != nil && c.config.Recorder != nil { // nil: a future that never got as far
		cl.record(err)
	}
	if cl.stream != nil {
		cl.stream.settle(body, meta, err)
		return
	}
	cl.body, cl.meta, cl.err = body, meta, err
	if !cl.Shared {
		cl.ready <- struct{}{} // the last touch: the caller may recycle it now
		return
	}
	cl.mu.Lock()
	cl.settled = true
	watchers := cl.watchers
	cl.watchers = nil
	stop := cl.stop
	cl.stop = nil // it holds what it was tied with
	cl.mu.Unlock()
	close(cl.ready)
	for _, w := range watchers {
		w.settled()
	}
	if stop != nil {
		stop()
	}
}

// Bare drops the payload, between attempts.
func (cl *Call) Bare() {
	cl.item.cost -= cl.content.body.Len()
	cl.content.body.Release()
	cl.content.body = buf.Sized(0)
}

// GiveUp ends the call because its context did, or the user cancelled it. The
// call is settled when giveUp returns, or is just being settled elsewhere.
func (cl *Call) GiveUp(reason func(status.Outcome) *status.Error) {
	why := func(o status.Outcome) *status.Error { return cl.lacking(reason(o)) }
	cl.mu.Lock()
	cl.givenUp = why
	timer, there := cl.timer, cl.there
	cl.mu.Unlock()
	switch {
	case timer != nil:
		if timer.Stop() {
			cl.Conn.wake(cl)
			cl.Settle(nil, nil, why(status.NotSent)) // the next attempt; settle knows of the others
		} // else again is about to see givenUp
	case there != nil:
		if o, ok := there.abandon(cl); ok {
			cl.Settle(nil, nil, why(o))
		} // else the peer's answer is here
	} // else launch is about to see givenUp
}

// Wait returns when the call is settled, which its context's end hurries up.
func (cl *Call) Wait() {
	done := cl.Ctx.Done()
	if done == nil {
		<-cl.ready
		return
	}
	select {
	case <-cl.ready:
	case <-done:
		cl.GiveUp(cl.Expired)
		<-cl.ready
	}
}

// Expired is the error of a call whose context has ended, for GiveUp.
func (cl *Call) Expired(o status.Outcome) *status.Error { return cl.Conn.GaveUp(cl.Ctx, o) }

// Unlinked is e, of who does not wait any more for a shared call that goes on, with what
// keeps the call from going on.
func (cl *Call) Unlinked(e *status.Error) *status.Error {
	cl.mu.Lock()
	there, settled := cl.there, cl.settled
	cl.mu.Unlock()
	if there == nil || settled {
		return e
	}
	return there.unlinked(e)
}

// watcher is told that a future is settled.
type watcher struct {
	ch chan<- int // has room for every call it watches
	n  int
}

func (w watcher) settled() { w.ch <- w.n }

// Watch has n sent to ch when the call is settled, at once if it is. ch has room
// for every call that it watches.
func (cl *Call) Watch(ch chan<- int, n int) {
	w := watcher{ch, n}
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

// Unwatch forgets the watchers of ch, so that waiting often for a long call
// does not pile up memory.
func (cl *Call) Unwatch(ch chan<- int) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.watchers = slices.DeleteFunc(cl.watchers, func(w watcher) bool { return w.ch == ch })
}

// claim makes the attempt that is about to begin one of the uses of the call's
// key. An earlier attempt that is known not to have run is none.
func (cl *Call) claim(cache string) *status.Error {
	k := cl.Key
	if cl.claimed {
		k.Release()
		cl.claimed = false
	}
	if err := k.Claim(cache, cl.lost); err != nil {
		return err
	}
	cl.claimed = true
	return nil
}

// attempted is told how an attempt of a keyed call ended.
func (cl *Call) attempted(meta map[string]string, err *status.Error) *status.Error {
	if err != nil && err.Outcome == status.Answered && meta[replay.MetaOutcome] == replay.OutcomeUnknown {
		err = err.With(status.MayHaveRun)
	}
	if cl.claimed && err != nil && err.Outcome == status.NotSent {
		cl.Key.Release()
	}
	cl.claimed = false
	return err
}

// Repeatable reports whether the call may be made again when it may have run.
func (cl *Call) Repeatable() bool {
	if k := cl.Key; k != nil {
		return k.Remembered()
	}
	return cl.Decl.Idempotent
}
