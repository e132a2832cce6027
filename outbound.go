package typedrpc

import (
	"maps"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// inFlight is a call that was counted. call is nil if it was cancelled: a
// tombstone that holds its place until the peer's terminal frame.
type inFlight struct {
	call *call
	cost int // of the peer's budget
}

// rest notes a call that waits for its next attempt. It reports false if the
// connection is ending.
func (c *Conn) rest(cl *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.drained != nil {
		return false
	}
	if c.resting == nil {
		c.resting = map[*call]struct{}{}
	}
	c.resting[cl] = struct{}{}
	return true
}

// wake forgets a call that rested.
func (c *Conn) wake(cl *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.resting, cl)
}

// disturb ends the calls that wait for their next attempt, which there will not
// be.
func (c *Conn) disturb(cause *Error) {
	c.mu.Lock()
	resting := slices.Collect(maps.Keys(c.resting))
	c.mu.Unlock()
	for _, cl := range resting {
		cl.giveUp(cause.with)
	}
}

// with returns a copy of e with another outcome.
func (e *Error) with(o Outcome) *Error {
	x := *e
	x.Outcome = o
	return &x
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
	case c.sess == nil && nested, failFast && !c.linkedLocked():
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
	if err := c.cannotLocked(cl); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.waiting.len == 0 && c.placeLocked(&cl.item) {
		c.queue.push(&cl.item)
	} else if cl.nested {
		n, b := c.peer.Calls, c.peer.Budget
		c.mu.Unlock()
		return Errorf(ResourceExhausted, "the peer takes %d calls and %d bytes of requests at once and all are in use; a handler of the same connection must not wait for its turn", n, b)
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

// placeLocked takes a place among the calls in flight for it, if there is one:
// the peer announced how many it runs, and how many bytes of requests it holds,
// at once. One request always fits.
func (c *Conn) placeLocked(it *item) bool {
	if c.sess == nil || c.away || uint64(c.slots) >= c.peer.Calls {
		return false
	}
	if b := c.peer.Budget; b > 0 && c.held > 0 && uint64(c.held+it.cost) > b {
		return false
	}
	c.slots++
	c.held += it.cost
	return true
}

func (c *Conn) vacateLocked(cost int) {
	c.slots--
	c.held -= cost
}

// cannotLocked says why the peer cannot take a call at all.
func (c *Conn) cannotLocked(cl *call) *Error {
	if cl.exchange != nil && c.sess != nil && !c.streams {
		return Errorf(Unimplemented, "the peer takes no streams, %q is one", cl.spec.name)
	}
	if cl.target.key != nil && c.sess != nil {
		if err := cl.claim(c.peerCache); err != nil {
			return err
		}
	}
	limit := cl.spec.sizeLimit(int(min(c.peer.Message, maxMessageCeiling)))
	if n := cl.item.body.Len(); n > limit {
		return Errorf(ResourceExhausted, "the request of %q has %d bytes, at most %d can be sent", cl.spec.name, n, limit)
	}
	return nil
}

// admitLocked moves waiting calls into free places. It returns those that this
// peer cannot take, to be settled without the lock.
func (c *Conn) admitLocked() (refused refusals) {
	for it := c.waiting.head; it != nil; it = c.waiting.head {
		err := c.cannotLocked(it.call)
		switch {
		case c.sess == nil || c.away:
			return refused
		case err != nil:
			c.waiting.remove(it)
			refused = append(refused, refusal{it.call, err})
		case !c.placeLocked(it):
			return refused
		default:
			c.waiting.remove(it)
			c.queue.push(it)
		}
	}
	return refused
}

// countCallLocked gives a call its id at the moment it is counted.
func (c *Conn) countCallLocked(it *item, f *wire.Frame, now *time.Time) {
	cl := it.call
	c.nextID++
	f.ID = c.nextID
	cl.id, cl.order = f.ID, 0
	c.pending[f.ID] = inFlight{cl, it.cost}
	if !cl.deadline.IsZero() {
		if now.IsZero() {
			*now = time.Now()
		}
		f.TimeLeft = max(1, millis(cl.deadline.Sub(*now)))
	}
	if cl.exchange != nil {
		cl.exchange.beginLocked(f.ID)
	}
	if k := cl.target.key; k != nil {
		f.Meta = k.stamp(f.Meta)
	}
}

// answered takes a RESULT or FAIL; body is the buffer that the payload lives
// in, nil if there is none.
func (c *Conn) answered(f *wire.Frame, body *buf.Buf) error {
	c.mu.Lock()
	c.dropPartLocked(partID{f.ID, false})
	in, ok := c.pending[f.ID]
	if !ok {
		var err error
		if !c.closing { // else its call was given up, all at once
			err = c.offendedLocked()
		}
		c.mu.Unlock()
		body.Release()
		return err
	}
	delete(c.pending, f.ID)
	c.vacateLocked(in.cost)
	cl := in.call
	if cl != nil && cl.item.list != nil {
		c.unqueueLocked(&cl.item) // refused before the whole of it was sent
	}
	if cl != nil && f.Type == wire.Fail && c.sendLaterLocked(cl, f) {
		cl = nil
	}
	away := c.away
	refused := c.admitLocked()
	wake, sess := c.wakeLocked(), c.sess
	c.checkIdleLocked()
	c.mu.Unlock()

	if wake {
		sess.Wake()
	}
	refused.settleEach()
	switch {
	case cl == nil:
		body.Release()
	case f.Type == wire.Fail:
		err := fromWire(f, c.codec)
		if away && cl.exchange != nil && err.Code == Unavailable && err.Outcome == Answered {
			err = err.broken() // by the peer's shutdown, and not by its handler's will
		}
		cl.settle(nil, f.Meta, err)
	default:
		if body == nil {
			body = buf.Copy(f.Payload)
		}
		cl.settle(body, f.Meta, nil)
	}
	return nil
}

// sendLaterLocked keeps a call that a draining server refused for the next
// session.
func (c *Conn) sendLaterLocked(cl *call, f *wire.Frame) bool {
	if !c.heals || !c.away || f.Flags&wire.NotRun == 0 || Code(f.Code) != Unavailable {
		return false
	}
	if !cl.waits() || cl.exchange != nil && cl.exchange.sends {
		return false // items have left
	}
	// In front of what was made after it, so that Serial calls keep their
	// order.
	cl.order, cl.id = cl.id, 0
	at := c.waiting.head
	for at != nil && at.call.order != 0 && at.call.order < cl.order {
		at = at.next
	}
	c.waiting.insert(&cl.item, at)
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
	case cl.item.list != nil && cl.id == 0:
		c.unqueueLocked(&cl.item)
		c.vacateLocked(cl.item.cost)
		o, ok = NotSent, true
		refused = c.admitLocked()
	case cl.id != 0 && c.pending[cl.id].call == cl:
		if cl.item.list != nil { // in the middle of its fragments
			c.unqueueLocked(&cl.item)
		}
		if cl.exchange != nil {
			cl.exchange.dropSendLocked()
		}
		o, ok = MayHaveRun, true
		if c.dropPartLocked(partID{cl.id, false}) == wire.Result {
			// Its handler has returned: the rest of the answer is dropped as
			// it comes, and nothing else will.
			delete(c.pending, cl.id)
			c.vacateLocked(cl.item.cost)
			refused = c.admitLocked()
			break
		}
		c.pending[cl.id] = inFlight{nil, cl.item.cost}
		c.queue.push(&item{frame: wire.Frame{Type: wire.Cancel, ID: cl.id}})
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
type taken struct {
	notSent, mayHaveRun []*call

	lost bool // with their session, and not by this side's will
}

// settle fails them all with cause, each with its own outcome.
func (t taken) settle(cause error) {
	for _, group := range []struct {
		calls   []*call
		outcome Outcome
	}{{t.notSent, NotSent}, {t.mayHaveRun, MayHaveRun}} {
		for _, cl := range group.calls {
			err := asUnavailable(cause).with(group.outcome)
			switch {
			case cl.exchange == nil || group.outcome == NotSent:
			case t.lost:
				err = sessionLost(cause)
			default:
				err.Message += "; items of the stream may be missing"
			}
			cl.settle(nil, nil, err)
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
	t.lost = true
	c.gatherLocked()
	var resend items
	ids := make([]uint64, 0, len(c.pending))
	for id := range c.pending {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		cl := c.pending[id].call
		if cl == nil {
			continue
		}
		cl.id = 0
		if cl.item.list != nil {
			c.unqueueLocked(&cl.item)
		}
		if again && c.mayResend(cl) {
			cl.resends++
			cl.lost, cl.order, cl.claimed = true, id, false
			resend.push(&cl.item)
		} else {
			t.mayHaveRun = append(t.mayHaveRun, cl)
		}
	}
	clear(c.pending)
	c.slots, c.held = 0, 0

	var keep items
	c.notify.used = 0
	for it := c.queue.pop(); it != nil; it = c.queue.pop() {
		switch {
		case it.call != nil && again && it.call.waits():
			resend.push(it)
		case it.call != nil:
			t.notSent = append(t.notSent, it.call)
		case it.line != nil:
			it.line.dropLocked(c) // a handler's last items and its end
		case it.frame.Type == wire.Notify && again && it.sent == 0:
			c.notify.used += it.cost
			keep.push(it)
		default:
			c.queued -= it.cost
			it.body.Release()
		}
	}
	c.cutting, c.midway = 0, nil
	c.queue.prepend(&keep)
	c.waiting.prepend(&resend)
	c.waiting.sort()
	for it := c.waiting.head; it != nil; {
		next := it.next
		if !again || !it.call.waits() {
			c.waiting.remove(it)
			t.notSent = append(t.notSent, it.call)
		}
		it = next
	}
	return t
}

// waits reports whether the call waits for a link when there is none.
func (cl *call) waits() bool { return !cl.nested && !cl.target.opts.FailFast }

func (c *Conn) mayResend(cl *call) bool {
	most := maxResends
	if cl.policy != nil {
		most = cl.policy.Attempts - 1
	}
	return cl.repeatable() && cl.waits() && cl.resends < most
}

// abandonCallsLocked takes every call out of the tables, for the end of the
// connection. Cancelled ones have been settled.
func (c *Conn) abandonCallsLocked() (t taken) {
	for id, in := range c.pending {
		if cl := in.call; cl != nil {
			cl.id = 0
			t.mayHaveRun = append(t.mayHaveRun, cl)
		}
		delete(c.pending, id)
	}
	c.gatherLocked()
	for it := c.queue.head; it != nil; {
		next := it.next
		switch {
		case it.call == nil:
		case it.sent > 0: // in pending too
			c.unqueueLocked(it)
		default:
			c.queue.remove(it)
			t.notSent = append(t.notSent, it.call)
		}
		it = next
	}
	for it := c.waiting.pop(); it != nil; it = c.waiting.pop() {
		t.notSent = append(t.notSent, it.call)
	}
	c.slots, c.held = 0, 0
	return t
}
