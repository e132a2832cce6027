package engine

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// life is how and why the connection ends, and who waits for that. Under Conn.mu,
// but for ctx, cancel and done, which are fixed.
type life struct {
	ctx      context.Context // ends with the connection
	cancel   context.CancelCauseFunc
	done     chan struct{}   // closed when everything of the connection has ended
	closing  bool            // Close was called or the connection failed: nothing new
	away     bool            // it said GOAWAY because of that
	finished bool            // everything of it has ended but handlers
	polite   bool            // the session's peer has closed it …
	parted   atomic.Bool     // … and that was the connection's end
	drained  chan struct{}   // not nil while draining: closed when nothing is in flight
	quiet    chan struct{}   // made with it: closed when nothing but streams is
	bye      wire.GoAwayBody // what the peer is told then, on every link
	err      *status.Error   // why the connection ended
	endings  int             // how many have taken handlers whose contexts they are about to end …
	noneEnds chan struct{}   // … closed when nobody has; nil: nobody waits
}

// endingLocked notes that contexts of handlers are about to end, which nobody else finds any more.
func (l *life) endingLocked() { l.endings++ }

// ended notes that they have.
func (c *Conn) ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.endings--; c.endings == 0 && c.noneEnds != nil {
		close(c.noneEnds)
		c.noneEnds = nil
	}
}

// awaitEndings waits until the contexts have ended that others were about to end: what is
// closed meanwhile is over when that returns.
func (c *Conn) awaitEndings() {
	c.mu.Lock()
	if c.endings == 0 {
		c.mu.Unlock()
		return
	}
	if c.noneEnds == nil {
		c.noneEnds = make(chan struct{})
	}
	none := c.noneEnds
	c.mu.Unlock()
	<-none
}

// Done is closed when the connection has ended for good.
func (l *life) Done() <-chan struct{} { return l.done }

// Context ends with the connection.
func (l *life) Context() context.Context { return l.ctx }

// Err is nil while the connection lives, and then why it ended.
func (c *Conn) Err() *status.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection, and returns when its goroutines have ended but those
// of handlers.
func (c *Conn) Close() {
	c.CloseWith(&link.CloseError{Code: session.CloseDone, Reason: "closed"}, nil)
}

// Discard ends the context of a connection that never began.
func (c *Conn) Discard(e *status.Error) { c.cancel(c.owner.Face(e)) }

// WhenIdle is closed when nothing is in flight. From now on calls are refused.
func (c *Conn) WhenIdle() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drained = make(chan struct{})
	c.checkIdleLocked()
	return c.drained
}

// Linked reports whether there is a session, and a link that carries it.
func (c *Conn) Linked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.linkedLocked()
}

// Carrier is the link that there is, nil: none.
func (c *Conn) Carrier() *session.Carrier {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == nil {
		return nil
	}
	return c.sess.Carrier()
}

// Link is the link that there is, nil: none, and what its session's peer shares.
func (c *Conn) Link() (*session.Carrier, Features) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == nil {
		return nil, Features{}
	}
	return c.sess.Carrier(), c.peer.Features
}

// Shutdown ends the connection when nothing is in flight any more, or when ctx
// ends, and is back LastWords after that at the latest but for scheduling.
func (c *Conn) Shutdown(ctx context.Context, bye wire.GoAwayBody, code int) error {
	defer context.AfterFunc(ctx, func() { time.AfterFunc(LastWords, c.kill) })()
	c.mu.Lock()
	first := c.drained == nil
	if first {
		c.drained, c.quiet, c.bye = make(chan struct{}), make(chan struct{}), bye
		if c.sess != nil {
			c.sess.GoAway(bye)
		}
	}
	drained, quiet, sess := c.drained, c.quiet, c.sess
	c.checkIdleLocked()
	c.mu.Unlock()

	if first {
		c.disturb(status.Errorf(status.Unavailable, "the connection is shutting down"))
	}
	waits, leave := context.WithCancel(ctx)
	defer leave()
	if sess != nil && sess.Left() {
		leave() // there is nobody to finish for
	}
	select {
	case <-quiet:
		c.EndStreams()
	case <-c.done:
	case <-waits.Done():
	}
	select {
	case <-drained:
	case <-c.done:
		return nil
	case <-waits.Done():
	}
	if sess != nil {
		c.flush(waits, sess)
	}
	c.close(ctx, &link.CloseError{Code: code, Reason: bye.Reason}, nil)
	<-c.done
	return ctx.Err()
}

// kill drops the link that there is.
func (c *Conn) kill() {
	if carrier := c.Carrier(); carrier != nil {
		carrier.Kill(&link.CloseError{Code: session.CloseDone, Reason: "closed", Err: context.DeadlineExceeded})
	}
}

