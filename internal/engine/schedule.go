package engine

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

const (
	// fragment is the largest payload that is sent whole where the peer takes
	// fragments, and the size of one (PROTOCOL.md section 1.1).
	fragment = 64 << 10
	// quantum is what a line may add to a batch in one turn: small enough for
	// a few lines to share a batch, large enough not to matter to one alone.
	quantum = 16 << 10
)

// turn is how a turn ended.
type turn uint8

const (
	turnDone  turn = iota // nothing is left to send
	turnMore              // there is more, for another turn
	turnFull              // the batch is full
	turnLater             // a large message that waits until others have left
)

// take is the session's Engine.Take.
func (c *Conn) take(b *session.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takeCreditsLocked(b)
	moved, queued := b.Len() > 0, c.queued
	var now time.Time
	for it := c.queue.head; it != nil; it = c.queue.head {
		var t turn
		had := b.Len()
		if it.turn != nil {
			t = c.takeLineLocked(b, it.turn)
		} else {
			t = c.takeItemLocked(b, it, &now)
		}
		if t == turnFull {
			break
		}
		moved = moved || t != turnLater || b.Len() > had
		c.queue.remove(it)
		switch {
		case t != turnDone:
		case it.turn != nil:
			it.turn.restOutletLocked()
			continue
		case it.call != nil && it.call.stream != nil:
			it.call.stream.pushLocked()
		}
		switch t {
		case turnMore:
			c.queue.push(it)
		case turnLater:
			c.large.push(it)
			c.overtaken = c.overtaken || it.ordered
		}
	}
	c.account.Give(queued - c.queued) // once for all of them
	idle := b.Len() == 0              // the writer asks no more until it is woken
	c.woken = c.woken && !idle
	if !moved {
		return
	}
	c.unparkLocked()
	c.freedLocked()
	c.checkIdleLocked()
	if idle && c.sess != nil && c.outbox.wake() { // what moved was a line whose items were taken back
		c.sess.Wake()
	}
}

// takeItemLocked adds a frame of the queue, or a fragment of it.
func (c *Conn) takeItemLocked(b *session.Batch, it *item, now *time.Time) turn {
	if it.whole {
		if b.Len() > 0 {
			return turnFull
		}
		c.queued -= it.cost
		b.AddMessage(it.body)
		return turnDone
	}
	if it.ordered && it != c.midway && (c.midway != nil || c.overtaken) {
		return turnLater
	}
	f := it.frame
	if t := c.cutLocked(b, &f, it.body.Bytes(), int(it.sent)); t == turnFull || t == turnLater {
		return t
	}
	if cl := it.call; cl != nil {
		if it.sent == 0 {
			c.countCallLocked(it, &f, now)
		}
		f.ID = cl.id
		if f.Flags&wire.More == 0 {
			it.body.Retain() // the batch has its own; ours is for another attempt
		}
	}
	if it.ordered && f.Flags&wire.More != 0 {
		c.midway = it
	} else if it == c.midway {
		c.midway = nil
	}
	if c.addLocked(b, &f, it.body, &it.sent) {
		return turnMore
	}
	if it.call == nil {
		it.body = nil
		c.queued -= it.cost
		if it.frame.Type == wire.Notify {
			c.notify.Counted(it.cost)
			c.account.Force(c.notify.Grown())
		}
	}
	return turnDone
}

// takeLineLocked adds frames of a stream's line.
func (c *Conn) takeLineLocked(b *session.Batch, x *Stream) turn {
	l := &x.line
	for size := 0; !l.empty(); {
		var f wire.Frame
		var body *buf.Buf
		var payload []byte
		var cost int
		item := l.pieces.Len() > 0
		if item {
			p := l.pieces.Front()
			f = x.itemFrame(p)
			body, payload, cost = p.buf, p.bytes(), p.cost()
		} else {
			it := l.last
			f, body, payload, cost = it.frame, it.body, it.body.Bytes(), it.cost
			f.ID = x.id // 0 when an END was queued before the CALL left
		}
		if size > 0 && size+len(payload) > quantum {
			return turnMore
		}
		if t := c.cutLocked(b, &f, payload, int(l.sent)); t == turnFull || t == turnLater {
			if t == turnFull && size > 0 {
				return turnMore // the others' turn, in the next batch
			}
			return t
		}
		size += len(f.Payload) + flow.MessageOverhead
		if c.addLocked(b, &f, body, &l.sent) {
			return turnMore
		}
		c.queued -= cost
		if item {
			l.pieces.Pop()
			x.itemLeftLocked(cost)
		} else {
			l.last.body, l.last = nil, nil
		}
	}
	return turnDone
}

// takeCreditsLocked adds the CREDIT that is due.
func (c *Conn) takeCreditsLocked(b *session.Batch) {
	if c.credits > 0 {
		b.Add(&wire.Frame{Type: wire.Credit, Items: uint64(c.credits)}, nil)
		c.credits = 0
	}
	c.prompt = false
	n := 0
	for _, x := range c.creditors {
		if b.Full() {
			c.prompt = true
			break
		}
		x.takeCreditLocked(b)
		n++
	}
	c.creditors = c.creditors[:copy(c.creditors, c.creditors[n:])]
	clear(c.creditors[len(c.creditors):cap(c.creditors)])
}

// cutLocked makes f, whose payload has left up to sent, the next frame to send:
// the whole, or one fragment. It says whether that can go now.
func (c *Conn) cutLocked(b *session.Batch, f *wire.Frame, payload []byte, sent int) turn {
	rest := payload[sent:]
	if !c.peer.Fragments || len(payload) <= fragment {
		if !b.Fits(f, len(payload)) {
			return turnFull
		}
		f.Payload = payload
		return turnDone
	}
	if sent == 0 && (c.large.len > 0 || c.cutting > 0 && uint64(c.cutting+len(payload)) > c.peer.limits.Budget) {
		return turnLater // the peer assembles only so much at once; first come, first served
	}
	if sent > 0 {
		*f = wire.Frame{Type: wire.Chunk, Flags: chunkFlags(f), ID: f.ID}
	}
	n := min(len(rest), fragment)
	if !b.Fits(f, n) {
		return turnFull
	}
	f.Payload = rest[:n]
	if n < len(rest) {
		f.Flags |= wire.More
	}
	return turnDone
}

// chunkFlags says who sends the rest of f.
func chunkFlags(f *wire.Frame) wire.Flags {
	if f.Type == wire.Call {
		return wire.FromCaller
	}
	return f.Flags & wire.FromCaller
}
