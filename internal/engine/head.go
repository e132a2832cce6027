package engine

import (
	"maps"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// What a stream's handler says beside its items goes ahead of them as HEAD, as far
// as it is known then. All of it comes again with the terminal frame.

// headLocked queues the HEAD, if there is anything to say: in front of the first
// item, whose line is queued behind it.
func (x *Stream) headLocked() *status.Error {
	c := x.conn
	if x.sub() != nil { // plain peers are told no metadata
		x.acceptLocked()
		x.fresh = false
		return nil
	}
	if meta := x.in.Record.Reply(); len(meta) > 0 {
		if err := flow.CheckMeta(meta); err != nil {
			return status.Errorf(status.InvalidArgument, "the reply's metadata cannot be sent: %v", err)
		}
		cost := flow.MetaSize(meta) + answerOverhead
		c.hold(cost)
		f := wire.Frame{Type: wire.Head, ID: x.id, Meta: maps.Clone(meta)} // the handler may go on to change it
		c.queue.push(new(parcel).pack(f, nil, cost))
	}
	x.fresh = false
	return nil
}

// headed takes a HEAD. There is one for each stream, before its items, so that its
// caller, who chose how many streams there are, chose how much can be held of them.
func (c *Conn) headed(f *wire.Frame) error {
	c.mu.Lock()
	x, known := c.streamLocked(f.ID, false)
	switch {
	case !known, x != nil && !x.fresh:
		defer c.mu.Unlock()
		return c.offendedLocked()
	case x == nil || x.failed != nil:
		c.mu.Unlock()
		return nil
	}
	x.fresh = false
	taken := c.account.Take(flow.MetaCost(f.Meta))
	if taken {
		x.meta = f.Meta
	}
	c.mu.Unlock()
	if !taken {
		x.Fail(status.Busy("metadata"))
	}
	return nil
}

// dropHeadLocked gives back what HEAD took of the account: what becomes of its
// metadata is the caller's business now.
func (x *Stream) dropHeadLocked() { x.conn.account.Give(flow.MetaCost(x.meta)) }

// Meta is what has come back at the caller's side so far: what HEAD brought, and when
// the stream has ended all of it. It is not to be changed before.
func (x *Stream) Meta() map[string]string {
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	return x.meta
}

// Between runs fn while no interceptor's function sees an item that came.
func (x *Stream) Between(fn func()) {
	x.looking.Lock()
	defer x.looking.Unlock()
	fn()
}
