package typedrpc

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Caller is where calls go: a *Conn, what Pick makes, or either With options.
// It is sealed so that it can grow.
type Caller interface {
	// With returns a Caller with more options. Metadata and Interceptors
	// add to those there are; the others replace them where they are set.
	With(o CallOptions) Caller

	target(ctx context.Context, method string) (target, *Error)
}

// CallOptions are what one call wants beside its request. The zero value of
// every field changes nothing.
type CallOptions struct {
	// Metadata travels with the request.
	Metadata Metadata
	// ReplyMetadata receives the metadata that came back, also with an error: before
	// Call or SendAll returns, before a future's Done is closed, and before a stream's
	// last pair or error. Calls that run at the same time need a ReplyMetadata each.
	//
	// A stream that brings items has it with the first of them too: what the handler had
	// set when it sent that. It is written by whoever receives, and by nobody else: in
	// between the program may read it, and change it, without a lock. A stream that ends
	// without a word from its handler, because the session is lost or this side leaves,
	// keeps what came before.
	ReplyMetadata *Metadata
	// FailFast makes the call fail with Unavailable, NotSent, when there is no link at
	// the moment, and keeps it from being sent again when its session is lost.
	// WaitForLink takes it back, where the connection or a Caller before says so: the
	// call waits for a link as long as its context allows. One that has waited for ten
	// seconds, and has no deadline, is logged. Calls with both fail with
	// InvalidArgument.
	FailFast    bool
	WaitForLink bool
	// Retry goes before the method's and the connection's policy. Codes of what may have run
	// are not retried with methods that are neither Idempotent nor Keyed, whatever it says.
	Retry *RetryPolicy
	// Interceptors wrap the call inside those of the connection.
	Interceptors []Interceptor
	// Key is the idempotency key of a Keyed method's call, for a program that
	// repeats the call itself. Without one each call has its own. Another method's
	// call with one fails with InvalidArgument.
	Key idempotency.Key

	fault *Error // what is wrong with the options: the call's error
}

func (o CallOptions) and(more CallOptions, budget func() *RetryBudget) CallOptions {
	if more.Metadata != nil {
		merged := maps.Clone(o.Metadata)
		if merged == nil {
			merged = Metadata{}
		}
		maps.Copy(merged, more.Metadata)
		o.Metadata = merged
	}
	if more.ReplyMetadata != nil {
		o.ReplyMetadata = more.ReplyMetadata
	}
	switch {
	case more.FailFast && more.WaitForLink:
		o.fault = refuse(InvalidArgument, "CallOptions says both FailFast and WaitForLink")
	case more.FailFast || more.WaitForLink:
		o.FailFast, o.WaitForLink = more.FailFast, more.WaitForLink
	}
	if more.Key != (idempotency.Key{}) {
		o.Key = more.Key
	}
	if more.Retry != nil {
		p := *more.Retry
		if err := p.check(); err != nil {
			o.fault = refuse(InvalidArgument, "CallOptions.Retry: %w", err)
		}
		if p.Budget == nil {
			p.Budget = budget()
		}
		o.Retry = p.ready()
	}
	if err := checkInterceptors("CallOptions.Interceptors", more.Interceptors); err != nil {
		o.fault = refuse(InvalidArgument, "%w", err)
	}
	o.Interceptors = slices.Concat(o.Interceptors, more.Interceptors)
	return o
}

// Call makes a call and waits for its response. The error is always an *Error;
// its Outcome says whether the call was not sent, may have run, or was
// answered.
//
// When ctx ends, Call returns at once and the handler's context ends soon
// after. ctx's deadline travels with the call. Without a link the call waits
// for one as long as ctx allows, see CallOptions.FailFast. Calls may be made by
// any number of goroutines at once, also by handlers on the connection that
// they serve: such a call never waits for what could be waiting for it, but
// fails with ResourceExhausted or FailedPrecondition.
func Call[Req, Resp any](ctx context.Context, c Caller, m Method[Req, Resp], req Req) (Resp, error) {
	if m.spec == nil {
		var none Resp
		_, err := aim(ctx, c, nil, "NewMethod")
		return none, err
	}
	p := m.spec.pool.Get().(*pair[Req, Resp])
	p.req = req
	err := invoke(ctx, c, m.spec, &p.req, &p.resp)
	resp := p.resp
	*p = pair[Req, Resp]{}
	m.spec.pool.Put(p)
	if err != nil {
		var none Resp
		return none, err
	}
	return resp, nil
}

