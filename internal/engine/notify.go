package engine

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Notify queues a notification, and tells the Recorder.
func (c *Conn) Notify(ctx context.Context, d *Decl, body *buf.Buf, meta map[string]string, o NotifyOptions) (busy bool, err *status.Error) {
	busy, err = c.notifyPeer(ctx, d, body, meta, o)
	if c.config.Recorder != nil && !busy {
		c.recordNotify(d, err)
	}
	return busy, err
}

// notifyPeer queues a notification. It waits, with ctx, for the peer's
// window and for the outgoing budget; with wait false it reports busy instead.
func (c *Conn) notifyPeer(ctx context.Context, d *Decl, body *buf.Buf, meta map[string]string, o NotifyOptions) (busy bool, err *status.Error) {
	cost := body.Len() + flow.MetaSize(meta) + flow.MessageOverhead
	in := From(ctx)
	nested := in.nestedOn(c)
	var mine notifier
	defer func() { c.leaveNotify(cost, &mine) }()
	for {
		c.mu.Lock()
		err := c.unsentLocked(KindNotification, o.FailFast, nested)
		if err == nil {
			err = c.cannotReadLocked(d, body.Bytes(), o.Depth)
		}
		if err == nil && in.neverWaits(nested) != nil {
			if c.notify.Fits(cost) && c.fitsOutLocked(cost, firstSpot) {
				break
			}
			err = in.neverWaits(nested)
		}
		if err == nil && !c.waitNotifyLocked(cost, o.NoWait, &mine) {
			break
		}
		c.mu.Unlock()
		if err != nil || o.NoWait {
			return err == nil, err
		}
		select {
		case <-mine.wait:
		case <-mine.look:
		case <-mine.changed:
		case <-ctx.Done():
		case <-c.done:
		}
		if ctx.Err() != nil { // before whatever else has ended
			return false, c.GaveUp(ctx, status.NotSent)
		}
	}
	c.notify.Used += cost
	c.hold(cost)
	it := new(parcel).pack(wire.Frame{Type: wire.Notify, Method: d.Name, Meta: meta}, body.Keep(), cost)
	it.ordered, it.depth = true, o.Depth
	c.queue.push(it)
	c.unlockAndWake()
	return false, nil
}

// notifier is where one is that waits to notify: in the line of those, and, as the first of it, in
// that for the queue.
type notifier struct {
	own, out *spot // nil: it is not in that line

	wait, look, changed <-chan struct{} // when to try again
}

// waitNotifyLocked puts a notifier where it has to wait, and reports whether it has to. With noWait it
// only does the latter.
func (c *Conn) waitNotifyLocked(cost int, noWait bool, s *notifier) bool {
	turn := c.notify.Fits(cost) && c.notifiers.isTurn(s.own)
	switch {
	case turn && c.mayQueueLocked(cost, s.out):
		if s.out != nil {
			leaveLineup(&c.queuers, s.out)
			s.out = nil
		}
		return false
	case noWait:
		return true
	case turn && s.out == nil:
		s.out = enterLineup(&c.queuers, cost)
	case !turn && s.out != nil: // the window is another peer's now
		c.leaveQueuersLocked(s.out)
		s.out = nil
	}
	if s.own == nil {
		s.own = enterLineup(&c.notifiers, cost)
		c.account.Force(cost)
	}
	s.look = nil
	if s.out != nil {
		s.look = c.queuers.wait(s.out)
	}
	s.wait, s.changed = c.notifiers.wait(s.own), closedBy(&c.changed)
	return true
}

// leaveNotify is for who may have waited.
func (c *Conn) leaveNotify(cost int, s *notifier) {
	if s.own == nil {
		return
	}
	c.account.Give(cost)
	c.mu.Lock()
	defer c.mu.Unlock()
	leaveLineup(&c.notifiers, s.own)
	if s.out != nil {
		c.leaveQueuersLocked(s.out)
	}
}

// leaveQueuersLocked is for who has queued nothing.
func (c *Conn) leaveQueuersLocked(s *spot) {
	leaveLineup(&c.queuers, s)
	c.gaveWayLocked()
}

// neverWaits is why a handler's notification must not wait; nil: it may. One that must not
// goes before those that wait, if there is room.
func (in *Inbound) neverWaits(nested bool) *status.Error {
	switch {
	case nested && in.reads():
		return errInline
	case nested && in.ordered:
		return errOrdered
	}
	return nil
}

var errOrdered = status.Errorf(status.FailedPrecondition, "the peer's notification window is spent and this handler runs on the ordered lane, so waiting for it could deadlock; hand it to a goroutine whose context is not the handler's")

// Behind reports whether a notification of n bytes would have to wait.
func (c *Conn) Behind(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n += flow.MessageOverhead
	return c.notifiers != nil || !c.notify.Fits(n) || !c.mayQueueLocked(n, nil)
}

// NotifyOptions are what a notification wants. Depth is its payload's, see Measure.
type NotifyOptions struct {
	FailFast, NoWait bool
	Depth            int16
}

// dropUnreadLocked takes notifications out of the queue that have waited for a
// session whose peer cannot take them, and returns their names: it would close the
// link.
func (c *Conn) dropUnreadLocked() (names []string) {
	for it := c.queue.head; it != nil; {
		next := it.next
		if it.call == nil && it.turn == nil && it.frame.Type == wire.Notify {
			d := Decl{Name: it.frame.Method, Kind: KindNotification}
			if c.cannotReadLocked(&d, it.body.Bytes(), it.depth) != nil {
				names = append(names, d.Name)
				c.queue.remove(it)
				c.notify.Used -= it.cost
				c.free(it.cost)
				it.body.Release()
			}
		}
		it = next
	}
	return names
}
