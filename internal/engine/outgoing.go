package engine

import (
	"maps"
	"slices"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// inFlight is a call that was counted. call is nil if it was cancelled: a
// tombstone that holds its place until the terminal frame of a peer with HELLO.
type inFlight struct {
	call *Call
	cost int // of the peer's budget
}

// outgoing are our calls by where they are, their places and bytes of the peer's
// budget, and the window of notifications. It never counts bytes of our own
// budget. Under Conn.mu.
type outgoing struct {
	waiting items               // calls without a slot, or held for the next session
	pending map[uint64]inFlight // taken, by id
	resting map[*Call]struct{}  // waiting for their next attempt
	nextID  uint64
	slots   int // calls in queue and pending …
	held    int // … and their bytes of the peer's budget
	notify  flow.Sender

	// of a plain peer
	forgotten int  // calls that were given up, and may still be answered
	oddTold   bool // that its answers are strange, in the log
}

// rest notes a call that waits for its next attempt. It reports false if the
// connection is ending.
func (c *Conn) rest(cl *Call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.drained != nil {
		return false
	}
	if c.resting == nil {
		c.resting = map[*Call]struct{}{}
	}
	c.resting[cl] = struct{}{}
	return true
}

// wake forgets a call that rested.
func (c *Conn) wake(cl *Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.resting, cl)
}

// disturb ends the calls that wait for their next attempt, which there will not
// be.
func (c *Conn) disturb(cause *status.Error) {
	c.mu.Lock()
	resting := slices.Collect(maps.Keys(c.resting))
	c.mu.Unlock()
	for _, cl := range resting {
		cl.GiveUp(func(o status.Outcome) *status.Error { return cl.outOf(cause.With(o)) })
	}
}

// unsentLocked returns the error of a call or notification that cannot be
// taken at all now; nil: it can be sent, or wait for a link.
func (c *Conn) unsentLocked(kind Kind, failFast, nested bool) *status.Error {
	switch {
	case c.config.Posted:
		return status.Errorf(status.FailedPrecondition, "this request came over HTTP POST: there is no connection to call back on")
	case c.closing:
		return c.closedLocked()
	case c.drained != nil && !nested:
		return status.Errorf(status.Unavailable, "the connection is shutting down")
	case c.sess == nil && !c.config.Heals:
		return status.Lost(nil, c.outage.why)
	case c.sess == nil && nested, failFast && !c.linkedLocked():
		return c.noLinkLocked()
	case c.peer.away && kind == KindCall && (failFast || nested || !c.config.Heals):
		return status.Errorf(status.Unavailable, "the peer is shutting down")
	}
	return nil
}

// callOverhead is what a call takes beside its request.
const callOverhead = 1 << 10

// start queues the call for its next attempt. It never waits.
func (c *Conn) start(cl *Call) *status.Error {
	// Handlers call back as often as their callers make them. Where they may not
	// they do not wait for each other to be told so.
	counted := cl.item.cost + callOverhead
	if cl.within != nil && !c.account.Has(counted) {
		return status.Errorf(status.ResourceExhausted, "the server is nearly full, and the peer of this handler holds its share of it")
	}
	c.mu.Lock()
	if err := c.unsentLocked(KindCall, cl.FailFast, cl.within != nil); err != nil {
		c.mu.Unlock()
		return err
	}
	if err := c.cannotLocked(cl); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.waiting.len == 0 && c.placeLocked(&cl.item) {
		c.queue.push(&cl.item)
	} else if cl.within != nil {
		n, b := c.peer.limits.Calls, c.peer.limits.Budget
		c.mu.Unlock()
		return status.Errorf(status.ResourceExhausted, "the peer takes %d calls and %d bytes of requests at once and all are in use; a handler of the same connection must not wait for its turn", n, b)
	} else {
		c.waiting.push(&cl.item)
	}
	cl.counted = counted
	c.account.Force(counted)
	c.waitsLocked(cl)
	c.unlockAndWake()
	return nil
}

