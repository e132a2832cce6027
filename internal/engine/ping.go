package engine

import (
	"context"
	"time"

	"github.com/typedrpc/typedrpc/internal/status"
)

// Ping asks the peer for a sign of life over the link that there is, and returns how long
// that took. Between dialects of ours the shortest round trip known is the least: an ACK
// that was under way answers, too, and no link is faster than its path.
func (c *Conn) Ping(ctx context.Context) (time.Duration, *status.Error) {
	if ctx.Err() != nil { // before whatever else has ended
		return 0, status.Ended(ctx, status.NotSent)
	}
	if err := c.CannotWait(ctx); err != nil {
		return 0, err
	}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return 0, err.Reached(status.NotSent)
	}
	sess, carrier := c.sess, c.carrierLocked()
	if carrier == nil {
		defer c.mu.Unlock()
		return 0, c.noLinkLocked()
	}
	c.mu.Unlock()
	q, ok := carrier.Ask()
	if !ok {
		return 0, status.Errorf(status.Unimplemented, "this connection has no pings: a browser's WebSocket, and a POST, cannot ask in plain JSON-RPC")
	}
	defer carrier.Forget(q)
	select {
	case <-q.Answer:
		return max(q.Took, sess.RTT()), nil
	case <-ctx.Done():
		return 0, status.Ended(ctx, status.NotSent)
	case <-carrier.Done():
		if ctx.Err() != nil {
			return 0, status.Ended(ctx, status.NotSent)
		}
		return 0, &status.Error{Code: status.Unavailable, Message: "the link ended before the ping was answered", Cause: carrier.Err()}
	}
}
