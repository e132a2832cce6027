package engine

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// partID names a message that comes in parts: there is one at most for each
// call and sender, and one for the notifications, whose id is 0.
type partID struct {
	id         uint64
	fromCaller bool
}

func partOf(f *wire.Frame) partID {
	return partID{f.ID, f.Flags&wire.FromCaller != 0 || f.Type == wire.Call}
}

// parts are messages of which parts have come, whoever sent them. What becomes of
// the whole is decided elsewhere. Under Conn.mu.
type parts struct {
	partial map[partID]*assembly // nil until there is one
	pace    pace
}

// assembly is a message of which parts have come.
type assembly struct {
	frame wire.Frame // the first, without its payload
	in    *Inbound   // CALL: the call that waits for the rest of its request
	body  *buf.Buf
	taken int  // bytes of the budgets; a call counts its own
	spare int  // bytes of the account for what body has room for beside those
	meta  int  // … and for its metadata; a call counts its own
	over  bool // it was refused: the rest is dropped
	late  bool // … a notification, for being slow: what is told of it waits for the rest

	// how it gets on: see pace
	seen   bool          // it was there when they were looked at
	came   int           // bytes since it was last not behind …
	waited time.Duration // … how long that is ago …
	among  int           // … and the most that were under way together since then
	looks  int           // on this link that are certain, at which it was there
	parts  int           // when it had its last: bytes of all parts …
	begun  int           // … how many messages had been begun …
	others int           // … and how many were under way
}

// behind is how many bytes more should have come.
func (a *assembly) behind(l *flow.Limits) float64 {
	return l.Least(a.waited)/float64(max(a.among, 1)) - float64(a.came)
}

// assemble takes a frame with MORE, or a CHUNK. When a message is whole that
// is no CALL, it is returned with the buffer that its payload lives in.
func (c *Conn) assemble(f *wire.Frame) (whole *wire.Frame, body *buf.Buf, err error) {
	if !c.peer.Fragments {
		return nil, nil, protocolError("fragments were not announced")
	}
	key := partOf(f)
	c.mu.Lock()
	a := c.partial[key]
	if a != nil && f.Type == wire.Result && a.frame.Type == wire.Item {
		c.endPartLocked(key, a) // cut off by our CANCEL
		a = nil
	}
	switch {
	case f.Type == wire.Chunk && a == nil:
		err = c.strayLocked(f)
		c.unlockAndWake()
		return nil, nil, err
	case f.Type != wire.Chunk && a != nil:
		c.mu.Unlock()
		return nil, nil, protocolError("a fragmented message in the middle of another")
	case f.Type == wire.Call:
		c.mu.Unlock()
		return nil, nil, c.called(f, nil, nil, 0) // adds the assembly
	case f.Type == wire.Item || f.Type == wire.Result:
		// What nobody takes is not put together: it would never be whole.
		wanted, err := c.wantedLocked(f)
		if !wanted {
			c.unlockAndWake()
			return nil, nil, err
		}
		fallthrough
	case f.Type != wire.Chunk:
		a = c.newAssembly(f)
		a.meta = flow.MetaCost(f.Meta)
		c.account.Force(a.meta)
		c.addPartLocked(key, a)
	}
	return c.grow(key, a, f)
}

// grow adds a part to a message, and gives mu back. When the message is whole, or
// more than is taken, it leaves the parts.
func (c *Conn) grow(key partID, a *assembly, f *wire.Frame) (whole *wire.Frame, body *buf.Buf, err error) {
	var e *status.Error
	last := f.Flags&wire.More == 0
	if !a.over {
		e = c.growPartLocked(a, f.Payload, last)
	}
	if e != nil {
		c.undoneLocked(key, a, len(f.Payload))
		c.endPartLocked(key, a)
		a.over = true
	}
	switch {
	case last:
		delete(c.partial, key)
		switch {
		case !a.over:
			body = a.body
			if a.in != nil {
				a.in.held += int32(a.spare) // the call keeps it
				a.spare = 0
			}
			c.unlendPartLocked(a)
		case a.late:
			e = status.Errorf(status.ResourceExhausted, "it came too slowly")
		}
	case a.over && key.id == 0:
		c.partial[key] = a // to drop the rest; that of a call is dropped without it
	}
	if a.in != nil && body != nil {
		c.admitted(a.in, body)
		return nil, nil, nil
	}
	c.mu.Unlock()
	switch {
	case e != nil:
		return nil, nil, c.refusePart(a, e)
	case body == nil:
		return nil, nil, nil
	}
	body = body.Fit()
	a.frame.Payload = body.B
	return &a.frame, body, nil
}

// newAssembly begins a message with f, without its payload. It has room for a
// second part like that.
func (c *Conn) newAssembly(f *wire.Frame) *assembly {
	a := &assembly{frame: *f, body: buf.Sized(min(2*len(f.Payload), c.config.Limits.MaxMessage))}
	a.frame.Payload, a.frame.Flags = nil, f.Flags&^wire.More
	a.spare = cap(a.body.B)
	c.account.Force(a.spare)
	return a
}

// requestOf begins the request of a call, whose first part is accounted for.
func (c *Conn) requestOf(in *Inbound, f *wire.Frame) *assembly {
	a := c.newAssembly(f)
	a.frame.Flags, a.in = f.Flags, in
	a.body.B = append(a.body.B, f.Payload...)
	a.spare -= len(f.Payload)
	c.partCameLocked(a, len(f.Payload))
	c.account.Give(len(f.Payload)) // the call counts it
	return a
}

