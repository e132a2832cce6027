package typedrpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// call is one outgoing call. It is where Conn.mu says it is: in waiting or
// queue (by item), in pending (by id), or nowhere. Whoever takes it out of
// there settles it, once.
type call struct {
	target target // whom to ask for a connection at the next attempt
	spec   *spec
	ctx    context.Context
	conn   *Conn // of the current attempt; under mu between attempts
	item   item  // the CALL and its payload

	id       uint64 // while in pending
	deadline time.Time
	nested   bool // made by a handler of the same connection
	attempts int
	policy   *RetryPolicy

	// the result, written before ready is signalled
	ready chan struct{} // capacity 1 for Call, closed for a future
	body  *buf.Buf
	meta  map[string]string
	err   *Error

	mu       sync.Mutex
	givenUp  func(Outcome) *Error // not nil: no further attempt, this is the error
	timer    *time.Timer          // of the next attempt
	shared   bool                 // a future: ready is closed, watchers are told
	settled  bool                 // shared: ready is closed
	watchers []watcher
	stop     func() bool // shared: unties the call from its context
}

// tombstone stands in pending for a call that was cancelled, so that its slot
// is not free before the peer's terminal frame.
var tombstone = new(call)

var calls = sync.Pool{New: func() any { return &call{ready: make(chan struct{}, 1)} }}

// recycle gives back a call that nobody else knows any more: one that was
// answered, or failed, and whose caller took the signal.
func (cl *call) recycle() {
	if cl.policy != nil {
		return // a timer may still know it
	}
	ready := cl.ready
	*cl = call{ready: ready}
	calls.Put(cl)
}

// begin starts the first attempt. When it cannot even be queued the call is
// settled at once.
func (cl *call) begin() {
	if cl.policy != nil {
		cl.policy.Budget.earn()
	}
	cl.launch(cl.conn)
}

// launch makes one attempt on conn.
func (cl *call) launch(conn *Conn) {
	if err := conn.start(cl); err != nil {
		cl.settle(nil, nil, err)
		return
	}
	if cl.policy == nil && !cl.shared {
		return // its caller cannot have given up yet, and may have it recycled
	}
	cl.mu.Lock()
	why := cl.givenUp
	cl.mu.Unlock()
	if why == nil {
		return
	}
	if o, ok := conn.abandon(cl); ok { // giveUp came before start
		cl.settle(nil, nil, why(o))
	}
}

// settle completes the call, or arranges another attempt.
func (cl *call) settle(body *buf.Buf, meta map[string]string, err *Error) {
	if err != nil && cl.tryAgain(err) {
		return
	}
	cl.body, cl.meta, cl.err = body, meta, err
	cl.item.body.Release()
	cl.item.body = nil
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
	if cl.conn.isClosing() && cl.target.pick == nil {
		return false
	}
	cl.attempts++
	wait, ok := cl.policy.next(err, cl.attempts, cl.spec.idempotent)
	if !ok || !cl.deadline.IsZero() && time.Until(cl.deadline) <= wait {
		return false
	}
	cl.err = err // what the call ends with if it is given up meanwhile
	cl.timer = time.AfterFunc(wait, cl.again)
	return true
}

// again makes the next attempt, on the connection that is picked for it.
func (cl *call) again() {
	cl.mu.Lock()
	cl.timer = nil
	why := cl.givenUp
	cl.mu.Unlock()
	if why != nil {
		cl.settle(nil, nil, why(cl.err.Outcome))
		return
	}
	conn, err := cl.target.next(cl.ctx, cl.spec.name)
	if err != nil {
		cl.settle(nil, nil, err)
		return
	}
	cl.mu.Lock()
	cl.conn = conn
	cl.mu.Unlock()
	cl.launch(conn)
}

