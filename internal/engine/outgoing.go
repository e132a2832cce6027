package engine

import (
	"context"
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
	place
}

// outgoing are our calls by where they are, what they have of the peer's places and
// budget, and the window of notifications. It never counts bytes of our own
// budget. Under Conn.mu.
type outgoing struct {
	waiting waiting             // calls without a place, or held for the next session
	pending map[uint64]inFlight // taken, by id
	resting map[*Call]struct{}  // waiting for their next attempt
	nextID  uint64
	ranks   uint64 // attempts that were begun
	places
	notify flow.Sender

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

// errInline refuses what the handler of an Inline method would wait for.
var errInline = status.Errorf(status.FailedPrecondition, "the handler of an Inline method runs where the answer would be read, so it must not wait for its peer: declare the method without Inline, or hand this to a goroutine whose context is not the handler's")

// CannotWait is why what is asked with ctx must not wait for the peer: its handler runs
// where the answer would be read. nil: it may.
func (c *Conn) CannotWait(ctx context.Context) *status.Error {
	if in := From(ctx); in.nestedOn(c) && in.reads() {
		return errInline
	}
	return nil
}

// start queues the call for its next attempt. It never waits.
func (c *Conn) start(cl *Call) *status.Error {
	// Handlers call back as often as their callers make them. Where they may not
	// they do not wait for each other to be told so.
	counted := cl.item.cost + callOverhead
	if cl.within != nil && !c.account.Has(counted) {
		return status.Errorf(status.ResourceExhausted, "the server is nearly full, and the peer of this handler holds its share of it")
	}
	if cl.within != nil && cl.within.reads() {
		return errInline
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
	c.ranks++
	cl.rank = c.ranks
	if !c.mayGoLocked(cl) {
		return c.holdLocked(cl, counted)
	}
	c.goLocked(cl)
	c.countLocked(cl, counted)
	c.unlockAndWake()
	return nil
}

// holdLocked lets a call wait that cannot go yet, or refuses it: a nested one must
// not. It gives the lock back.
func (c *Conn) holdLocked(cl *Call, counted int) (err *status.Error) {
	if cl.within != nil {
		err = status.Errorf(status.ResourceExhausted, "%s; a handler of the same connection must not wait for its turn", c.shortOfLocked(cl))
	} else {
		c.waiting.push(&cl.item)
		c.countLocked(cl, counted)
	}
	crowded, limits, streams := c.crowdedOutLocked(cl), c.peer.limits, c.streams
	c.unlockAndWake()
	if crowded {
		c.tellCrowded(cl, limits, streams)
	}
	return err
}

// countLocked counts what a call takes of the account while it lasts.
func (c *Conn) countLocked(cl *Call, counted int) {
	cl.counted = counted
	c.account.Force(counted)
	c.waitsLocked(cl)
}

// cannotLocked says why the peer cannot take a call at all.
func (c *Conn) cannotLocked(cl *Call) *status.Error {
	if err := c.cannotReadLocked(cl.Decl, cl.content.body.Bytes(), cl.item.depth); err != nil {
		return err
	}
	if cl.stream != nil && c.sess != nil && !c.peer.Streams {
		return status.Errorf(status.Unimplemented, "the peer takes no streams, %q is one", cl.Decl.Name)
	}
	if cl.Key != nil && c.sess != nil {
		return cl.claim(c.peer.cache)
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

// abandon takes a call out of wherever it is and tells the peer. ok is false
// if it is nowhere: then it is being settled.
func (c *Conn) abandon(cl *Call) (o status.Outcome, ok bool) {
	c.mu.Lock()
	switch {
	case c.waiting.has(&cl.item):
		if c.sess != nil && !c.peer.away {
			cl.lack = c.shortOfLocked(cl)
		}
		c.waiting.remove(&cl.item)
		c.admitLocked() // it may have been in front
		o, ok = status.NotSent, true
	case cl.item.list != nil && cl.id == 0:
		c.unqueueLocked(&cl.item)
		c.vacateLocked(cl.place())
		c.admitLocked()
		o, ok = status.NotSent, true
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
			c.vacateLocked(cl.place())
			c.admitLocked()
			if plain {
				c.forgotten++
			}
		} else {
			c.pending[cl.id] = inFlight{nil, cl.place()}
		}
		if !returned {
			c.queue.push(new(parcel).pack(wire.Frame{Type: wire.Cancel, ID: cl.id}, nil, 0))
		}
	}
	c.checkIdleLocked()
	c.unlockAndWake()
	return o, ok
}
