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
	var mine *notifier // nil: it has not waited
	defer func() {
		if mine != nil {
			c.account.Give(cost)
			c.mu.Lock()
			c.notifiers.leave(mine)
			c.mu.Unlock()
		}
	}()
	for {
		c.mu.Lock()
		err := c.unsentLocked(KindNotification, o.FailFast, nested)
		if err == nil {
			err = c.cannotReadLocked(d, body.Bytes(), o.Depth)
		}
		never := in.neverWaits(nested)
		if err == nil && c.roomLocked(cost) && (never != nil || c.notifiers.isTurn(mine)) {
			break
		}
		if err == nil {
			err = never
		}
		if err != nil || o.NoWait {
			c.mu.Unlock()
			return err == nil, err
		}
		room := c.waitRoomLocked()
		if mine == nil {
			mine = c.notifiers.enter()
			c.account.Force(cost)
		}
		c.mu.Unlock()
		select {
		case <-room:
		case <-mine.turn:
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

// notifiers are those who wait to notify, in their order: one whose notification needs
// much of the window would be passed for ever by those that need little.
type notifiers struct{ first, last *notifier }

type notifier struct {
	prev, next *notifier
	turn       chan struct{} // it has become the first
}

func (l *notifiers) enter() *notifier {
	n := &notifier{turn: make(chan struct{}, 1), prev: l.last}
	if l.last == nil {
		l.first = n
	} else {
		l.last.next = n
	}
	l.last = n
	return n
}

func (l *notifiers) leave(n *notifier) {
	if n.next == nil {
		l.last = n.prev
	} else {
		n.next.prev = n.prev
	}
	if n.prev != nil {
		n.prev.next = n.next
	} else if l.first = n.next; l.first != nil {
		l.first.turn <- struct{}{}
	}
}

// isTurn reports whether nobody waits before n.
func (l *notifiers) isTurn(n *notifier) bool { return l.first == nil || l.first == n }

// Behind reports whether a notification of n bytes would have to wait.
func (c *Conn) Behind(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notifiers.first != nil || !c.roomLocked(n+flow.MessageOverhead)
}

// roomLocked reports whether the peer's window and the outgoing budget have
// room for a notification.
func (c *Conn) roomLocked(cost int) bool {
	return c.notify.Fits(cost) && (c.queued == 0 || c.queued+cost <= c.outgoingLocked())
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
