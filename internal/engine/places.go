package engine

import (
	"fmt"
	"math"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// places are what our calls in flight have of what the peer takes at once: places,
// of which streams may have some and calls all, and bytes of requests. Under Conn.mu.
type places struct {
	slots   int  // calls in queue and pending …
	streams int  // … those of them that are streams …
	held    int  // … their bytes of the peer's budget …
	passed  int  // … and of these, those of calls that have passed a larger one
	crowded bool // that streams have all that they may have, in the log
}

// place is what one call has of them.
type place struct {
	cost   int32 // bytes of the peer's budget
	stream bool
	passed bool // it has passed a larger one
}

// place is what a call takes. passed is decided when it is taken.
func (cl *Call) place() place { return place{int32(cl.item.cost), cl.stream != nil, cl.passed} }

func (p *places) takeLocked(x place) {
	p.slots++
	p.held += int(x.cost)
	if x.stream {
		p.streams++
	}
	if x.passed {
		p.passed += int(x.cost)
	}
}

func (p *places) vacateLocked(x place) {
	p.slots--
	p.held -= int(x.cost)
	if x.stream {
		p.streams--
	}
	if x.passed {
		p.passed -= int(x.cost)
	}
}

// freeLocked reports whether there is a place for a call, whatever its bytes.
func (c *Conn) freeLocked(cl *Call) bool {
	return uint64(c.slots) < c.peer.limits.Calls && (cl.stream == nil || uint64(c.streams) < c.peer.streams)
}

// budgetLocked is how many bytes of requests the peer holds at once.
func (c *Conn) budgetLocked() int { return int(min(c.peer.limits.Budget, math.MaxInt32)) }

// fitsLocked reports whether the peer's budget has room for a request. One always
// fits.
func (c *Conn) fitsLocked(cost int) bool {
	return c.held == 0 || c.held+cost <= c.budgetLocked()
}

// spareLocked is how many bytes a request may have that passes front, which waits
// for room. It takes what front could not use; and while front waits for others
// than those that have passed it, an eighth at least: so neither starves.
func (c *Conn) spareLocked(front *Call) int {
	budget := c.budgetLocked()
	beside := max(budget-front.item.cost, 0)
	if c.held-c.passed > beside {
		beside = max(beside, budget/8)
	}
	return min(beside-c.passed, budget-c.held)
}

// frontLocked is the oldest call that waits for nothing but room; nil: there is none.
func (c *Conn) frontLocked() (front *Call) {
	for i := range c.waiting.lines {
		it := c.waiting.lines[i].head
		if it != nil && c.freeLocked(it.call) && (front == nil || it.call.rank < front.rank) {
			front = it.call
		}
	}
	return front
}

// mayGoLocked reports whether a call that begins may go at once. A nested one does
// not leave room for those that wait, because it cannot.
func (c *Conn) mayGoLocked(cl *Call) bool {
	cl.passed = false
	if c.sess == nil || c.peer.away || !c.freeLocked(cl) || !c.fitsLocked(cl.item.cost) {
		return false
	}
	if c.waiting.len() == 0 {
		return true
	}
	if cl.item.ordered && c.waiting.lines[orderedLine].len > 0 {
		return false
	}
	front := c.frontLocked()
	cl.passed = front != nil
	return front == nil || cl.within != nil || cl.item.cost <= c.spareLocked(front)
}

// nextLocked is the oldest of the waiting calls that may go now; nil: none may.
func (c *Conn) nextLocked() *Call {
	front := c.frontLocked()
	if front == nil {
		return nil
	}
	if front.passed = false; c.fitsLocked(front.item.cost) {
		return front
	}
	spare := c.spareLocked(front)
	var next *Call
	for i := range c.waiting.lines {
		l := &c.waiting.lines[i]
		if l.head == nil || !c.freeLocked(l.head.call) {
			continue
		}
		if cl := l.within(spare, i == orderedLine); cl != nil && cl != front && (next == nil || cl.rank < next.rank) {
			next = cl
		}
	}
	if next != nil {
		next.passed = true
	}
	return next
}

// admitLocked moves waiting calls into free places.
func (c *Conn) admitLocked() {
	if c.sess == nil || c.peer.away {
		return
	}
	for c.waiting.len() > 0 {
		cl := c.nextLocked()
		if cl == nil {
			return
		}
		c.waiting.remove(&cl.item)
		c.goLocked(cl)
	}
}

// goLocked gives a call its place, and to the writer.
func (c *Conn) goLocked(cl *Call) {
	c.takeLocked(cl.place())
	c.queue.push(&cl.item)
}

// refusedLocked takes the waiting calls out that the peer of a new session cannot
// take at all.
func (c *Conn) refusedLocked() (refused refusals) {
	for cl := range c.waiting.all() {
		if err := c.cannotLocked(cl); err != nil {
			c.waiting.remove(&cl.item)
			refused = append(refused, refusal{cl, err})
		}
	}
	return refused
}

// shortOfLocked says what a call lacks at a peer that takes calls.
func (c *Conn) shortOfLocked(cl *Call) string {
	first := c.waiting.lines[orderedLine].head
	switch calls := c.peer.limits.Calls; {
	case uint64(c.slots) >= calls:
		return fmt.Sprintf("all %d places are taken, %d of them by streams; see Limits.MaxCalls", calls, c.streams)
	case !c.freeLocked(cl):
		return fmt.Sprintf("all %d places that streams may have are taken, the others of %d are for calls; see Limits.MaxCalls", c.streams, calls)
	case cl.item.ordered && first != nil && first.call != cl:
		return "calls of Serial methods do not pass each other, and one waits in front: " + c.shortOfLocked(first.call)
	case !c.fitsLocked(cl.item.cost):
		return fmt.Sprintf("its request takes %d bytes, and of the %d of requests that the peer holds at once %d are in use; see Limits.MaxBuffered", cl.item.cost, c.peer.limits.Budget, c.held)
	}
	return fmt.Sprintf("its request takes %d bytes, and of the %d of requests that the peer holds at once the rest is kept for a larger one; see Limits.MaxBuffered", cl.item.cost, c.peer.limits.Budget)
}

// crowdedOutLocked reports whether the log is to be told, once in a session, that
// calls find no place because streams have all that they may have.
func (c *Conn) crowdedOutLocked(cl *Call) bool {
	if c.sess == nil || c.peer.away || c.crowded || c.streams == 0 || uint64(c.streams) < c.peer.streams || c.freeLocked(cl) {
		return false
	}
	c.crowded = true
	return true
}

func (c *Conn) tellCrowded(cl *Call, limits wire.Limits, streams int) {
	c.config.Logger.Warn("typedrpc: streams have all places that they may have at the peer, and more wait for one; see its Limits.MaxCalls",
		"method", cl.Decl.Name, "places", limits.Calls, "streams", streams)
}

// lacking is e, which the call was given up with, with what it had waited for.
func (cl *Call) lacking(e *status.Error) *status.Error {
	if cl.lack == "" || e.Outcome != status.NotSent {
		return e
	}
	x := e.With(e.Outcome)
	if x.Message != "" {
		x.Message += "; "
	}
	x.Message += cl.lack
	cl.lack = ""
	return x
}

// measure looks at a payload that was made for the binary dialect, and is now for a
// connection of another.
func (cl *Call) measure() *status.Error {
	if cl.item.depth != Unmeasured || cl.Conn.dialect == session.Binary {
		return nil
	}
	depth, err := cl.Conn.Measure(cl.content.body.Bytes())
	if err != nil {
		return status.Errorf(status.InvalidArgument, "cannot send the message of %q: %w", cl.Decl.Name, err)
	}
	cl.item.depth = depth
	return nil
}
