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
	var mine *spot // nil: it has not waited
	defer func() {
		if mine != nil {
			c.account.Give(cost)
			c.mu.Lock()
			c.unclaimLocked(&c.notifiers)
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
		turn := never == nil && c.notifiers.isTurn(mine)
		if err == nil && (turn && c.roomLocked(cost, &c.notifiers) || never != nil && c.roomLocked(cost, c.claimant())) {
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
		if turn && c.notify.Fits(cost) {
			c.claimLocked(cost, &c.notifiers)
		}
		c.mu.Unlock()
		select {
		case <-room:
		case <-mine.came:
		case <-ctx.Done():
		case <-c.done:
		}
		if ctx.Err() != nil { // before whatever else has ended
			return false, c.GaveUp(ctx, status.NotSent)
		}
	}
	c.claimedLocked(&c.notifiers)
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

// Behind reports whether a notification of n bytes would have to wait.
func (c *Conn) Behind(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.notifiers.taken || !c.roomLocked(n+flow.MessageOverhead, nil)
}

// roomLocked reports whether the peer's window and the outgoing budget have
// room for a notification.
func (c *Conn) roomLocked(cost int, by any) bool {
	return c.notify.Fits(cost) && c.fitsOutLocked(cost, by)
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
