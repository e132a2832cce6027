package engine

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Ended reports whether the caller's side is settled.
func (x *Stream) Ended() bool {
	select {
	case <-x.Done():
		return true
	default:
		return false
	}
}

// Stop ends the stream because of an interceptor's error err, which is e as this
// side sees it. What the peer gets to know of it is decided where all errors of
// handlers are.
func (x *Stream) Stop(e *status.Error, err error) {
	if x.in != nil {
		c := x.conn
		c.mu.Lock()
		x.stopLocked(err)
		c.mu.Unlock()
	}
	x.Fail(e)
}

// Fail ends the stream from this side: what is queued is dropped, and the peer
// is told. The first reason wins.
func (x *Stream) Fail(e *status.Error) {
	if x.in == nil {
		x.call.GiveUp(func(o status.Outcome) *status.Error {
			e := x.call.lacking(e.With(o))
			x.Refuse(e)
			return e
		})
		x.Refuse(unsure(e)) // for one that was settled already
		return
	}
	x.Refuse(unsure(e))
	c := x.conn
	c.mu.Lock()
	x.stopLocked(e)
	c.mu.Unlock()
	x.in.cancel()
}

// stopLocked has the handler's call fail with err, unless it fails with another already.
func (x *Stream) stopLocked(err error) {
	if x.stopped == nil {
		x.stopped = &err
	}
}

// unsure is e, which ends a stream and says nothing of what its peer did, as this side is
// to see it.
func unsure(e *status.Error) *status.Error {
	if e.Outcome == status.NotSent {
		return e.With(status.MayHaveRun)
	}
	return e
}

// expired ends a caller's side whose context has ended.
func (x *Stream) expired() {
	x.call.GiveUp(func(o status.Outcome) *status.Error {
		e := x.call.lacking(x.call.Expired(o))
		x.Refuse(e)
		return e
	})
	x.Refuse(status.Ended(x.call.Ctx, status.MayHaveRun)) // for one that was settled already
}

// verdict is what the call fails with although its handler may think otherwise.
func (x *Stream) verdict() error {
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.stopped == nil {
		return nil
	}
	return *x.stopped
}

// Refuse ends this side of the stream, and tells nobody.
func (x *Stream) Refuse(e *status.Error) {
	c := x.conn
	c.mu.Lock()
	if x.failed == nil {
		x.failed = e
	}
	x.dropReceivedLocked()
	c.movedLocked() // who sends may wait for the connection
	stop := x.untieLocked()
	x.roomLocked()
	c.unlockAndWake()
	stop()
	x.inlet.signal()
}

// untieLocked returns what unties a stream from its context when it was settled
// and all was received: until then the end of the context frees what was not.
func (x *Stream) untieLocked() (stop func()) {
	if x.calling == nil || x.stop == nil || !x.Ended() || x.inlet.waits() {
		return func() {}
	}
	stop, x.stop = x.stop, nil
	return stop
}

// dropSendLocked gives up what has not been sent, and what the peer owes.
func (x *Stream) dropSendLocked() {
	c := x.conn
	x.closed, x.dropped = true, true
	if x.outlet != &unsent {
		x.line.dropLocked(&c.outbox)
		x.pack.rest()
	}
	x.forgiveLocked()
	x.roomLocked()
	x.restOutletLocked()
	c.unparkLocked()
	c.movedLocked()
}

// forgiveLocked forgets what the peer owes.
func (x *Stream) forgiveLocked() {
	if x.outlet != &unsent {
		x.conn.sentItems -= x.flow.Used
		x.conn.account.Force(x.flow.Forget())
	}
}

// settle ends the caller's side with the call.
func (x *Stream) settle(body *buf.Buf, meta map[string]string, err *status.Error) {
	c := x.conn
	c.mu.Lock()
	x.dropSendLocked()
	x.dropHeadLocked()
	x.result, x.err = body, err
	if meta != nil || err == nil { // one that ended without a word has what came before
		x.meta = meta
	}
	if !x.held {
		x.over = true
	}
	x.sess = nil // nothing is credited any more
	if x.inlet != nil {
		x.returnLocked(x.window.out)
		x.unspendLocked()
	}
	x.shrinkLocked()
	close(x.done)
	stop := x.untieLocked()
	c.movedLocked()
	c.mu.Unlock()
	stop()
	x.inlet.signal()
}

// Conclude sets what a held stream ends with, and the metadata of its reply.
func (x *Stream) Conclude(meta map[string]string, err *status.Error) {
	c := x.conn
	c.mu.Lock()
	x.over, x.err, x.meta = true, err, meta
	c.mu.Unlock()
	x.inlet.signal()
}

// Leave ends the caller's side for good: whoever used it has gone.
func (x *Stream) Leave() {
	left := &status.Error{Code: status.Canceled, Message: "this side left the stream", Cause: context.Canceled}
	x.Fail(left)
	<-x.done // giveUp settles the call, or somebody is just doing so
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	x.result.Release()
	x.result = nil
	x.call.Taken()
}

// callerLeftLocked takes a CANCEL: the caller does not want what has not left,
// and the handler is not to see what came before. The terminal frame is still
// to come.
func (x *Stream) callerLeftLocked() {
	x.dropSendLocked()
	if x.failed == nil {
		x.failed = &status.Error{Code: status.Canceled, Message: "the caller left the stream", Outcome: status.MayHaveRun, Cause: context.Canceled}
	}
	x.dropReceivedLocked()
	x.inlet.signal()
}

// finishLocked ends the handler's side: its handler has returned. What is in
// the line still leaves, and then the terminal frame.
func (x *Stream) finishLocked() {
	x.closed, x.over = true, true
	if x.failed == nil {
		x.failed = status.Errorf(status.FailedPrecondition, "the stream has ended: its handler has returned")
	}
	x.dropReceivedLocked()
	x.sess = nil
	if x.inlet != nil {
		x.returnLocked(x.window.out)
		x.unspendLocked()
	}
	x.forgiveLocked()
	x.grantLocked(0)
	x.conn.movedLocked()
	x.roomLocked()
	x.inlet.signal()
}

// dropReceivedLocked gives up what has come and was not received.
func (x *Stream) dropReceivedLocked() {
	if x.inlet == nil {
		return
	}
	c := x.conn
	for x.got.Len() > 0 {
		p := x.got.Pop()
		c.give(p.cost())
		p.buf.Release()
	}
	x.gotPack.rest()
	x.unspendLocked()
	x.shrinkLocked()
}

// Answer waits for the end of a stream with a response and returns it.
func (x *Stream) Answer() ([]byte, error) {
	<-x.done
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.err != nil {
		return nil, x.err
	}
	raw := append([]byte(nil), x.result.Bytes()...)
	return raw, nil
}

// Abandon ends a handler's side for whoever used it: what has not been sent or
// received is dropped. The call is still answered.
func (x *Stream) Abandon(e *status.Error) {
	x.Refuse(unsure(e))
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	if x.sess != nil { // else its terminal frame is in the line
		x.dropSendLocked()
	}
}

// ContextErr is why the handler's context ended. It is for the handler's side
// alone.
func (x *Stream) ContextErr() error { return x.in.Err() }

// Uncredited is how many bytes of items were sent or queued and are not credited.
func (x *Stream) Uncredited() int {
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	return x.flow.Used
}