// giveUp ends the call because its context did, or the user cancelled it. The
// call is settled when giveUp returns, or is just being settled elsewhere.
func (cl *call) giveUp(why func(Outcome) *Error) {
	cl.mu.Lock()
	cl.givenUp = why
	timer, conn := cl.timer, cl.conn
	cl.mu.Unlock()
	if timer != nil {
		if timer.Stop() {
			cl.settle(nil, nil, why(cl.err.Outcome))
		} // else again is about to see givenUp
		return
	}
	if o, ok := conn.abandon(cl); ok {
		cl.settle(nil, nil, why(o))
	} // else the peer's answer is here, or launch is about to see givenUp
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

func (c *Conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// unsentLocked returns the error of a call or notification that cannot be
// taken at all now; nil: it can be sent, or wait for a link.
func (c *Conn) unsentLocked(kind Kind, failFast, nested bool) *Error {
	switch {
	case c.posted:
		return Errorf(FailedPrecondition, "this request came over HTTP POST: there is no connection to call back on")
	case c.closing:
		return &Error{Code: Unavailable, Message: "the connection is closed", cause: c.err}
	case c.drained != nil && !nested:
		return Errorf(Unavailable, "the connection is shutting down")
	case c.sess == nil && !c.heals:
		return Errorf(Unavailable, "the connection is gone")
	case c.sess == nil && (failFast || nested):
		return Errorf(Unavailable, "no connection at the moment")
	case c.away && kind == KindCall && (failFast || nested || !c.heals):
		return Errorf(Unavailable, "the peer is shutting down")
	}
	return nil
}

// start queues the call for its next attempt. It never waits.
func (c *Conn) start(cl *call) *Error {
	c.mu.Lock()
	if err := c.unsentLocked(KindCall, cl.target.opts.FailFast, cl.nested); err != nil {
		c.mu.Unlock()
		return err
	}
	if err := c.tooBigLocked(cl); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.slotLocked() {
		c.slots++
		c.queue.push(&cl.item)
	} else if cl.nested {
		n := c.peer.Calls
		c.mu.Unlock()
		return Errorf(ResourceExhausted, "the peer takes %d calls at once and all are in use; a handler of the same connection must not wait for one", n)
	} else {
		c.waiting.push(&cl.item)
	}
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	return nil
}

// slotLocked reports whether one more call may go out now.
func (c *Conn) slotLocked() bool {
	return c.sess != nil && !c.away && c.waiting.len == 0 && uint64(c.slots) < c.peer.Calls
}

func (c *Conn) tooBigLocked(cl *call) *Error {
	limit := cl.spec.sizeLimit(int(min(c.peer.Message, maxMessageCeiling)))
	if n := cl.item.body.Len(); n > limit {
		return Errorf(ResourceExhausted, "the request of %q has %d bytes, at most %d can be sent", cl.spec.name, n, limit)
	}
	return nil
}

// admitLocked moves waiting calls into free slots. It returns those that this
// peer cannot take, to be settled without the lock.
func (c *Conn) admitLocked() (refused refusals) {
	for c.waiting.len > 0 && c.sess != nil && !c.away && uint64(c.slots) < c.peer.Calls {
		it := c.waiting.pop()
		if err := c.tooBigLocked(it.call); err != nil {
			refused = append(refused, refusal{it.call, err})
			continue
		}
		c.slots++
		c.queue.push(it)
	}
	return refused
}

// countCallLocked gives a call its id at the moment it is counted.
func (c *Conn) countCallLocked(it *item, f *wire.Frame, now *time.Time) {
	cl := it.call
	c.nextID++
	f.ID = c.nextID
	cl.id = f.ID
	c.pending[f.ID] = cl
	if !cl.deadline.IsZero() {
		if now.IsZero() {
			*now = time.Now()
		}
		f.TimeLeft = max(1, millis(cl.deadline.Sub(*now)))
	}
	it.body.Retain() // the batch has its own; ours is for another attempt
}

// answered takes a RESULT or FAIL.
func (c *Conn) answered(f *wire.Frame) error {
	c.mu.Lock()
	cl := c.pending[f.ID]
	if cl == nil {
		err := c.offendedLocked()
		c.mu.Unlock()
		return err
	}
	delete(c.pending, f.ID)
	c.slots--
	if f.Type == wire.Fail && c.sendLaterLocked(cl, f) {
		cl = tombstone
	}
	refused := c.admitLocked()
	wake, sess := c.wakeLocked(), c.sess
	c.checkIdleLocked()
	c.mu.Unlock()

	if wake {
		sess.Wake()
	}
	refused.settleEach()
	switch {
	case cl == tombstone:
	case f.Type == wire.Fail:
		cl.settle(nil, f.Meta, fromWire(f, c.codec))
	default:
		cl.settle(buf.Copy(f.Payload), f.Meta, nil)
	}
	return nil
}

// sendLaterLocked keeps a call that a draining server refused for the next
// session.
func (c *Conn) sendLaterLocked(cl *call, f *wire.Frame) bool {
	if cl == tombstone || !c.heals || !c.away || f.Flags&wire.NotRun == 0 || Code(f.Code) != Unavailable {
		return false
	}
	if cl.nested || cl.target.opts.FailFast {
		return false
	}
	cl.id = 0
	c.waiting.push(&cl.item)
	return true
}

// abandon takes a call out of wherever it is and tells the peer. ok is false
// if it is nowhere: then it is being settled.
func (c *Conn) abandon(cl *call) (o Outcome, ok bool) {
	c.mu.Lock()
	var wake bool
	var sess *session.Session
	var refused refusals
	switch {
	case cl.item.list == &c.waiting:
		c.waiting.remove(&cl.item)
		o, ok = NotSent, true
	case cl.item.list == &c.queue:
		c.queue.remove(&cl.item)
		c.slots--
		o, ok = NotSent, true
		refused = c.admitLocked()
	case cl.id != 0 && c.pending[cl.id] == cl:
		c.pending[cl.id] = tombstone
		c.queue.push(&item{frame: wire.Frame{Type: wire.Cancel, ID: cl.id}})
		o, ok = MayHaveRun, true
	}
	wake, sess = c.wakeLocked(), c.sess
	c.checkIdleLocked()
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	refused.settleEach()
	return o, ok
}

// taken are calls that were taken out of the tables when a session or the
// connection ended: those that never left and those that may have run.
type taken struct{ notSent, mayHaveRun []*call }

// settle fails them all with cause, each with its own outcome.
func (t taken) settle(cause error) {
	for _, group := range []struct {
		calls   []*call
		outcome Outcome
	}{{t.notSent, NotSent}, {t.mayHaveRun, MayHaveRun}} {
		for _, cl := range group.calls {
			e := *asUnavailable(cause)
			e.Outcome = group.outcome
			cl.settle(nil, nil, &e)
		}
	}
}

type refusal struct {
	call *call
	err  *Error
}

type refusals []refusal

func (r refusals) settleEach() {
	for _, x := range r {
		x.call.settle(nil, nil, x.err)
	}
}

// maxResends bounds how often an Idempotent call without a policy is sent
// again after its connection was lost: a call that kills its server must not
// do so for ever.
const maxResends = 8

// interruptLocked sorts out the calls of a session that ended. With again
// those that may go to the next session wait for it, in their old order.
func (c *Conn) interruptLocked(again bool) (t taken) {
	var resend items
	ids := make([]uint64, 0, len(c.pending))
	for id := range c.pending {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		cl := c.pending[id]
		if cl == tombstone {
			continue
		}
		cl.id = 0
		if again && c.mayResend(cl) {
			cl.attempts++
			resend.push(&cl.item)
		} else {
			t.mayHaveRun = append(t.mayHaveRun, cl)
		}
	}
	clear(c.pending)
	c.slots = 0

	var keep items
	c.queued, c.notify.used = 0, 0
	for it := c.queue.pop(); it != nil; it = c.queue.pop() {
		switch {
		case it.call != nil && again:
			resend.push(it)
		case it.call != nil:
			t.notSent = append(t.notSent, it.call)
		case it.frame.Type == wire.Notify && again:
			c.queued += it.cost
			c.notify.used += it.cost
			keep.push(it)
		default:
			it.body.Release()
		}
	}
	c.queue.prepend(&keep)
	c.waiting.prepend(&resend)
	if !again {
		for it := c.waiting.pop(); it != nil; it = c.waiting.pop() {
			t.notSent = append(t.notSent, it.call)
		}
	}
	return t
}

func (c *Conn) mayResend(cl *call) bool {
	most := maxResends
	if cl.policy != nil {
		most = cl.policy.Attempts - 1
	}
	return cl.spec.idempotent && !cl.nested && !cl.target.opts.FailFast && cl.attempts < most
}

// abandonCallsLocked takes every call out of the tables, for the end of the
// connection. Cancelled ones have been settled.
func (c *Conn) abandonCallsLocked() (t taken) {
	for id, cl := range c.pending {
		if cl != tombstone {
			cl.id = 0
			t.mayHaveRun = append(t.mayHaveRun, cl)
		}
		delete(c.pending, id)
	}
	for it := c.queue.head; it != nil; {
		next := it.next
		if it.call != nil {
			c.queue.remove(it)
			t.notSent = append(t.notSent, it.call)
		}
		it = next
	}
	for it := c.waiting.pop(); it != nil; it = c.waiting.pop() {
		t.notSent = append(t.notSent, it.call)
	}
	c.slots = 0
	return t
}

// sendNotification queues a notification. It waits, with ctx, for the peer's
// window and for the outgoing budget; with wait false it reports busy instead.
func (c *Conn) sendNotification(ctx context.Context, s *spec, body *buf.Buf, meta Metadata, o notifyOptions) (busy bool, err *Error) {
	cost := body.Len() + notifyOverhead
	in := inboundFrom(ctx)
	nested := in != nil && in.req.Conn == c
	for {
		c.mu.Lock()
		if err := c.unsentLocked(KindNotification, o.failFast, nested); err != nil {
			c.mu.Unlock()
			return false, err
		}
		if limit := s.sizeLimit(int(min(c.peer.Message, maxMessageCeiling))); body.Len() > limit {
			c.mu.Unlock()
			return false, Errorf(ResourceExhausted, "notification %q has %d bytes, at most %d can be sent", s.name, body.Len(), limit)
		}
		if c.notify.fits(cost) && (c.queued == 0 || c.queued+cost <= c.config.limits.MaxBuffered) {
			break
		}
		if nested && in.ordered {
			c.mu.Unlock()
			return false, Errorf(FailedPrecondition, "the peer's notification window is spent and this handler runs on the ordered lane, so waiting for it could deadlock; send from another goroutine")
		}
		if o.noWait {
			c.mu.Unlock()
			return true, nil
		}
		room := c.waitRoomLocked()
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false, ended(ctx, NotSent)
		case <-c.done:
		}
	}
	c.notify.used += cost
	c.queued += cost
	c.queue.push(&item{
		frame: wire.Frame{Type: wire.Notify, Method: s.name, Meta: meta},
		body:  body.Retain(),
		cost:  cost,
	})
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	return false, nil
}

type notifyOptions struct{ failFast, noWait bool }

// credited takes the peer's CREDIT for notifications.
func (c *Conn) credited(f *wire.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.ID != 0 {
		return c.offendedLocked() // no streams of ours
	}
	if !c.notify.credit(f.Items) {
		return protocolError(fmt.Sprintf("credit for %d notifications that were not sent", f.Items))
	}
	if f.Window > 0 {
		c.notify.window = int(min(f.Window, 1<<40))
	}
	c.movedLocked()
	return nil
}
