package engine

import (
	"bytes"
	"errors"
	"runtime"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// arrayReply collects the answers to one array. Its fields are under Conn.mu.
type arrayReply struct {
	parts [][]byte // encoded, in the order of the requests
	open  int      // requests not answered yet
	size  int

	scratch []byte

	waits []replied // answered calls of whose place the owner is told
}

// replied is a call of an array that was answered, with err or nil.
type replied struct {
	in  *Inbound
	err error
}

// tellLocked tells the owner of the calls that were answered, when the array has its
// place in the queue, or has lost it.
func (a *arrayReply) tellLocked(c *Conn, lost bool) {
	if len(a.waits) == 0 {
		return
	}
	for i := range a.waits {
		if lost {
			a.waits[i].err = status.SessionLost(nil)
		}
	}
	go c.tell(a.waits)
	a.waits = nil
}

// tell tells the owner of one after another.
func (c *Conn) tell(all []replied) {
	if len(all) == 0 {
		return
	}
	defer c.tell(all[1:]) // also when the program's function ends the goroutine
	c.owner.Replied(all[0].in, all[0].err)
}

// receiveArray takes an array: its calls run concurrently, and when the last
// has ended one array goes back, or nothing if nothing asked for an answer
// (JSON-RPC 2.0 section 6).
func (c *Conn) receiveArray(fs []wire.Frame, msg *buf.Buf) error {
	a := new(arrayReply)
	for i := range fs {
		if fs[i].Type == wire.Call || fs[i].Type == wire.Invalid {
			a.open++
		}
	}
	a.parts = make([][]byte, a.open)
	index := 0
	for i := range fs {
		var err error
		switch f := &fs[i]; f.Type {
		case wire.Call:
			err = c.called(f, msg.Claim(f.Payload), a, index)
			index++
		case wire.Invalid:
			c.mu.Lock()
			c.arrayPartLocked(a, index, invalidReply(f))
			c.unlockAndWake()
			index++
		default:
			err = (&engine{c: c}).Receive(f, msg)
		}
		if err != nil {
			return err
		}
		if i%crowd == crowd-1 { // a thousand notifications take a millisecond
			runtime.Gosched()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.overflow(c.config.Limits.MaxBuffered)
}

// arrayPartLocked adds one answer and queues the array with the last one. It returns the code
// that the caller is told.
func (c *Conn) arrayPartLocked(a *arrayReply, index int, f *wire.Frame) (code int64) {
	part, err := wire.AppendJSON(a.scratch[:0], f, false)
	if len(part) <= 256 { // as most are, which are to take no more than they need
		a.scratch, part = part, bytes.Clone(part)
	} else {
		a.scratch = nil
	}
	code = f.Code
	most := c.config.Limits.MaxBuffered
	if err != nil || a.size+len(part) > most || c.queued+len(part) > 2*most {
		e := status.Errorf(status.ResourceExhausted, "the answers to this batch are too large together; send its requests one by one")
		if n := len(a.waits); n > 0 && int(a.waits[n-1].in.index) == index {
			a.waits[n-1].err = e // as its caller is told
		}
		fail := wire.Frame{Type: wire.Fail, ID: f.ID, RawID: f.RawID, Code: int64(e.Code), Message: e.Message}
		part, _ = wire.AppendJSON(nil, &fail, false)
		code = fail.Code
	}
	a.parts[index] = part
	a.size += len(part)
	c.hold(len(part)) // here, though it cannot be sent yet
	a.open--
	if a.open > 0 {
		return code
	}
	b := buf.Sized(a.size + len(a.parts) + 2)
	b.B = append(b.B, '[')
	for i, p := range a.parts {
		if i > 0 {
			b.B = append(b.B, ',')
		}
		b.B = append(b.B, p...)
		a.parts[i] = nil
	}
	b.B = append(b.B, ']')
	it := new(parcel).pack(wire.Frame{}, b, a.size)
	it.whole = true
	c.queue.push(it)
	a.tellLocked(c, false)
	return code
}

func invalidReply(f *wire.Frame) *wire.Frame {
	id := f.RawID
	if id == nil {
		id = []byte("null")
	}
	return &wire.Frame{Type: wire.Fail, RawID: append([]byte(nil), id...), Code: f.Code, Message: f.Message}
}

// invalid answers an element that is no valid request.
func (c *Conn) invalid(f *wire.Frame) error {
	return c.complain(invalidReply(f))
}

// malformed takes a message that could not be read at all. Calls that it was meant
// to answer end, and if it was meant for nothing else it is not answered itself.
func (c *Conn) malformed(err error) error {
	var se *wire.SyntaxError
	if !errors.As(err, &se) {
		return err
	}
	for i := range se.Answers {
		if err := c.answered(&se.Answers[i], nil); err != nil {
			return err
		}
	}
	if se.Mute {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.offendedLocked()
	}
	return c.complain(invalidReply(&wire.Frame{RawID: se.ID, Code: se.Code, Message: se.Text}))
}

// complain sends an error outside of any call. A peer that only sends garbage
// is an offender.
func (c *Conn) complain(f *wire.Frame) error {
	c.mu.Lock()
	c.pushAnswer(*f)
	err := c.offendedLocked()
	if err == nil {
		err = c.overflow(c.config.Limits.MaxBuffered)
	}
	c.unlockAndWake()
	return err
}

// odd logs what is strange about a plain peer's answers. What is understood all the
// same is told once for a connection: the peer will not learn.
func (c *Conn) odd(list []wire.Oddity) {
	for _, o := range list {
		if !o.Understood {
			c.config.Logger.Warn("typedrpc: a plain peer's answer cannot be read", "id", o.ID, "problem", o.Text)
			continue
		}
		c.mu.Lock()
		told := c.oddTold
		c.oddTold = true
		c.mu.Unlock()
		if !told {
			c.config.Logger.Warn("typedrpc: a plain peer's answers are not as JSON-RPC 2.0 has them, but understood", "id", o.ID, "problem", o.Text)
		}
	}
}

// ours reports whether a call was made with id, on this link or an earlier one.
func (c *Conn) ours(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id <= c.nextID
}

// unaskedLocked takes an answer to no call in flight. What a plain peer's call that was
// given up is answered with is no offence, because that is not waited for.
func (c *Conn) unaskedLocked(f *wire.Frame) error {
	if c.closing { // every call was given up, all at once
		return nil
	}
	if c.dialect == session.Plain && f.ID != 0 && f.ID <= c.nextID && c.forgotten > 0 {
		c.forgotten--
		return nil
	}
	return c.offendedLocked()
}
