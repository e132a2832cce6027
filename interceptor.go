package typedrpc

import "context"

// Kind says what a Request is.
type Kind uint8

const (
	KindCall         Kind = iota // a call with one request and one response
	KindNotification             // a message without an answer
)

func (k Kind) String() string {
	if k == KindNotification {
		return "notification"
	}
	return "call"
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

	spec *spec // nil for names that nobody registered
}

// RawHandler handles a call or notification by its bytes: the next step of an
// interceptor, or a fallback. The result of a notification is ignored.
type RawHandler func(ctx context.Context, r *Request) (Raw, error)

// An Interceptor wraps calls and notifications, incoming (NewMux, Mux.With) or
// outgoing (DialOptions, Server, CallOptions). It may change the context and
// the metadata, answer without calling next, call next more than once, and
// change the result. The first interceptor of a list is the outermost. It sees
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
	out := &Request{Method: r.Method, Kind: r.Kind, Conn: t.conn, Payload: r.Payload, Metadata: t.metadata(r.Metadata), spec: s}
	raw, failed := t.do(ctx, s, out)
	for k, v := range out.Reply {
		r.Reply.Set(k, v)
	}
	return raw, failed
}
