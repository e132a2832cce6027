package typedrpc

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Kind says what a Request is.
type Kind uint8

const (
	KindCall         Kind = iota // a call with one request and one response
	KindNotification             // a message without an answer
	KindServerStream             // a call whose handler sends items
	KindClientStream             // a call whose caller sends items
	KindBidiStream               // a call whose both sides send items
)

func (k Kind) String() string {
	switch k {
	case KindNotification:
		return "notification"
	case KindServerStream:
		return "server stream"
	case KindClientStream:
		return "client stream"
	case KindBidiStream:
		return "bidirectional stream"
	}
	return "call"
}

func (k Kind) streams() bool { return k >= KindServerStream }

// wireKind is what a CALL of this kind says.
func (k Kind) wireKind() wire.Kind {
	switch k {
	case KindServerStream:
		return wire.ServerStream
	case KindClientStream:
		return wire.ClientStream
	case KindBidiStream:
		return wire.BidiStream
	}
	return wire.Unary
}

// Request is the untyped view of a call or notification, for interceptors,
// fallback handlers and proxies. It belongs to one call and is not safe for
// concurrent use.
type Request struct {
	Method string
	Kind   Kind
	// Conn is the connection that the call came in on or goes out on. With a
	// Caller made by Pick it is the one picked for the first attempt.
	Conn *Conn
	// Payload is the encoded request in Conn's codec. It is read-only and
	// valid until the handler or interceptor returns.
	Payload Raw
	// Metadata came with the request; an outgoing interceptor may change it.
	Metadata Metadata
	// Reply is the metadata that goes back with the response or the error. A
	// handler sets it; on the caller's side it is filled in when next returns.
	Reply Metadata

	spec     *spec // nil for names that nobody registered
	exchange *exchange
	hooks    []func(item Raw, sent bool) error

	forwarded bool // a stream: its items have gone to another connection
}

// OnItem has fn see each item of a stream, and stop it: an error of fn ends the
// stream with that error, for both sides. sent tells the items that this side
// sends from those that it receives. An interceptor calls it before next. fn
// sees the items of one direction one after another, those of both at the same
// time; item is read-only, and valid until fn returns. Of several functions the
// outermost interceptor's sees sent items first at the caller's side and last
// at the handler's, and received ones the other way round.
func (r *Request) OnItem(fn func(item Raw, sent bool) error) { r.hooks = append(r.hooks, fn) }

// RawHandler handles a call or notification by its bytes: the next step of an
// interceptor, or a fallback. The result of a notification is ignored.
type RawHandler func(ctx context.Context, r *Request) (Raw, error)

// An Interceptor wraps calls and notifications, incoming (NewMux, Mux.With) or
// outgoing (DialOptions, Server, CallOptions). It may change the context and
// the metadata, answer without calling next, call next more than once, and
// change the result. It calls next on its own goroutine. Around a stream, next
// returns when the stream has ended, and calling it again after items came or
// went fails with FailedPrecondition. The first interceptor of a list is the outermost. It sees
// a handler's error before it is translated for the wire.
//
// An outgoing interceptor runs on the caller's goroutine for Call and Notify.
// Go must not wait for it, so with interceptors each future has a goroutine
// that ends with its call. Retries of a RetryPolicy happen inside next.
type Interceptor func(ctx context.Context, r *Request, next RawHandler) (Raw, error)

// chain folds interceptors around h once, so that a call only runs them.
func chain(interceptors []Interceptor, h RawHandler) RawHandler {
	for i := len(interceptors) - 1; i >= 0; i-- {
		around, next := interceptors[i], h
		h = func(ctx context.Context, r *Request) (Raw, error) { return around(ctx, r, next) }
	}
	return h
}

// Forward makes the same call on c: method, payload, metadata, and the time
// left in ctx. The callee's reply metadata is put into r.Reply. It is what a
// proxy's fallback handler does. It refuses with FailedPrecondition a
// connection whose codec is another than the one r's payload is in. A
// notification is forwarded as a notification.
func Forward(ctx context.Context, c Caller, r *Request) (Raw, error) {
	t, err := c.target(ctx, r.Method)
	if err != nil {
		return nil, err
	}
	if have, want := r.Conn.codec.Name(), t.conn.codec.Name(); have != want {
		return nil, Errorf(FailedPrecondition, "cannot forward %q: its payload is in codec %q, the other connection speaks %q", r.Method, have, want)
	}
	if err := checkName(r.Method); err != nil {
		return nil, Errorf(Unimplemented, "cannot forward %q: reserved or malformed name", r.Method)
	}
	s := r.spec
	if s == nil {
		s = &spec{name: r.Method, kind: r.Kind}
	}
	passed, fault := t.passKey(ctx, r)
	if fault != nil {
		return nil, fault
	}
	defer passed()
	out := &Request{Method: r.Method, Kind: r.Kind, Conn: t.conn, Payload: r.Payload, Metadata: t.metadata(r.Metadata), spec: s}
	var raw Raw
	var failed error
	switch {
	case !r.Kind.streams():
		raw, failed = t.do(ctx, s, out)
	case r.exchange == nil || r.exchange.in == nil:
		return nil, Errorf(FailedPrecondition, "only a stream that came in can be forwarded")
	default:
		raw, failed = t.converse(ctx, s, out, r.forward)
	}
	for k, v := range out.Reply {
		r.Reply.Set(k, v)
	}
	if t.key != nil && OutcomeOf(failed) == MayHaveRun {
		r.Reply.Set(metaOutcome, outcomeUnknown)
	}
	return raw, failed
}
