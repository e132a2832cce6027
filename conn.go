package typedrpc

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/server"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Conn is a connection to a peer, over which both sides call and both sides
// handle. It outlives its links: when one breaks the client dials again, and the
// session goes on where it was, calls and streams in flight included. When the
// session itself is lost, one that was dialled begins another one, until it is
// closed; one that a server accepted has ended.
//
// All methods may be called by any goroutine at any time. Calls run
// concurrently, in no order; notifications, and calls of Serial methods, are
// handled one after another in the order in which they were sent.
//
// Every call ends: with its answer, with its context, or with the connection,
// and then its error's Outcome says how far it got. The user must Close a
// connection that was dialled. Calls on a Conn that neither Dial nor a Server made
// fail with InvalidArgument, and its methods panic.
type Conn struct {
	e      *engine.Conn
	codec  Codec                       // set by the first handshake, before anything of the peer is handled
	keeper engine.Keeper               // a *client.Client, or on a server what has the Identity
	opts   *options                    // one for all of a server's connections
	calls  sync.Pool                   // of *outcall
	budget atomic.Pointer[RetryBudget] // of calls' retry policies that bring none; nil until there is one
}

// options are what both sides' options have in common, and the engine does not
// know.
type options struct {
	mux          *Mux
	logger       *slog.Logger
	mapError     func(ctx context.Context, err error) *Error
	interceptors []Interceptor
	retry        *RetryPolicy
	failFast     bool            // what calls do that do not say
	codec        func(int) Codec // of a server's, by its number
	describe     *entry          // of rpc.discover; nil: it is a name like any
}

// Err returns nil while the connection lives and then why it ended: an *Error. It is
// no call's: how far a call got its own error says. The Outcome of this one is
// MayHaveRun, since nobody may take it for a reason to call again.
func (c *Conn) Err() error {
	if e := c.engine().Err(); e != nil {
		return up(e, c.codec)
	}
	return nil
}

// Context returns a context that ends with the connection, when its calls have;
// on a server it carries the values of the Identity's context and of the upgrade
// request. A dialled connection that lost its link has not ended: see State.
func (c *Conn) Context() context.Context { return c.engine().Context() }

// Identity returns what the function of Server.SignIn said of the peer, the last
// time that it was asked. On the client, and without authentication, it is zero.
// Its Subject never changes.
func (c *Conn) Identity() Identity {
	if k, ok := c.made().keeper.(interface{ Identity() server.Identity }); ok {
		return Identity(k.Identity())
	}
	return Identity{}
}

// RemoteAddr returns the peer's address as the http.Request of its latest link has
// it, "" on the client. Behind a proxy it is the proxy's.
func (c *Conn) RemoteAddr() string {
	if k, ok := c.made().keeper.(interface{ RemoteAddr() string }); ok {
		return k.RemoteAddr()
	}
	return ""
}

// Codec returns the codec of the connection, fixed for its life.
func (c *Conn) Codec() Codec { return c.made().codec }

// Close ends the connection. Calls in flight fail at once with Unavailable and
// handlers' contexts end; no handler begins any more: notifications that wait for their
// turn are dropped, and calls that do are refused as not run. What was sent before is flushed, if there is a link:
// Close waits, for at most four seconds, until a typedrpc peer has acknowledged
// it and its handlers have taken the notifications, and for at most another second
// for the goodbye.
// Close returns when the connection's goroutines have ended, except those of
// handlers and of OnState, so it may be called in them. Closing again waits
// for the same end. A client whose connection a server closes comes back and begins a
// new session, see Dial; CloseWith can tell it not to. The error is always
// nil; it is there for io.Closer.
func (c *Conn) Close() error {
	c.engine().Close()
	return nil
}

