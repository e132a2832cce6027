package typedrpc

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// sendNotification queues a notification. It waits, with ctx, for the peer's
// window and for the outgoing budget; with wait false it reports busy instead.
func (c *Conn) sendNotification(ctx context.Context, s *spec, body *buf.Buf, meta Metadata, o notifyOptions) (busy bool, err *Error) {
	cost := body.Len() + meta.size() + messageOverhead
	in := inboundFrom(ctx)
	nested := in != nil && in.req.Conn == c
	for {
		c.mu.Lock()
		if err := c.unsentLocked(KindNotification, o.failFast, nested); err != nil {
			c.mu.Unlock()
			return false, err
		}
		if limit := s.sizeLimit(int(min(c.peer.Message, maxMessageCeiling))); body.Len() > limit {
			c.mu.Unlock()
			return false, Errorf(ResourceExhausted, "notification %q has %d bytes, at most %d can be sent", s.name, body.Len(), limit)
		}
		if c.roomLocked(cost) {
			break
		}
		if nested && in.ordered {
			c.mu.Unlock()
			return false, Errorf(FailedPrecondition, "the peer's notification window is spent and this handler runs on the ordered lane, so waiting for it could deadlock; hand it to a goroutine whose context is not the handler's")
		}
		if o.noWait {
			c.mu.Unlock()
			return true, nil
		}
		room := c.waitRoomLocked()
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false, ended(ctx, NotSent)
		case <-c.done:
		}
	}
	c.notify.used += cost
	c.queued += cost
	c.queue.push(&item{
		frame:   wire.Frame{Type: wire.Notify, Method: s.name, Meta: meta},
		body:    body.Retain(),
		cost:    cost,
		ordered: true,
	})
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	return false, nil
}

// behind reports whether a notification of n bytes would have to wait.
func (c *Conn) behind(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.roomLocked(n + messageOverhead)
}

// roomLocked reports whether the peer's window and the outgoing budget have
// room for a notification.
func (c *Conn) roomLocked(cost int) bool {
	return c.notify.fits(cost) && (c.queued == 0 || c.queued+cost <= c.outgoingLocked())
}

type notifyOptions struct{ failFast, noWait bool }
