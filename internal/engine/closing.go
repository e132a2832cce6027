package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// ClosePatience bounds how long Close waits for what was sent to be
// acknowledged; the goodbye itself takes at most a second more.
const ClosePatience = 4 * time.Second

// LastWords is the time that a goodbye has when the context of a Shutdown has
// ended: a peer that reads nothing would have a second.
const LastWords = 40 * time.Millisecond

// close begins the end: nothing new, calls fail, and when what is queued was
// flushed, or ctx or patience is over, the session ends with bye, and before that the peer
// is told said, nil: nothing. It returns when it has begun to end.
func (c *Conn) close(ctx context.Context, bye *link.CloseError, said *wire.ErrorBody) {
	ctx, cancel := context.WithTimeout(ctx, ClosePatience)
	defer cancel()
	cause := (&status.Error{Code: status.Unavailable, Message: "the connection was closed by this side", Cause: bye.Err}).AsLast()
	c.mu.Lock()
	c.polite = false
	c.parted.Store(false)
	sess, linked := c.sess, c.linkedLocked()
	if c.closing {
		c.mu.Unlock()
		c.awaitEndings()
		if sess != nil { // somebody else is closing: wait for that, but not longer
			select {
			case <-sess.Done():
			case <-ctx.Done():
				c.End(sess, bye)
			}
		}
		return
	}
	c.closing, c.err = true, cause
	failed := c.abandonCallsLocked()
	unbegun := c.refuseUnbegunLocked()
	handlers := c.handlersLocked()
	c.endingLocked()
	for _, in := range handlers {
		// Their contexts end now, which is not the caller's doing: it is to
		// see a lost connection, and not a "canceled" from the handler.
		in.sess = nil
	}
	c.dropParkedLocked()
	c.emptyLaneLocked()
	c.movedLocked()
	c.unlockAndTell()
	failed.settle(cause) // before whoever waits for the context sees the end
	c.cancel(c.owner.Face(cause))
	for _, in := range slices.Concat(handlers, unbegun) {
		in.cancel()
	}
	c.ended()
	c.awaitEndings()
	c.disturb(cause)
	c.keeper.Closing()
	if sess == nil {
		return
	}
	if linked && c.goodbye(ctx, sess, bye, said) {
		return
	}
	c.End(sess, bye)
}

// goodbye ends a session that has a link when what is queued was flushed. It reports false if
// time is over, and it may not have ended.
func (c *Conn) goodbye(ctx context.Context, sess *session.Session, bye *link.CloseError, said *wire.ErrorBody) bool {
	c.flush(ctx, sess)
	if said != nil && c.dialect != session.Plain {
		if sess.Leave(wire.GoAwayBody{Reason: bye.Reason, Error: c.fit(said)}, bye) {
			c.keeper.Over(bye)
		}
		c.forsake(sess)
		return true
	}
	if sess.CloseAfterFlush(bye) {
		c.keeper.Over(bye)
	}
	select {
	case <-sess.Done():
	case <-ctx.Done():
	}
	return false
}

// CloseWith is Close with another end, and with what the peer is told of it; nil: nothing.
func (c *Conn) CloseWith(bye *link.CloseError, said *wire.ErrorBody) {
	c.close(context.Background(), bye, said)
	<-c.done
}

// Expel ends the connection at once. The peer is told said, nil: nothing.
func (c *Conn) Expel(bye *link.CloseError, said *wire.ErrorBody) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.close(ctx, bye, said)
}

// mostSaid bounds the data of the error that a peer is told as the last thing, and what is
// taken of one.
const mostSaid = 16 << 10

// fit is e without its data where the peer would not take that.
func (c *Conn) fit(e *wire.ErrorBody) *wire.ErrorBody {
	if len(e.Data) <= mostSaid && c.CheckPayload(e.Data) == nil {
		return e
	}
	x := *e
	x.Data, x.Fault = nil, ""
	return &x
}

// Told is what a peer has said that it closes with, bounded; read makes of its data what
// it was before it travelled.
func Told(b *wire.ErrorBody, read func([]byte) ([]byte, error)) *status.Error {
	data, fault := b.Data, b.Fault
	var err error
	if len(data) > mostSaid {
		data, fault = nil, ""
	} else if data, err = read(data); err != nil {
		data, fault = nil, ""
	}
	e := status.FromPeer(b.Code, status.Clip(status.Code(b.Code), b.Message), fault, flow.Hint(b.RetryAfter), data, false)
	return e.AsLast()
}

// Parted is cause, with which a link has ended, or what the peer had said before it closed
// that with a code that goes with words.
func Parted(cause error, said *status.Error) error {
	var ce *link.CloseError
	if said == nil || !errors.As(cause, &ce) || !ce.Remote {
		return cause
	}
	switch ce.Code {
	case session.CloseDone, session.CloseUnauthed, session.CloseForbidden:
		said.Cause = cause
		return said
	}
	return cause
}

// evicted ends the connection that holds the most of the server's ledger, which
// is nearly full.
func (c *Conn) evicted() {
	c.config.Logger.Warn("typedrpc: connection closed: of all it holds the most of Server.MaxMemory, which is nearly full", "bytes", c.account.Used())
	time.AfterFunc(LastWords, c.kill) // what it holds is needed now
	c.Expel(&link.CloseError{Code: session.CloseBudget, Reason: "the server is nearly full, and this connection holds the most of it"}, nil)
}
