package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// refuse takes back the admission of a call whose request was not complete.
func (c *Conn) refuse(in *Inbound, e *status.Error) error {
	c.mu.Lock()
	err := c.takeBackLocked(in, e)
	c.unlockAndWake()
	in.cancel()
	return err
}

func (c *Conn) takeBackLocked(in *Inbound, e *status.Error) error {
	in.detachLocked()
	c.vacateInLocked(in)
	err := c.refuseLocked(in, e)
	c.checkIdleLocked()
	return err
}

// refuseLocked queues a refusal, of which the Recorder is told. It does not wait for the
// outgoing budget, but counts in it: see outbox.overflow.
func (c *Conn) refuseLocked(in *Inbound, e *status.Error) error {
	c.endedLocked(in, int64(e.Code), true)
	f := wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: in.id, RawID: in.rawID, Code: int64(e.Code), Message: status.Clip(e.Code, e.Message)}
	if in.array != nil {
		c.arrayPartLocked(in.array, int(in.index), &f)
	} else {
		// Behind the notifications that wait: its caller may leave when it has it.
		c.pushAnswer(f).ordered = c.closing
	}
	return c.overflow(c.config.Limits.MaxBuffered)
}

// begin handles the call, unless its connection has ended since it was begun.
func (in *Inbound) begin() {
	if in.conn.Ended() {
		in.unrun()
		return
	}
	b := &in.conn.burst
	if !b.looks(in.id) {
		in.run()
		return
	}
	began := time.Now()
	in.run()
	b.note(time.Since(began))
}

// run handles the call, or goes on with it.
func (in *Inbound) run() {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit, as t.FailNow does: still one terminal frame
			in.finish(in.outcome(nil, nil, status.Errorf(status.Internal, "the handler ended its goroutine")))
		}
	}()
	body, meta, err := in.conn.owner.Run(in)
	for err == ErrRests {
		if in.rests() {
			returned = true
			return
		}
		body, meta, err = in.conn.owner.Run(in)
	}
	f, body, err := in.outcome(body, meta, err)
	returned = true // what is behind it is no program's, or may end the goroutine
	in.finish(f, body, err)
}

// unrun is for a call whose connection has ended since it was begun. Where somebody
// is there to be told, because the end is only beginning, it is that no handler ran.
func (in *Inbound) unrun() {
	c := in.conn
	in.over()
	c.mu.Lock()
	c.returnedLocked(in, 0)
	if !in.orphanedLocked() {
		c.awayLocked()
		c.takeBackLocked(in, status.Errorf(status.Unavailable, "the connection is closing"))
	} else {
		c.endedLocked(in, int64(status.Unavailable), true)
	}
	c.unlockAndWake()
	in.dropRequest()
}

// refuseUnbegunLocked refuses the calls that wait for their turn, because this side closes: no
// handler will see them. Behind a GOAWAY they would come again, by themselves, for a peer that is
// cut off: there, as where nobody is to be told, they are dropped. Whoever empties the lane, and
// what is parked, lets go of their requests.
func (c *Conn) refuseUnbegunLocked() (unbegun []*Inbound) {
	if c.sess == nil || c.drained != nil || c.life.away {
		return nil
	}
	unbegun = slices.Clone(c.parked)
	if l := c.lane; l != nil {
		for i := l.leaver.waits; i < l.queue.Len(); i++ {
			if in := l.queue.At(i).in; in != nil {
				unbegun = append(unbegun, in)
			}
		}
	}
	for _, in := range unbegun {
		c.takeBackLocked(in, status.Errorf(status.Unavailable, "the connection is closing"))
	}
	return unbegun
}

// outcome is what the call is answered with, err what its handler returned, or why that cannot
// be sent.
func (in *Inbound) outcome(body *buf.Buf, meta map[string]string, err error) (wire.Frame, *buf.Buf, error) {
	c := in.conn
	f := wire.Frame{Type: wire.Result, Meta: meta}
	if err == nil {
		err = c.checkReply(in, body, meta)
	}
	if x := in.stream; x != nil {
		if e := x.verdict(); e != nil {
			err = e
		}
	}
	if err != nil {
		body.Release()
		body = nil
		f = c.failure(in, err)
	}
	return f, body, err
}

// finish answers the call.
func (in *Inbound) finish(f wire.Frame, body *buf.Buf, err error) {
	c := in.conn
	in.over()
	if in.array == nil { // else it may be too large together with others
		in.record(f.Code, f.Flags&wire.NotRun != 0)
	}
	done, err := c.reply(in, f, body, err)
	switch {
	case !done || !in.Record.Waits():
	case in.reads():
		go c.owner.Replied(in, err) // which may wait
	default:
		c.owner.Replied(in, err)
	}
}

// checkReply refuses a response that cannot be sent.
func (c *Conn) checkReply(in *Inbound, body *buf.Buf, meta map[string]string) error {
	limit := int(c.bounds.bytes.Load())
	if s := in.Record.Decl(); s != nil {
		limit = s.Limit(limit)
	}
	if body.Len() > limit {
		return status.Errorf(status.ResourceExhausted, "the response has %d bytes, the caller takes at most %d", body.Len(), limit)
	}
	if err := flow.CheckMeta(meta); err != nil {
		return fmt.Errorf("the reply's metadata: %v", err) // the handler's defect
	}
	return c.CheckPayload(body.Bytes())
}

