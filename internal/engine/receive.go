package engine

import (
	"io"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Next returns the next item, with the reference to its buffer.
func (x *Stream) Next() (p Item, data []byte, err error) {
	c := x.conn
	if x.Takes() && x.inspected() {
		x.receiving.Lock()
		defer x.receiving.Unlock()
	}
	for {
		if x.in != nil && x.in.Err() != nil {
			return p, nil, x.why()
		}
		c.mu.Lock()
		if e := x.brokenLocked(); e != nil {
			c.mu.Unlock()
			x.inlet.signal()
			return p, nil, e
		}
		if x.inlet.waits() {
			p = x.nextLocked()
			data = p.bytes()
			x.receivedLocked(p.cost())
			more := x.got.Len() > 0 || x.over
			stop := x.untieLocked()
			c.unlockAndWake()
			stop()
			if more {
				x.inlet.signal()
			}
			if c.config.Recorder != nil {
				x.record(false, len(data))
			}
			if x.inspected() {
				if err := x.look(data); err != nil {
					p.buf.Release()
					return Item{}, nil, err
				}
			}
			return p, data, nil
		}
		over, end := x.over, (*status.Error)(nil) // the caller of a handler's items has none but them
		if x.calling != nil {
			end = x.err
		}
		c.mu.Unlock()
		if over {
			x.inlet.signal()
			if end != nil {
				return p, nil, end
			}
			return p, nil, io.EOF
		}
		select {
		case <-x.arrived:
		case <-x.Gone():
		}
	}
}

// look has the interceptors' functions see an item that came. One that panics, on its caller's
// goroutine, is not to keep the others from their end.
func (x *Stream) look(data []byte) error {
	x.looking.Lock()
	defer x.looking.Unlock()
	return x.inspect(data, false)
}

// nextLocked takes the oldest item, or the newest where only that counts and items have
// waited for longer than a burst: those before it are dropped here, and counted as what
// the peer drops is.
func (x *Stream) nextLocked() Item {
	p := x.got.Pop()
	if !x.decl.Newest || time.Since(x.since) < flow.Burst {
		return p
	}
	for p.Flags&wire.History == 0 && x.got.Len() > 0 {
		dropped := flow.Missed(p.Dropped, 1)
		x.receivedLocked(p.cost())
		p.buf.Release()
		p = x.got.Pop()
		p.Dropped = flow.Missed(dropped, p.Dropped)
	}
	return p
}

// received takes an ITEM.
func (c *Conn) received(f *wire.Frame, body *buf.Buf) error {
	c.mu.Lock()
	x, err := c.receiverLocked(f)
	if x == nil {
		c.unlockAndWake()
		body.Release()
		return err
	}
	e := x.overLimitLocked(len(f.Payload))
	if e != nil {
		x.droppedLocked(len(f.Payload) + flow.MessageOverhead)
		c.unlockAndWake()
		body.Release()
		x.Fail(e)
		return nil
	}
	var p Item
	if body != nil {
		p = Item{buf: body, n: uint32(len(body.B))}
	} else {
		p = x.gotPack.put(f.Payload, x.got.Len() > 0)
	}
	p.Flags, p.Dropped = f.Flags&wire.History, f.Dropped
	x.window.prompt = f.Flags&wire.Prompt != 0
	x.got.Push(p)
	x.fresh = x.fresh && x.in != nil
	x.window.out += p.cost()
	c.unread += p.cost()
	c.out += p.cost()
	first := x.got.Len() == 1
	if first && x.decl.Newest {
		x.since = time.Now()
	}
	x.pressLocked()
	c.unlockAndWake()
	if first {
		x.inlet.signal()
	}
	return nil
}

// pressLocked has what is due leave at once, where it may hold the sender back by now.
func (x *Stream) pressLocked() {
	c := x.conn
	c.prompt = c.prompt || len(c.creditors) > 0 && (x.window.due > 0 && x.pressingLocked() || c.pressingLocked())
}

// droppedLocked counts n bytes of an item that is not taken because this side has failed, or
// is about to. Where that is the handler's the peer learns of it when the handler returns. Until
// then they count in what its other streams may have out, and so they do here.
func (x *Stream) droppedLocked(n int) {
	if x.in == nil || x.over {
		return
	}
	w := &x.window
	// Nobody may have more out, and who has is owed nothing for it.
	most := max(2*w.size, flow.Slack(w.size)+x.conn.config.Limits.MaxMessage+flow.MessageOverhead)
	n = max(0, min(n, most-w.out))
	w.out += n
	x.conn.out += n
	x.pressLocked()
}

// receiverLocked finds the stream that takes the ITEM f. nil: it is dropped,
// silently if the stream has ended.
func (c *Conn) receiverLocked(f *wire.Frame) (*Stream, error) {
	x, known := c.streamLocked(f.ID, f.Flags&wire.FromCaller != 0)
	switch {
	case !known || x != nil && !x.Takes():
		return nil, c.offendedLocked()
	case x == nil || x.over:
		return nil, nil
	case x.failed != nil:
		x.droppedLocked(len(f.Payload) + flow.MessageOverhead)
		return nil, nil
	}
	return x, nil
}

// endReceived takes an END: the caller sends no more items.
func (c *Conn) endReceived(f *wire.Frame) error {
	c.mu.Lock()
	x, known := c.streamLocked(f.ID, true)
	if !known || x == nil && c.inbound[f.ID] != nil || x != nil && !x.Takes() {
		defer c.mu.Unlock()
		return c.offendedLocked()
	}
	if x != nil {
		x.over = true
		c.prompt = c.prompt || x.window.due > 0 && x.sends // no item comes that would bring it along
	}
	c.unlockAndWake()
	if x != nil {
		x.inlet.signal()
	}
	return nil
}

// streamLocked finds the stream that a frame with id is for. known says that
// there has been such a call.
func (c *Conn) streamLocked(id uint64, fromCaller bool) (x *Stream, known bool) {
	if fromCaller {
		if in := c.inbound[id]; in != nil {
			return in.stream, true
		}
		return nil, id <= c.lastIn
	}
	if cl := c.pending[id].call; cl != nil {
		return cl.stream, true
	}
	return nil, id <= c.nextID
}

// overLimitLocked says why an item of n bytes cannot be taken: then the stream
// fails, and not the link. The item's bytes are in the budgets if it can.
func (x *Stream) overLimitLocked(n int) *status.Error {
	c, w := x.conn, &x.window
	limits := &c.config.Limits
	cost := n + flow.MessageOverhead
	if most := x.decl.Limit(limits.MaxMessage); n > most {
		return status.Errorf(status.ResourceExhausted, "an item of %q has %d bytes, at most %d are taken", x.decl.Name, n, most)
	}
	// Beside the slack the peer may have one item out whatever its size. Beyond its
	// window it has no business; twice that is tolerated (PROTOCOL.md section 3).
	if w.out > flow.Slack(w.size) && w.out+cost > 2*w.size {
		return status.Errorf(status.ResourceExhausted, "the peer of %q sends beyond its window of %d bytes", x.decl.Name, w.size)
	}
	if c.unread > 0 && c.unread+cost > c.mostUnread() {
		return status.Errorf(status.ResourceExhausted, "%d bytes of items and fragments have not been received, no more are taken", c.unread)
	}
	if !c.account.Take(cost) {
		return status.Busy("an item")
	}
	return nil
}

// mostUnread bounds what a peer can make us hold of items and fragments. One
// that keeps to PROTOCOL.md section 3 has at most our budget and as much in
// small items, or one message, and our budget in fragments of answers.
func (c *Conn) mostUnread() int {
	l := &c.config.Limits
	return 3*l.MaxBuffered + l.MaxMessage + l.MaxCalls*smallItem
}