// checkIdleLocked is called whenever something in flight ended, and decides
// whether a connection that winds down is ready to.
func (c *Conn) checkIdleLocked() {
	if c.quiet != nil && c.quietLocked() {
		closeOnce(c.quiet)
	}
	if c.drained == nil && !c.peer.away || len(c.pending) > 0 || len(c.inbound) > 0 || c.queue.len > 0 || c.lane != nil && c.lane.busy() {
		return
	}
	if c.drained != nil {
		if c.waiting.len() == 0 {
			closeOnce(c.drained)
		}
	} else if c.config.Heals && c.linkedLocked() && c.notify.Used == 0 {
		// The server is going away and nothing is in flight: come back
		// within the window that it gave.
		c.sess.CloseAfterFlush(&link.CloseError{Code: session.CloseDone, Reason: "leaving a draining server"})
	}
}

// quietLocked reports that nothing but streams is in flight: they may be
// endless, so a drain ends them when the calls are done.
func (c *Conn) quietLocked() bool {
	for _, in := range c.inbound {
		if in.stream == nil {
			return false
		}
	}
	for cl := range c.begunLocked() {
		if cl.stream == nil {
			return false
		}
	}
	return true // calls may wait, for the places that the streams have
}

// begunLocked ranges over our calls that have a place: those that were taken, and
// those that are about to be.
func (c *Conn) begunLocked() iter.Seq[*Call] {
	return func(yield func(*Call) bool) {
		for _, p := range c.pending {
			if p.call != nil && !yield(p.call) {
				return
			}
		}
		for _, l := range [...]*items{&c.queue, &c.large} {
			for it := l.head; it != nil; it = it.next {
				if it.call != nil && !yield(it.call) {
					return
				}
			}
		}
	}
}

// EndStreams ends the streams of a connection that drains.
func (c *Conn) EndStreams() {
	c.mu.Lock()
	var all []*Stream
	for _, in := range c.inbound {
		if in.stream != nil {
			all = append(all, in.stream)
		}
	}
	for cl := range c.begunLocked() {
		if cl.stream != nil {
			all = append(all, cl.stream)
		}
	}
	for cl := range c.waiting.all() {
		if cl.stream != nil {
			all = append(all, cl.stream)
		}
	}
	c.mu.Unlock()
	for _, x := range all {
		e := status.Errorf(status.Unavailable, "shutting down")
		if x.calling != nil {
			e = x.call.outOf(e)
		}
		x.Fail(e)
	}
}

func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// flush waits until what is queued has left, the peer's handlers have taken the
// notifications (it credits them then), and all was acknowledged. The end of a
// session drops what its lane has not begun.
func (c *Conn) flush(ctx context.Context, sess *session.Session) {
	for {
		c.mu.Lock()
		if c.queue.len == 0 && (c.notify.Window == 0 || c.notify.Used == 0) {
			c.mu.Unlock()
			break
		}
		moved := closedBy(&c.emptied)
		c.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return
		case <-sess.Done():
			return
		}
	}
	sess.Sync(ctx.Done())
}

// Failed notes why the connection ends, if nothing was noted yet, and returns
// what was.
func (c *Conn) Failed(cause error) *status.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.err == nil {
		c.err = asUnavailable(cause).AsLast()
	}
	return c.err
}

// over ends all that the connection has but handlers, and then its context.
func (c *Conn) over(cause error) {
	err := c.Failed(cause)
	c.disturb(err)
	c.mu.Lock()
	failed := c.abandonCallsLocked()
	c.dropQueueLocked()
	c.movedLocked()
	if c.drained != nil {
		closeOnce(c.drained)
	}
	if c.polite && c.ctx.Err() == nil {
		c.parted.Store(true)
	}
	c.unlockAndTell()
	failed.settle(err)
	c.cancel(c.owner.Face(err))
}

// Finish ends the connection for good. Whoever runs the connection calls it
// last.
func (c *Conn) Finish(cause error) {
	c.over(cause)
	c.mu.Lock()
	c.finished = true
	c.settleAccountLocked()
	c.mu.Unlock()
	close(c.done)
}

// closedLocked is the error of what comes when the connection has begun to end. Its code is that
// of why it ends, where that has one.
func (c *Conn) closedLocked() *status.Error {
	e := status.Errorf(status.Unavailable, "the connection is closed")
	if c.err != nil {
		e = e.Because(c.err)
		e.Code = asUnavailable(c.err).Code
	}
	return e
}

// asUnavailable makes cause an *Error.
func asUnavailable(cause error) *status.Error {
	var e *status.Error
	if errors.As(cause, &e) {
		return e
	}
	var ce *link.CloseError
	if errors.As(cause, &ce) && ce.Remote && ce.Code == session.CloseDone {
		return &status.Error{Code: status.Unavailable, Message: "the peer closed the connection", Cause: cause}
	}
	return &status.Error{Code: status.Unavailable, Message: "connection lost", Cause: cause}
}
