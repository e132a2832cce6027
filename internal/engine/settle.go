package engine

import (
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// countCallLocked gives a call its id at the moment it is counted.
func (c *Conn) countCallLocked(it *item, f *wire.Frame, now *time.Time) {
	cl := it.call
	c.nextID++
	f.ID = c.nextID
	cl.id, cl.unmade = f.ID, false
	c.pending[f.ID] = inFlight{cl, cl.place()}
	if !cl.deadline.IsZero() {
		if now.IsZero() {
			*now = time.Now()
		}
		f.TimeLeft = max(1, flow.Millis(cl.deadline.Sub(*now)))
	}
	if cl.stream != nil {
		cl.stream.beginLocked(f.ID)
	}
	if k := cl.Key; k != nil {
		f.Meta = k.Stamp(f.Meta)
	}
}

// answered takes a RESULT or FAIL; body is the buffer that the payload lives
// in, nil if there is none.
func (c *Conn) answered(f *wire.Frame, body *buf.Buf) error {
	c.mu.Lock()
	c.dropPartLocked(partID{f.ID, false})
	in, ok := c.pending[f.ID]
	if !ok {
		err := c.unaskedLocked(f)
		stranger := c.dialect == session.Plain && f.ID > c.nextID
		c.mu.Unlock()
		body.Release()
		if stranger {
			c.config.Logger.Warn("typedrpc: a plain peer answered a call that was never made", "id", f.ID)
		}
		return err
	}
	delete(c.pending, f.ID)
	c.vacateLocked(in.place)
	cl := in.call
	if cl != nil && cl.item.list != nil {
		c.unqueueLocked(&cl.item) // refused before the whole of it was sent
	}
	if cl != nil && f.Type == wire.Fail && c.sendLaterLocked(cl, f) {
		cl = nil
	}
	var full *status.Error
	if cl != nil {
		full = c.holdAnswerLocked(cl, f, body)
	}
	away := c.peer.away
	c.admitLocked()
	c.checkIdleLocked()
	c.unlockAndWake()
	switch {
	case cl == nil:
		body.Release()
	case full != nil && f.Type == wire.Result:
		body.Release()
		cl.Settle(nil, nil, full)
	case f.Type == wire.Fail:
		if full != nil { // what happened is told, and no more
			f.Message, f.Payload, f.Meta = full.Message, nil, nil
		}
		err := c.fromPeer(f)
		if away && cl.stream != nil && err.Code == status.Unavailable && err.Outcome == status.Answered {
			err = err.Broken() // by the peer's shutdown, and not by its handler's will
		}
		cl.Settle(nil, f.Meta, err)
	default:
		if body == nil {
			body = buf.Copy(f.Payload)
		}
		cl.Settle(body, f.Meta, nil)
	}
	return nil
}

// holdAnswerLocked counts the answer to a call that a handler makes as the
// handler's, which may have many and take none of them: their calls' peer
// made it. It counts until it was Taken. It says why the answer cannot be taken.
func (c *Conn) holdAnswerLocked(cl *Call, f *wire.Frame, body *buf.Buf) *status.Error {
	in := cl.within
	if in == nil || in.held <= 0 || c.config.Ledger == nil { // it has returned, or nobody counts
		return nil
	}
	n := sizeOf(body, f.Payload) + flow.MetaCost(f.Meta) + len(f.Message)
	if int(in.held)+n > math.MaxInt32 || !c.account.Take(n) {
		return answersFull()
	}
	if cl.Shared || cl.stream != nil {
		c.answeredLocked(cl, n)
		return nil
	}
	cl.answered += int32(n)
	in.held += int32(n)
	c.account.Serve(n)
	return nil
}

func answersFull() *status.Error {
	return status.Errorf(status.ResourceExhausted, "the server is nearly full, and the peer of this handler holds its share of it")
}

// Taken says that the program has what the call was answered with. A handler may run, and
// call, for days.
func (cl *Call) Taken() {
	if cl.answer != nil {
		cl.answer.gone()
	}
	in, n := cl.within, cl.answered
	if n == 0 {
		return
	}
	cl.answered = 0
	in.conn.mu.Lock()
	defer in.conn.mu.Unlock()
	if in.held > 0 { // else it has returned, with all that it held
		in.held -= n
		in.conn.account.Served(int(n), 0)
	}
}

// sendLaterLocked keeps a call that a draining server refused for the next
// session.
func (c *Conn) sendLaterLocked(cl *Call, f *wire.Frame) bool {
	if !c.config.Heals || !c.peer.away || f.Flags&wire.NotRun == 0 || status.Code(f.Code) != status.Unavailable {
		return false
	}
	if !cl.waits() || cl.stream != nil && cl.stream.sends {
		return false // items have left
	}
	// In front of what was made after it, so that Serial calls keep their
	// order.
	cl.id = 0
	c.waiting.insert(&cl.item)
	return true
}

// taken are calls that were taken out of the tables when a session or the
// connection ended: those that never left and those that may have run.
type taken struct {
	notSent, mayHaveRun []*Call

	lost bool // with their session, and not by this side's will
}

// outOf is what a call is told that the end of its connection, or session, ends with
// err: that, unless its own context had ended before.
func (cl *Call) outOf(err *status.Error) *status.Error {
	if cl.Ctx.Err() != nil {
		return status.Ended(cl.Ctx, err.Outcome)
	}
	return err
}

// settle fails them all with cause, each with its own outcome.
func (t taken) settle(cause *status.Error) {
	for _, group := range []struct {
		calls   []*Call
		outcome status.Outcome
	}{{t.notSent, status.NotSent}, {t.mayHaveRun, status.MayHaveRun}} {
		for _, cl := range group.calls {
			err := cause.With(group.outcome)
			switch {
			case cl.stream == nil || group.outcome == status.NotSent:
			case t.lost:
				err = status.LostItems(cause)
			default:
				err.Message += "; items of the stream may be missing"
			}
			cl.Settle(nil, nil, cl.outOf(err))
		}
	}
}

type refusal struct {
	call *Call
	err  *status.Error
}

type refusals []refusal

func (r refusals) settleEach() {
	for _, x := range r {
		x.call.Settle(nil, nil, x.err)
	}
}