// Shutdown ends the connection gracefully: it tells the peer to begin nothing
// new, refuses new calls on both sides with Unavailable, NotSent, but for those
// that handlers make with their contexts, lets those in flight finish, then ends the
// streams with Unavailable, and closes. A peer whose link is broken may come back
// for its answers until its session is over. When ctx ends first the connection
// is closed at once and ctx.Err() returned as it is. A handler of the connection would
// wait for itself: with its context Shutdown does nothing and fails with
// FailedPrecondition; see [Request.AfterReply].
func (c *Conn) Shutdown(ctx context.Context) error {
	e := c.engine()
	if ctx == nil {
		return noContext("Conn.Shutdown")
	}
	if engine.Handling(ctx) == e {
		return errOwnHandler
	}
	return e.Shutdown(ctx, wire.GoAwayBody{Reason: "shutting down"}, session.CloseDone)
}

// errOwnHandler refuses a Shutdown that would wait for its caller.
var errOwnHandler = refuse(FailedPrecondition, "Shutdown waits for the handlers that run, and was called by one of them: call it when that has answered, in Request.AfterReply, or on a goroutine with a context that is not the handler's")

// State returns what the connection is doing: StateClosed from when its Context has
// ended. One that a server accepted is connected, or waits for its client to come
// back.
func (c *Conn) State() State {
	if c.engine().Context().Err() != nil {
		return StateClosed
	}
	if d, ok := c.keeper.(*client.Client); ok {
		return stateOf(d.State())
	}
	if c.e.Linked() || c.e.Posted() {
		return StateConnected
	}
	return StateWaiting
}

// Ping asks the peer for a sign of life, over the link that there is, and returns how
// long its answer took. It asks below calls: no handler, limit or interceptor has to do with
// it. Pings made together may share one question, and on a busy connection an
// acknowledgement that was under way answers it as well; what is returned is never less
// than the shortest round trip that was measured, which Stats has. Over plain JSON-RPC it
// is a ping of the WebSocket, which a proxy may answer.
//
// The error is an *Error: Unavailable at once while there is no link, and when the link
// ends first; the context's; and Unimplemented where nobody can be asked, over plain JSON-RPC in
// a browser or by POST. To notice that a link is dead is not a program's task:
// Limits.KeepAlive does.
func (c *Conn) Ping(ctx context.Context) (time.Duration, error) {
	e := c.engine()
	if ctx == nil {
		return 0, noContext("Conn.Ping")
	}
	took, err := e.Ping(ctx)
	if err != nil {
		return 0, up(err, c.codec)
	}
	return took, nil
}

// Reconnect makes a dialled connection dial now: it ends the wait for the next
// attempt, and gives up a link that there is; the session goes on. It does
// nothing on a connection that a server accepted, or that is closed.
func (c *Conn) Reconnect() {
	if d, ok := c.made().keeper.(*client.Client); ok {
		d.Reconnect()
	}
}

// Reauthenticate asks DialOptions.SignIn for credentials and gives them to the
// server, which may extend the time that the connection has (Identity.Expires)
// or refuse them: then the connection goes on with the old ones until they
// expire. The subject may not change. SignIn.Reply returns the new reply. While
// there is no link it waits for one, whose handshake brings fresh credentials.
//
// The error is an *Error: the server's, what DialOptions.SignIn returned, the
// context's, or FailedPrecondition on a connection without DialOptions.SignIn, and
// Unimplemented where the server authenticates nobody. It may be called at any
// time by any goroutine. One refresh is made at a time, which all share who ask before
// the function of DialOptions.SignIn has returned its credentials; ctx bounds its caller's
// waiting, and the context that this function is given ends when nobody waits any more.
func (c *Conn) Reauthenticate(ctx context.Context) error {
	d, ok := c.made().keeper.(*client.Client)
	if ctx == nil {
		return noContext("Reauthenticate")
	}
	if !ok {
		return refuse(FailedPrecondition, "only a connection that was dialled with DialOptions.SignIn has credentials to refresh")
	}
	if err := d.Reauthenticate(ctx); err != nil {
		return up(err, c.codec)
	}
	return nil
}

// made is c, and panics for one that no method can be called on.
func (c *Conn) made() *Conn {
	if c == nil || c.e == nil {
		panic("typedrpc: " + noConn)
	}
	return c
}

const noConn = "the Conn is nil, or was not made by Dial or by a Server"

func (c *Conn) engine() *engine.Conn { return c.made().e }