// Go makes a call and returns its future at once; it never waits for the
// network. ctx bounds the call as in Call; the context of Await does not. The
// encoded request is held until it could be sent, so the number of futures in
// flight is the caller's to bound. No goroutine runs for a future, unless
// interceptors do.
func Go[Req, Resp any](ctx context.Context, c Caller, m Method[Req, Resp], req Req) *Future[Resp] {
	return &Future[Resp]{p: begin(ctx, c, m.spec, &req)}
}

// Notify sends a notification. It returns when the notification is queued, in
// the order in which calls of Notify return; it waits, with ctx, while the
// peer's handlers are behind by more than the window that it announced, or more than
// Limits.MaxBuffered waits for the socket.
// Nothing tells whether a handler ran: a notification in flight when a session
// is lost may be lost too. One that has not left waits for the next link: Notify
// returns meanwhile, until what waits fills the window. The error is an *Error.
func Notify[T any](ctx context.Context, c Caller, n Notification[T], v T) error {
	t, err := aim(ctx, c, n.spec, "NewNotification")
	if err == nil {
		err = t.giveKey(n.spec)
	}
	if err != nil {
		return err
	}
	body, err := t.encode(n.spec, &v)
	if err != nil {
		return err
	}
	defer body.Release()
	if err := t.notify(ctx, n.spec, body); err != nil {
		return err
	}
	return nil
}

// Broadcast sends a notification to many connections, encoding it once for
// each codec and dialect. A connection that is behind delays nobody: the
// others are served first, then Broadcast waits for it, with ctx. For one that has
// lost its link the notification waits, as Notify's does. It returns the errors of the
// connections that could not be served, joined. Each wraps an *Error, and its text begins
// with whose it is: the Identity's subject and the peer's address, or, where there is
// neither, as on a client, its place among conns, from 1. Callers made by With bring their
// metadata and interceptors:
//
//	func(yield func(typedrpc.Caller) bool) {
//		for c := range srv.Conns() {
//			if !yield(c.With(options)) {
//				return
//			}
//		}
//	}
func Broadcast[C Caller, T any](ctx context.Context, conns iter.Seq[C], n Notification[T], v T) error {
	if n.spec == nil {
		_, err := aim(ctx, nil, nil, "NewNotification")
		return err
	}
	if conns == nil {
		return refuse(InvalidArgument, "Broadcast: the sequence of connections is nil")
	}
	b := broadcast{spec: n.spec, bodies: map[encodedFor]encoded{}}
	defer b.release()
	var behind []late
	var errs []error
	place := 0
	for c := range conns {
		place++
		conn, busy, err := b.send(ctx, c, &v, true)
		if busy {
			behind = append(behind, late{c, conn, place})
		} else if err != nil {
			errs = append(errs, errorOf(conn, place, err))
		}
	}
	return errors.Join(append(errs, b.wait(ctx, behind, &v))...)
}

// With returns a Caller that calls on c with options.
func (c *Conn) With(o CallOptions) Caller {
	return connWith{c.made(), CallOptions{}.and(o, c.retryBudget)}
}

func (c *Conn) target(context.Context, string) (target, *Error) {
	if c == nil || c.e == nil {
		return target{}, refuse(InvalidArgument, noConn)
	}
	return target{conn: c}, nil
}

// aim is c's target for a call of s, which the function by made.
func aim(ctx context.Context, c Caller, s *spec, by string) (target, *Error) {
	switch {
	case s == nil:
		return target{}, refuse(InvalidArgument, "the declaration was not made by %s", by)
	case c == nil:
		return target{}, refuse(InvalidArgument, "the Caller of %q is nil", s.name)
	case ctx == nil:
		return target{}, refuse(InvalidArgument, "the context of %q is nil", s.name)
	}
	return c.target(ctx, s.name)
}

func noContext(of string) *Error { return refuse(InvalidArgument, "the context of %s is nil", of) }

type connWith struct {
	conn *Conn
	opts CallOptions
}

func (c connWith) With(o CallOptions) Caller {
	return connWith{c.conn, c.opts.and(o, c.conn.retryBudget)}
}

func (c connWith) target(context.Context, string) (target, *Error) {
	return target{conn: c.conn, opts: c.opts}, c.opts.fault
}

