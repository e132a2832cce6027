package engine

import (
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// The body of a POST can be the items of a client stream (PROTOCOL.md section 9). The stream
// is an ordinary one to its handler. What is other is how it is begun, by a verb, and that
// its items come by Feed, which waits for room in the window, and not from a peer that keeps
// to it.

// Feed gives the stream that a verb of Feeds has begun its next item, which is copied. It
// waits until there is room for it, and reports false where the stream takes no more, or when
// left or killed is closed before. One call at a time.
func (c *Conn) Feed(item []byte, left, killed <-chan struct{}) bool {
	cost := len(item) + flow.MessageOverhead
	for {
		c.mu.Lock()
		x := c.fedLocked()
		if x == nil {
			c.mu.Unlock()
			return false
		}
		room := x.window.out == 0 || x.window.out+cost <= x.window.size
		c.mu.Unlock()
		if room {
			return c.received(&wire.Frame{Type: wire.Item, ID: x.id, Flags: wire.FromCaller, Payload: item}, nil) == nil
		}
		select {
		case <-x.fed:
		case <-x.Gone():
			return false
		case <-left:
			return false
		case <-killed:
			return false
		}
	}
}

// EndFeed says that there are no more items: all have come, or, with an error, which the call
// fails with, they have not.
func (c *Conn) EndFeed(e *status.Error) {
	c.mu.Lock()
	x := c.fedLocked()
	if x != nil && e == nil {
		x.over = true
	}
	c.mu.Unlock()
	switch {
	case x == nil:
	case e == nil:
		x.inlet.signal()
	default:
		x.Fail(e)
	}
}

// fedLocked is the stream that a verb has begun; nil: it takes no more.
func (c *Conn) fedLocked() *Stream {
	in := c.inbound[c.lastIn]
	if in == nil || in.stream == nil || in.stream.inlet == nil || in.stream.fed == nil {
		return nil
	}
	if x := in.stream; !x.over && x.brokenLocked() == nil {
		return x
	}
	return nil
}

// roomFedLocked tells Feed that items were consumed.
func (x *Stream) roomFedLocked() {
	w := &x.window
	x.returnLocked(w.spent)
	x.unspendLocked()
	signal(x.fed)
}