// widenLocked makes room for n bytes more, and for others unless they are the
// last. It reports whether the account pays for it.
func (c *Conn) widenLocked(a *assembly, n int, last bool) bool {
	had, need := cap(a.body.B), a.body.Len()+n
	if need <= had {
		return true
	}
	size := 2 * had
	switch {
	case last:
		size = need
	case had >= 4*fragment:
		size = had / 2 * 3 // what is whole may keep its buffer
	}
	size = buf.Room(max(need, min(size, c.config.Limits.MaxMessage)))
	if !c.account.Take(size - had) {
		return false
	}
	a.spare += size - had
	body := buf.Sized(size)
	body.B = append(body.B, a.body.B...)
	a.body.Release()
	a.body = body
	return true
}

// wantedLocked reports whether somebody takes the RESULT or ITEM f. err is not
// nil when that is one offence too many.
func (c *Conn) wantedLocked(f *wire.Frame) (wanted bool, err error) {
	if f.Type == wire.Item {
		x, err := c.receiverLocked(f)
		return x != nil, err
	}
	if _, wanted = c.pending[f.ID]; !wanted && !c.closing {
		err = c.offendedLocked()
	}
	return wanted, err
}

// strayLocked takes a CHUNK of nothing: the rest of a message for a call that
// has ended is dropped.
func (c *Conn) strayLocked(f *wire.Frame) error {
	if f.ID == 0 {
		return protocolError("CHUNK of no message")
	}
	x, known := c.streamLocked(f.ID, f.Flags&wire.FromCaller != 0)
	if !known {
		return c.offendedLocked()
	}
	if x != nil && x.Takes() && x.failed != nil {
		x.droppedLocked(len(f.Payload))
	}
	return nil
}

// growPartLocked adds a part, or says which limit it would pass.
func (c *Conn) growPartLocked(a *assembly, part []byte, last bool) *status.Error {
	limits := &c.config.Limits
	held, most := c.unread, c.mostUnread()
	if a.in != nil {
		held, most = c.inBytes, 2*limits.MaxBuffered
	}
	switch {
	case a.body.Len()+len(part) > limits.MaxMessage+listBytes:
		return tooLong(limits.MaxMessage)
	case held > 0 && held+len(part) > most:
		return status.Errorf(status.ResourceExhausted, "%d bytes have not been received, no more are taken", held)
	case !c.widenLocked(a, len(part), last):
		return status.Busy("a message")
	}
	a.body.B = append(a.body.B, part...)
	a.spare -= len(part)
	c.partCameLocked(a, len(part))
	if a.in != nil {
		a.in.cost += int32(len(part))
		a.in.held += int32(len(part))
		c.inBytes += len(part)
	} else {
		a.taken += len(part)
		c.unread += len(part)
	}
	if last && !Fits(a.body.B, limits.MaxMessage) {
		return tooLong(limits.MaxMessage)
	}
	return nil
}

func tooLong(most int) *status.Error {
	return status.Errorf(status.ResourceExhausted, "the message has more than the %d bytes that are taken", most)
}

// unlendPartLocked gives back what an assembly holds of the budgets.
func (c *Conn) unlendPartLocked(a *assembly) {
	c.give(a.taken)
	c.account.Give(a.spare + a.meta)
	a.taken, a.spare, a.meta = 0, 0, 0
}

// undoneLocked counts n bytes of an item that is not put together any more (see droppedLocked).
func (c *Conn) undoneLocked(key partID, a *assembly, n int) {
	if a.frame.Type != wire.Item {
		return
	}
	if x, _ := c.streamLocked(key.id, key.fromCaller); x != nil && x.Takes() {
		x.droppedLocked(n)
	}
}

// endPartLocked gives up an assembly.
func (c *Conn) endPartLocked(key partID, a *assembly) {
	c.undoneLocked(key, a, a.body.Len()+flow.MessageOverhead)
	delete(c.partial, key)
	c.unlendPartLocked(a)
	a.body.Release()
	a.body, a.frame.Meta = nil, nil
}

// dropPartLocked gives up the unfinished message of a call that has ended, and
// says what it was.
func (c *Conn) dropPartLocked(key partID) wire.Type {
	a := c.partial[key]
	if a == nil {
		return wire.Invalid
	}
	c.endPartLocked(key, a)
	return a.frame.Type
}

// refusePart fails the call that an assembly belongs to, and not the link.
func (c *Conn) refusePart(a *assembly, e *status.Error) error {
	f := &a.frame
	switch f.Type {
	case wire.Call:
		return c.refuse(a.in, e)
	case wire.Notify: // keeps its place, so that it is credited in its turn
		return c.notified(&wire.Frame{Type: wire.Notify, Method: f.Method, Flags: wire.More}, nil)
	case wire.Result:
		return c.answered(&wire.Frame{Type: wire.Fail, ID: f.ID, Code: int64(e.Code), Message: e.Message, Meta: f.Meta}, nil)
	}
	c.mu.Lock()
	x, _ := c.streamLocked(f.ID, f.Flags&wire.FromCaller != 0)
	c.mu.Unlock()
	if x != nil {
		x.Fail(e)
	}
	return nil
}
