package engine

import (
	"slices"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// MaxResends bounds how often an Idempotent call without a policy is sent
// again after its connection was lost: a call that kills its server must not
// do so for ever.
const MaxResends = 8

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
			cl.lost, cl.claimed = true, false
			resend.push(&cl.item)
		} else {
			t.mayHaveRun = append(t.mayHaveRun, cl)
		}
	}
	clear(c.pending)
	c.places = places{}

	c.sortQueueLocked(again, &resend, &t)
	c.waiting.merge(&resend)
	for cl := range c.waiting.all() {
		if !again || !cl.waits() {
			c.waiting.remove(&cl.item)
			t.notSent = append(t.notSent, cl)
		}
	}
	return t
}

// sortQueueLocked sorts out what was ready to be sent in a session that ended:
// calls that may wait go to resend, notifications stay, the rest is dropped.
func (c *Conn) sortQueueLocked(again bool, resend *items, t *taken) {
	var keep items
	c.account.Force(c.notify.Forget())
	for it := c.queue.pop(); it != nil; it = c.queue.pop() {
		switch {
		case it.call != nil && again && it.call.waits():
			resend.push(it)
		case it.call != nil:
			t.notSent = append(t.notSent, it.call)
		case it.turn != nil:
			it.turn.line.dropLocked(&c.outbox) // a handler's last items and its end
		case it.frame.Type == wire.Notify && again && it.sent == 0:
			c.notify.Used += it.cost
			keep.push(it)
		default:
			c.free(it.cost)
			it.body.Release()
		}
	}
	c.cutting, c.midway = 0, nil
	c.queue.prepend(&keep)
}

// waits reports whether the call waits for a link when there is none.
func (cl *Call) waits() bool { return cl.within == nil && !cl.FailFast }

func (c *Conn) mayResend(cl *Call) bool {
	return cl.Repeatable() && cl.waits() && cl.resends < cl.Resends
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
	t.notSent = append(t.notSent, c.waiting.drain()...)
	c.places = places{}
	c.outage.backLocked() // nothing waits any more
	return t
}