// broadcast is one Broadcast without its types.
type broadcast struct {
	spec *spec

	mu     sync.Mutex
	bodies map[encodedFor]encoded
}

// body is v as t's connection is sent it, encoded once for all of its kind. What t's
// peer takes of it is t's own affair.
func (b *broadcast) body(t *target, v any) (*buf.Buf, *Error) {
	d := t.conn.e.Dialect()
	_, none := v.(*struct{})
	key := encodedFor{t.conn.codec.Name(), d != session.Binary, none && d == session.Plain}
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.bodies[key]
	if !ok {
		e.body, e.err = t.encodeForAll(b.spec, v)
		e.depth = t.depth
		b.bodies[key] = e
	}
	t.depth = e.depth
	return e.body, e.err
}

// encoded is a message of a Broadcast.
type encoded struct {
	body  *buf.Buf // nil: it cannot be encoded
	depth int16
	err   *Error
}

// encodedFor is what one encoding is good for: the JSON-RPC dialects check payloads
// that the binary one need not, and plain peers are not sent those that say nothing.
type encodedFor struct {
	codec   string
	checked bool
	bare    bool // it has no params
}

func (b *broadcast) release() {
	for _, e := range b.bodies {
		e.body.Release()
	}
}

// wait sends to the connections that are behind, each for itself: they do not
// wait for each other either.
func (b *broadcast) wait(ctx context.Context, behind []late, v any) error {
	errs := make([]error, len(behind))
	exited := Errorf(Internal, "an interceptor, or Pick's function, ended its goroutine").with(MayHaveRun)
	var wg sync.WaitGroup
	for i, l := range behind {
		errs[i] = exited
		wg.Go(func() { errs[i] = b.sendSafely(ctx, l, v) })
	}
	wg.Wait()
	for i, l := range behind {
		if errs[i] == exited {
			errs[i] = errorOf(l.conn, l.place, exited)
		}
	}
	return errors.Join(errs...)
}

// late is a caller whose connection is behind.
type late struct {
	caller Caller
	conn   *Conn // which was
	place  int   // among those that Broadcast was given
}

// sendSafely is send for a goroutine of our own, on which nobody else can recover: the
// panic of Pick's function, or of the encoding, is one failed notification.
func (b *broadcast) sendSafely(ctx context.Context, l late, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			l.conn.logPanic("typedrpc: broadcasting panicked", logs.Known(b.spec.name), p)
			err = errorOf(l.conn, l.place, Errorf(Internal, status.InternalText).with(NotSent))
		}
	}()
	conn, _, err := b.send(ctx, l.caller, v, false)
	return errorOf(conn, l.place, err)
}

// send returns the connection that it was for, nil if there is none, and whether that
// is behind: if not it was sent, or failed.
func (b *broadcast) send(ctx context.Context, caller Caller, v any, noWait bool) (to *Conn, behind bool, _ error) {
	t, err := aim(ctx, caller, b.spec, "NewNotification")
	var body *buf.Buf
	if err == nil {
		err = t.giveKey(b.spec)
	}
	if err == nil {
		body, err = b.body(&t, v)
	}
	if err == nil {
		err = t.opts.Metadata.check()
	}
	switch {
	case err != nil:
		return t.conn, false, err
	case noWait && !t.intercepted():
		behind, e := t.conn.e.Notify(ctx, &b.spec.decl, body, t.opts.Metadata, engine.NotifyOptions{NoWait: true, FailFast: t.failFast(t.conn), Depth: t.depth})
		if e != nil {
			return t.conn, false, up(e, t.conn.codec)
		}
		return t.conn, behind, nil
	case noWait && t.conn.e.Behind(body.Len()+wire.MaxMeta):
		return t.conn, true, nil // before the interceptors see it, who may see it only once, and add metadata
	}
	return t.conn, false, t.notifySafely(ctx, b.spec, body)
}

// notifySafely is notify for a goroutine of our own: an interceptor's panic is one
// failed notification.
func (t *target) notifySafely(ctx context.Context, s *spec, body *buf.Buf) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.conn.logPanic("typedrpc: interceptor panicked", s.name, p)
			err = Errorf(Internal, status.InternalText).with(MayHaveRun)
		}
	}()
	if e := t.notify(ctx, s, body); e != nil {
		return e
	}
	return nil
}