// placeLocked takes a place among the calls in flight for it, if there is one:
// the peer announced how many it runs, and how many bytes of requests it holds,
// at once. One request always fits.
func (c *Conn) placeLocked(it *item) bool {
	if c.sess == nil || c.peer.away || uint64(c.slots) >= c.peer.limits.Calls {
		return false
	}
	if b := c.peer.limits.Budget; b > 0 && c.held > 0 && uint64(c.held+it.cost) > b {
		return false
	}
	c.slots++
	c.held += it.cost
	return true
}

func (o *outgoing) vacateLocked(cost int) {
	o.slots--
	o.held -= cost
}

// cannotLocked says why the peer cannot take a call at all.
func (c *Conn) cannotLocked(cl *Call) *status.Error {
	if err := c.keptLocked(cl.Decl); err != nil {
		return err
	}
	if cl.stream != nil && c.sess != nil && !c.peer.Streams {
		return status.Errorf(status.Unimplemented, "the peer takes no streams, %q is one", cl.Decl.Name)
	}
	if cl.Key != nil && c.sess != nil {
		if err := cl.claim(c.peer.cache); err != nil {
			return err
		}
	}
	limit := cl.Decl.Limit(c.peer.most())
	if body := cl.content.body; !Fits(body.Bytes(), limit) {
		return status.Errorf(status.ResourceExhausted, "the request of %q has %d bytes, at most %d can be sent", cl.Decl.Name, body.Len(), limit)
	}
	return nil
}

// keptLocked refuses a name that would become a frame of ours at the peer.
func (c *Conn) keptLocked(d *Decl) *status.Error {
	hello := 0
	if c.dialect != session.Plain {
		hello = 1
	}
	if d.Kept[hello] {
		return status.Errorf(status.Unimplemented, "%q cannot be sent: the protocol uses the name itself", d.Name)
	}
	return nil
}

// admitLocked moves waiting calls into free places. It returns those that this
// peer cannot take, to be settled without the lock.
func (c *Conn) admitLocked() (refused refusals) {
	for it := c.waiting.head; it != nil; it = c.waiting.head {
		err := c.cannotLocked(it.call)
		switch {
		case c.sess == nil || c.peer.away:
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

// abandon takes a call out of wherever it is and tells the peer. ok is false
// if it is nowhere: then it is being settled.
func (c *Conn) abandon(cl *Call) (o status.Outcome, ok bool) {
	c.mu.Lock()
	var refused refusals
	switch {
	case cl.item.list == &c.waiting:
		c.waiting.remove(&cl.item)
		o, ok = status.NotSent, true
	case cl.item.list != nil && cl.id == 0:
		c.unqueueLocked(&cl.item)
		c.vacateLocked(cl.item.cost)
		o, ok = status.NotSent, true
		refused = c.admitLocked()
	case cl.id != 0 && c.pending[cl.id].call == cl:
		if cl.item.list != nil { // in the middle of its fragments
			c.unqueueLocked(&cl.item)
		}
		if cl.stream != nil {
			cl.stream.dropSendLocked()
		}
		o, ok = status.MayHaveRun, true
		// Where its handler has returned, the rest of the answer is dropped as it
		// comes, and nothing else will. A plain peer may never answer, and does not
		// owe it: with a tombstone for each that it forgot, no place would be left.
		returned := c.dropPartLocked(partID{cl.id, false}) == wire.Result
		if plain := c.dialect == session.Plain; plain || returned {
			delete(c.pending, cl.id)
			c.vacateLocked(cl.item.cost)
			refused = c.admitLocked()
			if plain {
				c.forgotten++
			}
		} else {
			c.pending[cl.id] = inFlight{nil, cl.item.cost}
		}
		if !returned {
			c.queue.push(new(parcel).pack(wire.Frame{Type: wire.Cancel, ID: cl.id}, nil, 0))
		}
	}
	c.checkIdleLocked()
	c.unlockAndWake()
	refused.settleEach()
	return o, ok
}
