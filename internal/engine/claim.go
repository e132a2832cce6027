package engine

import (
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// sender is where one is that waits to send an item: in the line of its stream, and, as the first
// of that, in the connection's. What it has of the peer's budget it keeps while it waits for the
// outgoing one.
type sender struct {
	own, budget, out *spot // nil: it is not in that line
	paid             int   // bytes of the peer's budget

	wait, look <-chan struct{} // when to try again
}

// fitsOutLocked reports whether the outgoing budget has room. The others leave the first who
// waits for it as much as it needs, and may go where there is room for both.
func (c *Conn) fitsOutLocked(cost int, s *spot) bool {
	if !c.queuers.isTurn(s) {
		return c.queued+c.queuers.cost+cost <= c.outgoingLocked()
	}
	return c.queued == 0 || c.queued+cost <= c.outgoingLocked()
}

// mayQueueLocked is fitsOutLocked for what is no answer.
func (c *Conn) mayQueueLocked(cost int, s *spot) bool {
	return c.fitsOutLocked(cost+c.lackingLocked(), s)
}

// waitLocked puts a sender where it has to wait, and reports whether it has to.
func (x *Stream) waitLocked(cost int, flags wire.Flags, s *sender) bool {
	c := x.conn
	if x.standby.isTurn(s.own) {
		switch {
		case x.fullLocked(cost, flags): // nobody else waits for that
			x.withdrawLocked(s)
		case !x.payLocked(cost, s):
		case c.mayQueueLocked(cost, s.out):
			return false
		case s.out == nil:
			s.out = enterLineup(&c.queuers, cost)
		}
	}
	if s.own == nil {
		s.own = enterLineup(&x.outletLocked().standby, cost)
	}
	s.look, s.wait = nil, x.standby.wait(s.own)
	switch {
	case s.out != nil:
		s.look = c.queuers.wait(s.out)
	case s.budget != nil:
		s.look = s.budget.came
	}
	return true
}

// payLocked takes what an item costs from the peer's budget. Nobody is held up there by one that
// waits for more than there is: that comes back when a receiver goes on, which may wait for the other's item.
func (x *Stream) payLocked(cost int, s *sender) bool {
	c := x.conn
	switch {
	case s.paid > 0:
		return true
	case s.budget != nil && s.budget.isFirst:
	case x.exemptLocked(cost) || s.budget == nil && c.affordableLocked(cost):
		if s.budget != nil {
			c.payers.remove(s.budget)
		}
		c.sentItems += cost
	default:
		if c.payers == nil {
			c.payers = new(spots)
		}
		if s.budget == nil {
			s.budget = c.payers.push(cost)
		}
		return false
	}
	s.paid, s.budget = cost, nil
	return true
}

// payLocked gives of the peer's budget, to those who wait for no more than there is, in their order.
func (c *Conn) payLocked() {
	if c.payers == nil {
		return
	}
	for s := c.payers.first; s != nil && c.affordableLocked(flow.MessageOverhead); {
		next := s.next
		if c.affordableLocked(s.cost) {
			c.sentItems += s.cost
			c.payers.call(s)
		}
		s = next
	}
}

// sentLocked is for who has queued its item.
func (x *Stream) sentLocked(s *sender) {
	c := x.conn
	s.paid = 0
	if s.out != nil {
		leaveLineup(&c.queuers, s.out)
		s.out = nil
	}
	if s.own != nil {
		x.standby.leave(s.own)
		s.own = nil
	}
}

// leave is for who may have waited and sends nothing.
func (x *Stream) leave(s *sender) {
	if s.own == nil && s.paid == 0 {
		return
	}
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	x.withdrawLocked(s)
	if s.own != nil {
		x.standby.leave(s.own)
	}
}

// withdrawLocked leaves the connection's lines to others.
func (x *Stream) withdrawLocked(s *sender) {
	c := x.conn
	if s.budget == nil && s.out == nil && s.paid == 0 {
		return
	}
	switch {
	case s.budget == nil:
	case s.budget.isFirst:
		c.sentItems -= s.budget.cost
	default:
		c.payers.remove(s.budget)
	}
	if s.out != nil {
		leaveLineup(&c.queuers, s.out)
	}
	c.sentItems -= s.paid
	s.budget, s.out, s.paid = nil, nil, 0
	c.gaveWayLocked()
}
