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
	held := 0
	defer func() { c.account.Give(held) }()
	for {
		c.mu.Lock()
		if err := c.unsentLocked(KindNotification, o.FailFast, nested); err != nil {
			c.mu.Unlock()
			return false, err
		}
		if err := c.cannotReadLocked(d, body.Bytes(), o.Depth); err != nil {
			c.mu.Unlock()
			return false, err
		}
		if c.roomLocked(cost) {
			break
		}
		if nested && in.reads() {
			c.mu.Unlock()
			return false, errInline
		}
		if nested && in.ordered {
			c.mu.Unlock()
			return false, status.Errorf(status.FailedPrecondition, "the peer's notification window is spent and this handler runs on the ordered lane, so waiting for it could deadlock; hand it to a goroutine whose context is not the handler's")
		}
		if o.NoWait {
			c.mu.Unlock()
			return true, nil
		}
		room := c.waitRoomLocked()
		c.mu.Unlock()
		if held == 0 {
			held = cost
			c.account.Force(held)
		}
		select {
		case <-room:
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

// Behind reports whether a notification of n bytes would have to wait.
func (c *Conn) Behind(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.roomLocked(n + flow.MessageOverhead)
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