// failure makes the frame for a handler's error.
func (c *Conn) failure(in *Inbound, err error) wire.Frame {
	f := c.owner.Failure(in, err)
	if flow.CheckMeta(f.Meta) != nil || (f.Fault != "" || f.Number != 0) && flow.MetaSize(f.Meta) > wire.MaxMeta-wire.MaxFailMeta {
		f.Meta = nil
	}
	if n := len(f.Payload); BoundErrorData(&f) || c.CheckPayload(f.Payload) != nil {
		c.config.Logger.Error("typedrpc: error data dropped: too large or no JSON", "method", in.Record.Name(), "bytes", n)
		f.Payload, f.Fault = nil, ""
	}
	return f
}

// MaxErrorData bounds the typed data of an error.
const MaxErrorData = 64 << 10

// BoundErrorData drops data that is too large, and the fault that it belongs to: to
// some codecs nothing is data too. It reports whether it did.
func BoundErrorData(f *wire.Frame) bool {
	if len(f.Payload) <= MaxErrorData {
		return false
	}
	f.Payload, f.Fault = nil, ""
	return true
}

// replyOverhead is what an answered call keeps in memory, beside the reply's
// bytes, until the reply was written: many small ones are bounded too.
const replyOverhead = 1 << 10

// replyTurnLocked waits for room for a reply in the outgoing budget, holding the
// call's slot, so that a peer that does not read is not served either. Meanwhile
// the account counts the reply: it is there. An array's answer does not wait: what
// is held already may be the rest of its array, which goes out with it. Nor does what
// the reader has run: it would not have where there is no room for about as much.
func (c *Conn) replyTurnLocked(in *Inbound, cost int) (waited bool) {
	waits := func(mine *spot) bool {
		return in.array == nil && !in.reads() && !in.orphanedLocked() && !c.fitsOutLocked(cost, mine)
	}
	if !waits(nil) {
		return false
	}
	c.unsent += cost
	c.account.Force(cost)
	mine := enterLineup(&c.queuers, cost)
	for !mine.isFirst || waits(mine) {
		wait := c.queuers.wait(mine)
		c.mu.Unlock()
		<-wait
		c.mu.Lock()
	}
	leaveLineup(&c.queuers, mine)
	c.unsent -= cost
	c.account.Give(cost)
	return true
}

// unansweredLocked ends a call of which nobody is there to be told, or whose caller wants to
// be told no more. Then it reports true, and mu was given up.
func (c *Conn) unansweredLocked(in *Inbound, err error) (bool, error) {
	if !in.orphanedLocked() {
		return c.partedLocked(in), err
	}
	err = in.lostLocked()
	c.returnedLocked(in, 0)
	c.mu.Unlock()
	return true, err
}

// reply queues the terminal frame, unless nobody is there to answer. It reports false
// where that is an array's, which is queued when all of it has ended: then the owner is
// told elsewhere.
func (c *Conn) reply(in *Inbound, f wire.Frame, body *buf.Buf, err error) (done bool, _ error) {
	defer in.dropRequest()
	body = body.Fit()
	f.ID, f.RawID = in.id, in.rawID
	cost := body.Len() + len(f.Payload) + len(f.Message) + len(f.Fault) + flow.MetaSize(f.Meta) + replyOverhead
	c.mu.Lock()
	waited := c.replyTurnLocked(in, cost)
	if in.lsp && f.Code == int64(status.Canceled) && f.Number == 0 {
		f.Number = wire.CodeCancelled
	}
	if unanswered, err := c.unansweredLocked(in, err); unanswered {
		if waited {
			c.mu.Lock()
			c.gaveWayLocked() // others may have left it room
			c.unlockAndWake()
		}
		body.Release()
		if in.array != nil {
			in.record(f.Code, f.Flags&wire.NotRun != 0)
		}
		return true, err
	}
	if in.array == nil {
		c.queued += cost
		c.returnedLocked(in, cost)
	} else {
		c.returnedLocked(in, 0)
	}
	c.vacateInLocked(in)
	c.soldLocked(in, body.Len()+len(f.Payload))
	c.inBytes -= int(in.cost)
	if in.array != nil {
		if body != nil {
			f.Payload = body.B
		}
		if in.Record.Waits() {
			in.array.waits = append(in.array.waits, replied{in, err})
		}
		f.Code = c.arrayPartLocked(in.array, int(in.index), &f)
		c.endedLocked(in, f.Code, f.Flags&wire.NotRun != 0)
		body.Release()
	} else {
		if body == nil && len(f.Payload) > 0 {
			body = buf.Copy(f.Payload) // an error value may be returned often
		}
		if in.Answer == nil {
			in.Answer = new(Answer)
		}
		it := in.Answer.parcel.pack(f, body, cost)
		it.ordered = in.Record.Waits() // what notifications must not overtake
		c.pushReplyLocked(in, it)
	}
	c.unparkLocked()
	c.checkIdleLocked()
	c.unlockAndWake()
	return in.array == nil, err
}

// pushReplyLocked queues an answer, a stream's behind its items.
func (c *Conn) pushReplyLocked(in *Inbound, it *item) {
	x := in.stream
	if x == nil {
		c.queue.push(it)
		return
	}
	c.dropPartLocked(partID{in.id, true})
	x.concludeLocked(it)
	x.finishLocked()
	x.outletLocked().line.last = it // after its items
	x.line.pushLocked(&c.outbox)
}
