package engine

import (
	"io"
	"math"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// itemFrame is the ITEM of a piece.
func (x *Stream) itemFrame(p *Item) wire.Frame {
	f := wire.Frame{Type: wire.Item, ID: x.id, Flags: p.Flags, Dropped: p.Dropped}
	if x.pace != nil {
		f.Flags |= wire.Prompt
	}
	if x.calling != nil {
		f.Flags |= wire.FromCaller
	}
	if s := x.sub(); s != nil {
		f.Method, f.RawID = s.verb.Tells, s.id
	}
	return f
}

// itemLeftLocked notes an item that was counted.
func (x *Stream) itemLeftLocked(cost int) {
	if x.sub() != nil {
		x.writtenLocked(cost)
	} else {
		x.flow.Counted(cost)
		x.conn.account.Force(x.flow.Grown())
	}
	if x.line.pieces.Len() == 0 {
		x.pack.rest()
	}
}

// Send queues an encoded item.
func (x *Stream) Send(body *buf.Buf, flags wire.Flags, dropped uint64) error {
	return x.SendAt(body, flags, dropped, "")
}

// SendAt is Send of an item with its place, for a stream that Marks; "": it has none.
func (x *Stream) SendAt(body *buf.Buf, flags wire.Flags, dropped uint64, at string) error {
	if x.inspected() {
		x.sending.Lock()
		defer x.sending.Unlock()
		if err := x.inspect(body.B, true); err != nil {
			return err
		}
	}
	held, n := 0, body.Len()
	if at != "" {
		body = marked(body, at)
		flags &^= Shared
		defer body.Release()
	}
	var reads reading
	var mine sender
	defer func() { x.conn.account.Give(held); reads.stop(); x.leave(&mine) }()
	for {
		gone, err := x.offer(body, n, flags, dropped, &mine)
		if gone || err != nil {
			return err
		}
		if held == 0 { // it waits encoded, as those of a thousand streams may
			held = body.Len() + flow.MessageOverhead
			x.conn.account.Force(held)
			reads = x.reading()
		}
		select {
		case <-mine.wait:
		case <-mine.look:
		case <-x.Gone():
		case <-reads.C:
			reads.Reset(x.patience())
		}
	}
}

// Offer queues an encoded item if it can go now. If it may later, whom the stream
// was entrusted to is woken then.
func (x *Stream) Offer(body *buf.Buf, flags wire.Flags, dropped uint64) (gone bool, _ error) {
	return x.OfferAt(body, flags, dropped, "")
}

// OfferAt is to Offer what SendAt is to Send.
func (x *Stream) OfferAt(body *buf.Buf, flags wire.Flags, dropped uint64, at string) (gone bool, _ error) {
	n := body.Len()
	if at != "" {
		body = marked(body, at)
		flags &^= Shared
		defer body.Release()
	}
	return x.offer(body, n, flags, dropped, nil)
}

// offer is Offer; n is how many bytes the item has without its place. Where it is not gone, a
// sender has its place in the line, and without one the handler is woken.
func (x *Stream) offer(body *buf.Buf, n int, flags wire.Flags, dropped uint64, mine *sender) (gone bool, _ error) {
	if x.in != nil && x.in.Err() != nil {
		return false, x.why()
	}
	c := x.conn
	c.mu.Lock()
	if x.dropped && x.calling != nil && x.failed == nil && !x.Ended() {
		if mine != nil {
			mine.wait, mine.look = x.done, nil // it will say why
		}
		c.mu.Unlock()
		return false, nil
	}
	if err := x.refusalLocked(n); err != nil {
		c.mu.Unlock()
		return false, err
	}
	cost := body.Len() + flow.MessageOverhead
	if mine != nil && x.waitLocked(cost, flags, mine) || mine == nil && x.blockedLocked(cost, flags) {
		c.mu.Unlock()
		return false, nil
	}
	if x.fresh && x.in != nil {
		if err := x.headLocked(); err != nil {
			c.mu.Unlock()
			return false, err
		}
	}
	if x.paced(flags) {
		x.pace.Sent(x.underWay())
	}
	var p Item
	switch {
	case flags&Shared != 0:
		p = Item{buf: body.Retain(), n: uint32(body.Len())}
	case body.Len() > packMost:
		p = Item{buf: body.Keep(), n: uint32(body.Len())}
	default:
		p = x.outletLocked().pack.put(body.B, x.line.pieces.Len() > 0)
	}
	p.Flags, p.Dropped = flags&^Shared, dropped
	x.outletLocked().line.pieces.Push(p)
	x.flow.Used += cost
	c.hold(cost)
	x.pushLocked()
	if mine != nil {
		x.sentLocked(mine)
	} else {
		c.sentItems += cost
	}
	c.unlockAndWake()
	if c.config.Recorder != nil {
		x.record(true, cost-flow.MessageOverhead)
	}
	return true, nil
}

// fullLocked reports whether the stream itself has no room for an item.
func (x *Stream) fullLocked(cost int, flags wire.Flags) bool {
	// Before the CALL has left nothing is queued: it would take room from
	// answers that somebody may have to read for the CALL to leave.
	return x.id == 0 || !x.flow.Fits(cost) || x.paced(flags) && !x.pace.Fits(x.underWay())
}

// blockedLocked reports whether an item of a handler at rest has to wait, which is woken then. It has no
// place in a line, because nobody would give it back, and leaves others theirs.
func (x *Stream) blockedLocked(cost int, flags wire.Flags) bool {
	c := x.conn
	switch {
	case x.fullLocked(cost, flags):
		x.starved = true
		return true
	case (x.exemptLocked(cost) || c.affordableLocked(cost)) && c.mayQueueLocked(cost, nil):
		return false
	}
	x.starveLocked()
	return true
}

// Blocked reports whether Offer would have no room for an item of n bytes: for items
// that cost something to make, or that are better left where they are.
func (x *Stream) Blocked(n int) bool {
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return x.refusalLocked(n) == nil && x.blockedLocked(n+flow.MessageOverhead, 0)
}

// paced reports whether an item is one of those of which only the newest counts.
func (x *Stream) paced(flags wire.Flags) bool { return x.pace != nil && flags&wire.History == 0 }

// underWay is how many items were queued and are not credited.
func (x *Stream) underWay() int { return x.flow.Sizes.Len() + x.line.pieces.Len() }

// Recall takes back the last item if nothing of it has left, and returns what was
// dropped before it. None of a HISTORY is taken back.
func (x *Stream) Recall() (dropped uint64, ok bool) {
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	n := x.line.pieces.Len()
	if n == 0 || n == 1 && x.line.sent > 0 || x.line.pieces.At(n-1).Flags&wire.History != 0 {
		return 0, false
	}
	if x.pace != nil {
		x.pace.Unsent(x.underWay())
	}
	p := x.line.pieces.PopLast()
	x.flow.Used -= p.cost()
	c.sentItems -= p.cost()
	c.free(p.cost())
	c.payLocked()
	p.buf.Release()
	return p.Dropped, true
}

// affordableLocked reports whether the peer's budget has room for an item.
func (c *Conn) affordableLocked(cost int) bool {
	budget := c.payableLocked()
	return c.sentItems <= flow.Slack(budget) || c.sentItems+cost <= budget
}

// payableLocked is the peer's budget.
func (c *Conn) payableLocked() int { return int(min(c.peer.limits.Budget, math.MaxInt32)) }

// exemptLocked reports whether an item may go without: one small item of each stream,
// a share that all of them can have at once, so that streams that stand still do not
// stop the others.
func (x *Stream) exemptLocked(cost int) bool {
	if x.flow.Used > 0 {
		return false
	}
	share := x.conn.payableLocked() / int(max(1, min(x.conn.peer.limits.Calls, math.MaxInt32)))
	return cost <= max(share, smallItem)
}

// smallItem is the least that a stream's share of the peer's budget is taken
// for.
const smallItem = 1<<10 + flow.MessageOverhead

// Shared marks an item whose buffer others hold too: it is not copied again.
// It does not travel.
const Shared wire.Flags = 1 << 15

// refusalLocked says why an item of n bytes cannot be sent at all.
func (x *Stream) refusalLocked(n int) *status.Error {
	if err := x.brokenLocked(); err != nil {
		return err
	}
	switch {
	case x.calling != nil && x.err != nil:
		return x.err
	case x.Ended():
		return &status.Error{Code: status.FailedPrecondition, Message: "the stream has ended: its handler has returned", Outcome: status.Answered, Cause: io.EOF}
	case x.closed:
		return status.Errorf(status.FailedPrecondition, "no item of %q can be sent any more", x.decl.Name).With(status.MayHaveRun)
	}
	if limit := x.decl.Limit(x.conn.peer.most()); n > limit {
		return status.Errorf(status.ResourceExhausted, "an item of %q has %d bytes, at most %d can be sent", x.decl.Name, n, limit).With(status.MayHaveRun) // its call
	}
	return nil
}

// CloseSend says that this side sends no more.
func (x *Stream) CloseSend() {
	c := x.conn
	c.mu.Lock()
	if x.closed || x.failed != nil {
		c.mu.Unlock()
		return
	}
	x.closed = true
	if x.calling != nil { // a handler says it by returning
		x.outletLocked().line.last = new(parcel).pack(wire.Frame{Type: wire.End, ID: x.id}, nil, 0)
		x.pushLocked()
	}
	x.roomLocked()
	c.unlockAndWake()
}
