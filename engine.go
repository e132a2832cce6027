package typedrpc

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// engine is the Conn as its session sees it.
type engine struct{ c *Conn }

func (e *engine) Take(b *session.Batch)              { e.c.take(b) }
func (e *engine) GoAway(b wire.GoAwayBody)           { e.c.goingAway(b) }
func (e *engine) Malformed(err error) error          { return e.c.malformed(err) }
func (e *engine) ReceiveArray(fs []wire.Frame) error { return e.c.receiveArray(fs) }

func (e *engine) Auth(c *session.Carrier, b wire.AuthBody) {
	if !e.c.auth {
		c.AuthOK(wire.AuthOKBody{Error: &wire.ErrorBody{Code: int64(Unimplemented), Message: "credentials are not refreshed on this connection"}})
		return
	}
	e.c.accepted.renew(c, b)
}

func (e *engine) AuthOK(b wire.AuthOKBody) error {
	if e.c.dialer == nil {
		return protocolError("AUTH_OK from a client")
	}
	return e.c.dialer.renewed(b)
}

func (e *engine) Receive(f *wire.Frame) error {
	c := e.c
	var body *buf.Buf
	if f.Flags&wire.More != 0 || f.Type == wire.Chunk {
		var err error
		if f, body, err = c.assemble(f); f == nil {
			return err
		}
	}
	switch f.Type {
	case wire.Call:
		return c.called(f, body, nil, 0)
	case wire.Result, wire.Fail:
		return c.answered(f, body)
	case wire.Cancel:
		return c.cancelled(f)
	case wire.Notify:
		return c.notified(f, body)
	case wire.Item:
		return c.received(f, body)
	case wire.End:
		return c.endReceived(f)
	case wire.Credit:
		return c.credited(f)
	case wire.Invalid:
		return c.invalid(f)
	}
	return nil
}

// goingAway takes a GOAWAY: calls that have not left wait for the next session.
func (c *Conn) goingAway(b wire.GoAwayBody) {
	c.mu.Lock()
	c.away = true
	if c.dialer != nil {
		hint := func(ms uint64) time.Duration {
			return time.Duration(min(ms, uint64(maxHint/time.Millisecond))) * time.Millisecond
		}
		c.dialer.window(hint(b.Min), hint(b.Max))
	}
	c.gatherLocked()
	var held items
	for it := c.queue.head; it != nil; {
		next := it.next
		if it.call != nil && it.call.id == 0 && it.call.waits() {
			c.queue.remove(it)
			c.vacateLocked(it.cost)
			held.push(it)
		}
		it = next
	}
	c.waiting.prepend(&held)
	var failed taken
	if !c.heals {
		for it := c.waiting.pop(); it != nil; it = c.waiting.pop() {
			failed.notSent = append(failed.notSent, it.call)
		}
	}
	c.checkIdleLocked()
	c.mu.Unlock()
	failed.settle(Errorf(Unavailable, "the peer is shutting down"))
}
