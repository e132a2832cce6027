package typedrpc

import (
	"context"
	"io"
	"maps"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// The kinds of a Request, of type stats.Kind, which prints itself in words, as
// "server stream".
const (
	KindMethod       = stats.Method       // a call with one request and one response
	KindNotification = stats.Notification // a message without an answer
	KindServerStream = stats.ServerStream // a call whose handler sends items
	KindClientStream = stats.ClientStream // a call whose caller sends items
	KindBidiStream   = stats.BidiStream   // a call whose both sides send items
)

func streams(k stats.Kind) bool { return k >= KindServerStream }

// Request is the untyped view of a call or notification, for interceptors,
// fallback handlers and proxies. It belongs to one call and is not safe for
// concurrent use.
type Request struct {
	Method string
	Kind   stats.Kind
	// Outgoing says that this side makes the call, and does not handle it.
	Outgoing bool
	// Declared says that this side has a declaration of that name; else a peer chose it,
	// and it is a fallback's to handle, or forwarded: no name for a metric.
	Declared  bool
	forwarded bool // a stream: its items have gone to another connection
	headed    bool // ReplyMetadata has what the handler said ahead of the items
	heavy     bool // the response is large, as far as is known
	// Conn is the connection that the call came in on or goes out on. With a
	// Caller made by Pick it is the one picked for the first attempt.
	Conn *Conn
	// Payload is the encoded request in Conn's codec. It is read-only and
	// valid until the handler or interceptor returns.
	Payload Raw
	// Metadata came with the request; an outgoing interceptor may change it.
	Metadata Metadata
	// ReplyMetadata is the metadata that goes back with the response or the error. A
	// handler sets it; on the caller's side it is filled in when next returns.
	//
	// Of a stream whose handler sends items, what is there when the first of them is
	// sent goes ahead of it, and all goes back with the end: whoever sends that item on
	// another goroutine has set it before, or sets it after. The caller's side has it
	// when OnItem's function is given the first item that came, if that is there.
	ReplyMetadata Metadata
	// AfterReply, if a handler or an interceptor of a request that came in has set it,
	// is called once, after they have returned. With a nil error the reply has its place
	// in the queue: a notification or a call that the function sends on Conn leaves behind
	// it, as a subscription's first event has to leave behind its id. (A call may overtake
	// a reply of more than 64 KiB over binary frames, and the end of a stream is overtaken
	// by both.) The error is not nil where the answer is an error, which is what the caller
	// is told, where nobody is told because the connection was lost, and where a method was
	// notified; a caller that has cancelled is told all the same.
	//
	// ctx ends with the connection, which ConnFrom finds in it; the handler's own has ended.
	// The function runs on the handler's goroutine, for an Inline method on one of its own, for
	// a Serial method on the lane, which it holds up, and for the calls of a JSON-RPC batch on one of theirs when all have ended. Its
	// panic is logged. Over HTTP POST there is no connection to send on.
	AfterReply func(ctx context.Context, err error)

	spec   *spec // nil for names that nobody registered
	stream *engine.Stream
	hooks  *hooks // nil: there are none
}

// hooks are OnItem's functions, which few requests have.
type hooks struct {
	all []func(item Raw, sent bool) error
	one [1]func(item Raw, sent bool) error // all of most that have any
}

// OnItem has fn see each item of a stream, and stop it: an error of fn ends the
// stream with that error, for both sides. sent tells the items that this side
// sends from those that it receives. An interceptor calls it before next. fn
// sees the items of one direction one after another, those of both at the same
// time; item is read-only, and valid until fn returns. Of several functions the
// outermost interceptor's sees sent items first at the caller's side and last
// at the handler's, and received ones the other way round. It panics if r or fn is nil.
func (r *Request) OnItem(fn func(item Raw, sent bool) error) {
	if r == nil || fn == nil {
		panic("typedrpc: OnItem needs a Request and a function")
	}
	if r.hooks == nil {
		r.hooks = new(hooks)
		r.hooks.all = r.hooks.one[:0]
	}
	r.hooks.all = append(r.hooks.all, fn)
}

// looks is a caller's Request as its stream sees it.
type looks struct{ r *Request }

func (l looks) Watched() bool { return l.r.hooks != nil }

func (l looks) Inspect(item []byte, sent bool) (*status.Error, error) {
	if r := l.r; !sent && !r.headed {
		r.ReplyMetadata, r.headed = maps.Clone(r.stream.Meta()), true
	}
	return l.r.inspect(item, sent, false)
}

// Watched and Inspect are the same at the handler's side.
func (s *served) Watched() bool { return s.req.hooks != nil }

func (s *served) Inspect(item []byte, sent bool) (*status.Error, error) {
	return s.req.inspect(item, sent, true)
}

// inspect shows an item to OnItem's functions. The first that refuses it ends the
// stream.
func (r *Request) inspect(item []byte, sent, handler bool) (*status.Error, error) {
	if r.hooks == nil {
		return nil, nil
	}
	all := r.hooks.all
	for i := range all {
		// The outermost interceptor is the nearest to the user at the caller's,
		// and to the wire at the handler's.
		if sent == handler {
			i = len(all) - 1 - i
		}
		if err := all[i](item, sent); err != nil {
			return lower(asError(err).with(MayHaveRun)), err
		}
	}
	return nil, nil
}

// face is the request's stream, typed functions' view of it.
func (r *Request) face() face { return face{x: r.stream, conn: r.Conn, spec: r.spec} }

// RawHandler handles a call or notification by its bytes: the next step of an
// interceptor, or a fallback. The result of a notification is ignored.
type RawHandler func(ctx context.Context, r *Request) (Raw, error)

// Forward makes the same call on c. It is what a proxy's fallback handler does. A
// notification is forwarded as a notification, and a stream with its items, both ways, one
// behind the other: a receiver that is slow makes the sender wait. It refuses with
// FailedPrecondition a connection whose codec is another than the one r's payload is in.
//
// Kept are the name, the kind, the payload, the metadata, to which c's options add, the end
// and the deadline of ctx, and the key of a Keyed method's call. Back come the response or
// the error, with its code, text, data, Number and the name of its fault, and the reply
// metadata, which is put into r.ReplyMetadata, that of a stream with its first item too;
// interceptors of c that change it then do so in an OnItem function, and where they have
// none it waits for them.
//
// Not kept is who calls: the callee sees this side, its Identity and its address. What it
// is to know of r's caller is metadata that this side sets, over what the caller may have
// said by that name. Nor is an Outcome: to r's caller every answer of this side is Answered.
// Traits are those of the declaration that r's name has on this side: an Idempotent one is
// sent again when c's session is lost, and a name that nobody declared here is not.
func Forward(ctx context.Context, c Caller, r *Request) (Raw, error) {
	if c == nil || r == nil || r.Conn == nil || r.Conn.e == nil {
		return nil, refuse(InvalidArgument, "Forward needs a Caller, and a Request that came in")
	}
	if ctx == nil {
		return nil, noContext("Forward")
	}
	t, err := c.target(ctx, r.Method)
	if err != nil {
		return nil, err
	}
	if have, want := r.Conn.codec.Name(), t.conn.codec.Name(); have != want {
		return nil, refuse(FailedPrecondition, "cannot forward %q: its payload is in codec %q, the other connection speaks %q", r.Method, have, want)
	}
	if err := checkName("method", r.Method); err != nil {
		return nil, refuse(Unimplemented, "cannot forward %q: malformed name", r.Method)
	}
	s := r.spec
	if s == nil {
		s = (&spec{name: r.Method, kind: r.Kind}).declared()
		s.decl.Foreign = true
	}
	passed, fault := t.passKey(ctx, r)
	if fault != nil {
		return nil, fault
	}
	defer passed()
	t.bare = r.Conn.e.Dialect() != session.Plain && string(r.Payload) == nothing
	out := &Request{Method: r.Method, Kind: r.Kind, Outgoing: true, Declared: r.spec != nil, Conn: t.conn, Payload: r.passed(t), Metadata: t.metadata(r.Metadata), spec: s}
	var raw Raw
	var failed error
	switch {
	case !streams(r.Kind):
		raw, failed = t.do(ctx, s, out)
	case r.stream == nil || r.stream.Caller():
		return nil, refuse(FailedPrecondition, "only a stream that came in can be forwarded")
	default:
		raw, failed = t.converse(ctx, s, out, func(x face) (Raw, error) { return r.forward(x, out, t.intercepted()) })
	}
	r.reply(out.ReplyMetadata)
	if t.key != nil && OutcomeOf(failed) == MayHaveRun {
		r.ReplyMetadata.Set(replay.MetaOutcome, replay.OutcomeUnknown)
	}
	return raw, failed
}

// nothing is what peers with HELLO, which have no other codec where this matters, make
// of struct{}. Plain peers are not sent it.
const nothing = "{}"

// passed is the payload as t's connection is sent it.
func (r *Request) passed(t target) Raw {
	if t.bare && t.conn.e.Dialect() == session.Plain {
		return nil
	}
	return r.Payload
}

// reply adds to the metadata that goes back.
func (r *Request) reply(m Metadata) {
	for k, v := range m {
		r.ReplyMetadata.Set(k, v)
	}
}

// ConnFrom returns the connection that a handler's request came in on. Over
// HTTP POST there is none to call back on: then calls on it fail with
// FailedPrecondition and say so. It panics if ctx is neither a handler's nor that of
// [Request.AfterReply], so that it never returns nil.
func ConnFrom(ctx context.Context) *Conn {
	if ctx != nil && engine.From(ctx) == nil {
		if c, ok := ctx.Value(engine.AfterKey{}).(*Conn); ok {
			return c
		}
	}
	return RequestFrom(ctx).Conn
}

// after is the context of AfterReply's function: its connection's.
type after struct {
	context.Context
	conn *Conn
}

func (a after) Value(key any) any {
	if key == (engine.AfterKey{}) {
		return a.conn
	}
	return a.Context.Value(key)
}

// RequestFrom returns the request that a handler is handling: its metadata, its
// name, its reply metadata to set. It panics if ctx is not a handler's.
func RequestFrom(ctx context.Context) *Request {
	var in *engine.Inbound
	if ctx != nil {
		in = engine.From(ctx)
	}
	if in == nil {
		panic("typedrpc: ConnFrom and RequestFrom need the context that a handler was given")
	}
	return &in.Record.(*served).req
}

// forward passes the items of r's stream on to x, and x's back; out is what was made
// of r for that.
func (r *Request) forward(x face, out *Request, intercepted bool) (Raw, error) {
	in := face{x: r.stream, conn: r.Conn, spec: x.spec}
	in.x.Accept()
	if r.forwarded {
		return nil, refuse(FailedPrecondition, "the stream %q was forwarded already; its items cannot be had again", r.Method)
	}
	r.forwarded = true
	if in.x.Takes() {
		go in.pass(x)
	}
	head := func() {
		switch {
		case !intercepted:
			r.reply(x.x.Meta())
		case out.hooks != nil: // those that see no items have their say at the end
			r.reply(out.ReplyMetadata)
		}
	}
	for x.x.Takes() {
		err := x.hand(in, head)
		head = nil
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return x.answer()
}

// pass sends what one stream receives on another, until either ends.
func (f face) pass(to face) {
	passed := false
	defer func() {
		if p := recover(); p != nil { // an interceptor's function that looks at items
			f.conn.logPanic("typedrpc: interceptor panicked", f.spec.name, p)
		}
		if !passed {
			to.x.Fail(&status.Error{Code: status.Internal, Message: status.InternalText})
		}
	}()
	for {
		err := f.hand(to, nil)
		if err == nil {
			continue
		}
		passed = true
		if err == io.EOF {
			to.x.CloseSend()
		} else {
			to.x.Fail(lower(asError(err)))
		}
		return
	}
}

// hand passes one item on. before, if it is not nil, is called when there is one.
func (f face) hand(to face, before func()) error {
	p, data, err := f.x.Next()
	if err != nil {
		return lift(err, f.conn.codec)
	}
	defer p.Release()
	if before != nil {
		before()
	}
	if err := to.conn.e.CheckPayload(data); err != nil {
		return Errorf(InvalidArgument, "cannot forward an item of %q: %w", to.spec.name, err)
	}
	body := buf.Copy(data)
	defer body.Release()
	return lift(to.x.Send(body, p.Flags, p.Dropped), to.conn.codec)
}
