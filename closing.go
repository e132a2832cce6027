package typedrpc

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/server"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// CloseOptions are what Conn.CloseWith and Server.Revoke tell the peer. nil, and the zero
// value, tell it nothing.
type CloseOptions struct {
	// Err is why, as the peer's Conn.Err and OnState have it, and as the causes of its
	// failed calls: by the rules of a handler's error, so one that is no *Error, no Code and
	// not mapped reaches it as Internal, and is logged here. Plain JSON-RPC peers, and
	// other WebSocket clients, have its text as the reason of the close frame, cut to 123
	// bytes. Data of more than 16 KiB is left out. A RetryAfter is respected by a client that
	// comes back.
	Err error
	// StayAway tells a client not to come back: its connection ends for good. One whose link
	// is broken at the moment is told when it comes for its session, within Limits.Grace.
	// The WebSocket close code is 4403 then. It says nothing to whoever does not ask:
	// Server.SignIn's function has to refuse a client that begins anew. From a client it
	// changes nothing, since a server does not dial.
	StayAway bool
}

// CloseWith is Close that tells the peer why, and whether to stay away. What was sent
// before arrives first, as far as Close waits for it. With nil it is Close.
func (c *Conn) CloseWith(o *CloseOptions) error {
	if o == nil {
		return c.Close()
	}
	if a, ok := c.made().keeper.(*server.Accepted); ok {
		a.CloseWith(c.opts.parting(o))
		return nil
	}
	p := c.opts.parting(o)
	body := c.opts.words(o.Err, c.codec)
	if body != nil {
		p.Text = cmp.Or(body.Message, p.Text)
	}
	c.e.CloseWith(&link.CloseError{Code: session.CloseDone, Reason: p.Text, Err: p.Cause}, body)
	return nil
}

// Revoke closes all connections of the peers that SignIn's function found to be
// subject, also those that lost their link and are kept, and returns how many. o, which may
// be nil, tells them why, and whether to stay away: also those that are in the middle of a
// handshake, or come back for a session that has lost its link.
//
// It closes them with code 4401, 4403 if they are to stay away, and at once: beside what o
// says nothing is sent any more, handlers' contexts end before it returns, calls fail, their
// sessions cannot be gone on with, and an authentication that is under way fails. What the
// subject asked for over HTTP POST ends as well, with 401, and is not counted. No handler
// begins for it after Revoke has returned, whatever its peer has sent. A dialled client that
// was not told to stay away comes back once with fresh credentials: it is SignIn's function
// that has to refuse them, from before Revoke is called. Other servers need a call of their
// own. "" are those without a subject.
func (s *Server) Revoke(subject string, o *CloseOptions) int {
	if s.Check() != nil {
		return 0
	}
	if o == nil || o.Err == nil && !o.StayAway {
		return s.s.Load().Revoke(subject, nil)
	}
	p := s.opts.parting(o)
	p.Text = "the identity was revoked"
	return s.s.Load().Revoke(subject, p)
}

// parting is o for the layer below, which knows codecs by their numbers.
func (opts *options) parting(o *CloseOptions) *server.Parting {
	p := &server.Parting{StayAway: o.StayAway, Text: "closed", Cause: down(o.Err)}
	p.Body = func(codec int) *wire.ErrorBody { return opts.words(o.Err, opts.codec(codec)) }
	return p
}

// words are err as a peer is told it; nil stays nil.
func (opts *options) words(err error, codec Codec) *wire.ErrorBody {
	if err == nil {
		return nil
	}
	b := opts.refusal(err, codec)
	return &b
}

// refusal makes the body for an error that is no call's. The encoding of a fault's data is
// the program's code: its panic costs the data alone, and so does the end of its goroutine, which
// is one of its own.
func (opts *options) refusal(err error, codec Codec) wire.ErrorBody {
	f := wire.Frame{Code: int64(Internal), Message: status.InternalText}
	if e, ok := err.(*Error); ok && e != nil {
		f = wire.Frame{Code: int64(e.Code.failed()), Message: status.Clip(status.Code(e.Code.failed()), e.Message)}
	}
	var made sync.WaitGroup
	made.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				opts.logger.Error("typedrpc: encoding a refusal panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
			}
		}()
		whole, hidden := toWire(context.Background(), err, codec, opts.mapError)
		if hidden != nil {
			opts.logger.Error("typedrpc: encoding a refusal failed", "error", hidden)
		}
		if codec == JSON && len(whole.Payload) > 0 {
			if err := inBody(whole.Payload); err != nil {
				opts.logger.Error("typedrpc: encoding a refusal failed", "error", fmt.Errorf("its data: %w", err))
				whole.Payload, whole.Fault = nil, ""
			}
		}
		f = whole
	})
	made.Wait()
	return wire.ErrorBody{Code: f.Code, Message: f.Message, Fault: f.Fault, RetryAfter: f.RetryAfter, Data: wrapAuth(codec, f.Payload)}
}