// retryBudget is the budget of call policies that bring none.
func (c *Conn) retryBudget() *RetryBudget {
	if c.budget.Load() == nil {
		c.budget.CompareAndSwap(nil, newBudget())
	}
	return c.budget.Load()
}

// callback runs a program's function on a goroutine of ours, where nobody else
// recovers.
func (o *options) callback(name string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			o.logger.Error("typedrpc: callback panicked", "callback", logs.Known(name), "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
		}
	}()
	f()
}

// logPanic notes what a program's function panicked with. method is a name, or a
// logs.Known.
func (c *Conn) logPanic(message string, method, p any) {
	c.opts.logger.Error(message, "method", method, "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
}

// known is the name that a request's handler was registered with, and for a fallback
// what the peer wrote.
func (s *served) known() any {
	if s.entry != nil && s.entry.spec != nil {
		return logs.Known(s.entry.spec.name)
	}
	return s.req.Method
}

// Limits bound what a peer can make this side hold or do. They are announced
// in the handshake, so that a typedrpc peer refuses locally what would be
// refused here. The zero value of every field is its default; a negative one
// is refused when the server or connection is made, but for Grace and MinRate.
type Limits struct {
	// MaxMessage is the size in bytes of one request, response, item or
	// notification received, in its encoding. Default 4 MiB, at most
	// 16 MiB less 64 KiB.
	MaxMessage int
	// MaxCalls is how many calls and streams of the peer run here at once. An eighth of
	// these places, rounded up, is kept for calls, but one is always a stream's:
	// streams, and so subscriptions, have 896 of 1,024. A typedrpc peer waits for its
	// turn; from others, more are refused with ResourceExhausted, NotSent. Default
	// 1,024.
	MaxCalls int
	// MaxBuffered bounds three things for one connection, in bytes, each by itself:
	// requests being handled, for which a typedrpc peer waits for its turn; replies,
	// items and notifications that wait for its socket, beyond which handlers wait and
	// new calls do not begin; and stream items that nobody has received yet, beyond
	// which a typedrpc peer sends no more, and a stream that passes twice as much
	// fails. At least one message always fits. Default 8 MiB.
	MaxBuffered int
	// MaxUnacked is how many bytes of what was sent are kept until the peer
	// has acknowledged them, to be sent again when the link breaks. When they
	// are spent sending waits; one message always fits. They count in
	// MaxBuffered's bytes of what waits for the socket, too. On a path of long
	// delay this bounds the throughput: so many bytes for each round trip.
	// Default 8 MiB.
	MaxUnacked int
	// Window is how many bytes of notifications, or of one stream's items
	// (each counted with 64 more), a peer may send before they were taken
	// here. A stream's grows to 1 MiB, while the sum of what they have grown
	// by is at most half of MaxBuffered. Default 64 KiB.
	Window int
	// MaxDepth is how deep a message of the dialects Text and JSONRPC may nest.
	// Default 64.
	MaxDepth int
	// HandshakeTimeout bounds dialling or accepting up to the first answer
	// of the peer, authentication included. Default 10 s.
	HandshakeTimeout time.Duration
	// KeepAlive is the time without a received byte after which the peer is
	// asked for a sign of life; after two the link is dead. A dialled
	// connection uses the server's interval if that is shorter. Default 20 s.
	KeepAlive time.Duration
	// Grace is how long a session goes on without a link: calls and streams
	// wait, handlers run. When no new link has come by then the session is
	// lost, and every call is told what is known of it. The shorter one of
	// both sides' holds, each from the moment that it missed the link. Default
	// 30 s. Negative: not at all, a session ends with its link.
	Grace time.Duration
	// WriteTimeout is how long a write may make no progress before the link
	// is dead. Default 10 s.
	WriteTimeout time.Duration
	// MinRate is how many bytes per second must come, over ten seconds, of whatever the
	// peer has begun and not finished. A message that stops fails, or its link ends and
	// may come back; the body of a POST is answered 408. Time without a link does not
	// count; docs/limits.md has the rules. Default 1,024. Negative: what is slow is kept,
	// and counted.
	MinRate int
}
