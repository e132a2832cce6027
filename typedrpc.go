package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
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
	// Reply receives the metadata that came back, also with an error. Calls
	// that run at the same time need a Reply each.
	Reply *Metadata
	// FailFast makes a call fail with Unavailable, NotSent, when there is no
	// link at the moment, instead of waiting for one, and keeps it from
	// being sent again when its link is lost.
	FailFast bool
	// Retry goes before the method's and the connection's policy.
	Retry *RetryPolicy
	// Interceptors wrap the call inside those of the connection.
	Interceptors []Interceptor
	// Key is the idempotency key of a Keyed method's call, for a program that
	// repeats the call itself. Without one each call has its own.
	Key Key

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
	if more.Reply != nil {
		o.Reply = more.Reply
	}
	o.FailFast = o.FailFast || more.FailFast
	if more.Key != (Key{}) {
		o.Key = more.Key
	}
	if more.Retry != nil {
		p := *more.Retry
		if err := p.check(); err != nil {
			o.fault = Errorf(InvalidArgument, "CallOptions.Retry: %w", err)
		}
		if p.Budget == nil {
			p.Budget = budget()
		}
		o.Retry = p.ready()
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
	return &Future[Resp]{pending: begin(ctx, c, m.spec, &req)}
}

// Notify sends a notification. It returns when the notification is queued, in
// the order in which calls of Notify return; it waits, with ctx, while the
// peer's handlers are behind by more than the window that it announced.
// Nothing tells whether a handler ran: a notification in flight when a link is
// lost may be lost too. One that has not left waits for the next link.
func Notify[T any](ctx context.Context, c Caller, n Notification[T], v T) error {
	t, err := c.target(ctx, n.spec.name)
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
// others are served first, then Broadcast waits for it, with ctx. It returns
// the errors of the connections that could not be served, joined.
func Broadcast[T any](ctx context.Context, conns iter.Seq[*Conn], n Notification[T], v T) error {
	b := broadcast{spec: n.spec, bodies: map[encodedFor]*buf.Buf{}}
	defer b.release()
	var behind []*Conn
	var errs []error
	for c := range conns {
		busy, err := b.send(ctx, c, &v, true)
		if busy {
			behind = append(behind, c)
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, b.wait(ctx, behind, &v))...)
}

// Pick makes a Caller of a function that chooses a connection, asked once for
// every attempt of every call: a pool, a router by method, the leader. It may
// be called by many goroutines at once. Its error fails the call, as
// Unavailable unless it is an *Error. All its connections must speak one codec.
func Pick(fn func(ctx context.Context, method string) (*Conn, error)) Caller {
	return picker{pick: fn, budget: sync.OnceValue(defaultBudget)}
}

type picker struct {
	pick   func(context.Context, string) (*Conn, error)
	opts   CallOptions
	budget func() *RetryBudget // of policies without one
}

func (p picker) With(o CallOptions) Caller { return picker{p.pick, p.opts.and(o, p.budget), p.budget} }

func (p picker) target(ctx context.Context, method string) (target, *Error) {
	t := target{pick: p.pick, opts: p.opts}
	if p.opts.fault != nil {
		return t, p.opts.fault
	}
	conn, err := t.next(ctx, method)
	if err != nil {
		return t, err
	}
	t.conn = conn
	return t, nil
}

// With returns a Caller that calls on c with options.
func (c *Conn) With(o CallOptions) Caller {
	return connWith{c, CallOptions{}.and(o, c.retryBudget)}
}

func (c *Conn) target(context.Context, string) (target, *Error) { return target{conn: c}, nil }

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

// target is where one call goes.
type target struct {
	conn *Conn // of the first attempt
	pick func(context.Context, string) (*Conn, error)
	opts CallOptions
	key  *keyState // of a Keyed method's call
}

// next returns the connection for the next attempt.
func (t *target) next(ctx context.Context, method string) (*Conn, *Error) {
	if t.pick == nil {
		return t.conn, nil
	}
	conn, err := t.pick(ctx, method)
	switch {
	case err != nil:
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, &Error{Code: Unavailable, Message: "no connection was picked", cause: err}
	case conn == nil:
		return nil, Errorf(Unavailable, "Pick returned no connection for %q", method)
	case t.conn != nil && t.conn.codec.Name() != conn.codec.Name():
		return nil, Errorf(FailedPrecondition, "Pick chose connections of different codecs, %q and %q", t.conn.codec.Name(), conn.codec.Name())
	}
	return conn, nil
}

// metadata adds the options' metadata to m, in a map that is nobody else's:
// interceptors may write to it, and the options are shared by calls.
func (t *target) metadata(m Metadata) Metadata {
	if t.key != nil {
		return t.keyedMetadata(m)
	}
	if len(m) == 0 {
		return maps.Clone(t.opts.Metadata)
	}
	merged := maps.Clone(m)
	maps.Copy(merged, t.opts.Metadata)
	return merged
}

func (t *target) intercepted() bool {
	return len(t.opts.Interceptors) > 0 || len(t.conn.config.interceptors) > 0
}

func (t *target) policy(s *spec) *RetryPolicy {
	switch {
	case t.opts.Retry != nil:
		return t.opts.Retry
	case s.retry != nil:
		return s.retry
	}
	return t.conn.config.retry
}

// encode encodes a request or notification.
func (t *target) encode(s *spec, v any) (*buf.Buf, *Error) {
	b := buf.Get()
	var err error
	if b.B, err = s.encode(t.conn.codec, b.B, v); err == nil {
		err = t.conn.checkPayload(b.B)
	}
	if err != nil {
		b.Release()
		return nil, Errorf(InvalidArgument, "cannot encode the message of %q: %w", s.name, err)
	}
	return b, nil
}

// invoke is Call without its types.
func invoke(ctx context.Context, c Caller, s *spec, req, resp any) error {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	t, err := c.target(ctx, s.name)
	if err == nil {
		err = t.giveKey(s)
	}
	if err != nil {
		return err
	}
	body, err := t.encode(s, req)
	if err != nil {
		return err
	}
	defer body.Release()
	if t.intercepted() {
		r := &Request{Method: s.name, Kind: KindCall, Conn: t.conn, Payload: body.B, Metadata: t.metadata(nil), spec: s}
		raw, err := t.do(ctx, s, r)
		if t.opts.Reply != nil {
			*t.opts.Reply = r.Reply
		}
		if err != nil {
			return asError(err)
		}
		return t.decode(s, raw, resp)
	}
	answer, meta, err := t.exchange(ctx, s, body, t.opts.Metadata)
	if t.opts.Reply != nil {
		*t.opts.Reply = meta
	}
	if err != nil {
		return err
	}
	defer answer.Release()
	return t.decode(s, answer.B, resp)
}

// decode reads a response. Its result is an error, not an *Error, so that nil
// stays nil.
func (t *target) decode(s *spec, data []byte, resp any) error {
	if len(data) == 0 && t.conn.codec == JSON {
		data = []byte("null")
	}
	if err := s.decode(t.conn.codec, data, resp); err != nil {
		return &Error{Code: Internal, Message: "cannot decode the response of " + s.name + ": " + err.Error(), Outcome: Answered, cause: err}
	}
	return nil
}

// asError makes what an interceptor returned an *Error.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeOf(err), Message: err.Error(), Outcome: NotSent, cause: err}
}

// do sends a request through the interceptors.
func (t target) do(ctx context.Context, s *spec, r *Request) (Raw, error) {
	return t.around(ctx, r, func(ctx context.Context, r *Request) (Raw, error) {
		// Copied: an interceptor's bytes are its own as soon as this returns,
		// and the writer may still hold the request then.
		body := buf.Copy(r.Payload)
		defer body.Release()
		if err := t.conn.checkPayload(body.B); err != nil {
			return nil, Errorf(InvalidArgument, "cannot send the payload of %q: %w", r.Method, err)
		}
		if s.kind == KindNotification {
			meta := maps.Clone(r.Metadata) // read when the notification is written
			if err := meta.check(); err != nil {
				return nil, err
			}
			if _, err := t.conn.sendNotification(ctx, s, body, meta, notifyOptions{failFast: t.opts.FailFast}); err != nil {
				return nil, err
			}
			return nil, nil
		}
		answer, meta, err := t.exchange(ctx, s, body, maps.Clone(r.Metadata))
		r.Reply = meta
		if err != nil {
			return nil, err
		}
		return answer.B, nil // not released: an interceptor may keep it
	})
}

// around runs send inside the interceptors.
func (t target) around(ctx context.Context, r *Request, send RawHandler) (Raw, error) {
	if !t.intercepted() {
		return send(ctx, r)
	}
	var ran atomic.Bool // some next got as far as a handler, or may have
	next := func(ctx context.Context, r *Request) (Raw, error) {
		raw, err := send(ctx, r)
		if err == nil || OutcomeOf(err) != NotSent {
			ran.Store(true)
		}
		return raw, err
	}
	raw, err := chain(slices.Concat(t.conn.config.interceptors, t.opts.Interceptors), next)(ctx, r)
	if err != nil {
		// An interceptor's own error says nothing of what next did.
		e := asError(err)
		if ran.Load() && e.Outcome == NotSent {
			e = e.with(MayHaveRun)
		}
		return nil, e
	}
	return raw, nil
}

// doSafely is do for a goroutine of our own, on which nobody else can recover:
// an interceptor's panic is one failed call.
func (t target) doSafely(ctx context.Context, s *spec, r *Request) (raw Raw, err error) {
	defer func() {
		if p := recover(); p != nil {
			t.conn.config.logger.Error("typedrpc: interceptor panicked",
				"method", r.Method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &Error{Code: Internal, Message: internalText, Outcome: MayHaveRun}
		}
	}()
	return t.do(ctx, s, r)
}

// exchange sends body as a call and waits for its end.
func (t *target) exchange(ctx context.Context, s *spec, body *buf.Buf, meta Metadata) (*buf.Buf, Metadata, *Error) {
	if ctx.Err() != nil {
		return nil, nil, ended(ctx, NotSent)
	}
	meta, err := t.checkMetadata(meta)
	if err != nil {
		return nil, nil, err
	}
	cl := t.conn.newCall()
	t.prepare(cl, ctx, s, body, meta)
	cl.begin()
	cl.wait()
	answer, reply, failed := cl.body, cl.meta, cl.err
	cl.recycle()
	if failed != nil {
		return nil, reply, failed
	}
	return answer, reply, nil
}

// prepare fills in a call.
func (t *target) prepare(cl *call, ctx context.Context, s *spec, body *buf.Buf, meta Metadata) {
	cl.target, cl.spec, cl.ctx = *t, s, ctx
	cl.policy = t.policy(s)
	cl.deadline, _ = ctx.Deadline()
	cl.item.call, cl.item.ordered = cl, s.serial
	cl.item.body = body.Retain()
	cl.item.frame = wire.Frame{Type: wire.Call, Method: s.name, Meta: meta}
	cl.item.cost = body.Len() + meta.size() + messageOverhead
	cl.aim(t.conn)
}

// notify sends a notification through the interceptors.
func (t *target) notify(ctx context.Context, s *spec, body *buf.Buf) *Error {
	if err := t.opts.Metadata.check(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ended(ctx, NotSent)
	}
	if !t.intercepted() {
		_, err := t.conn.sendNotification(ctx, s, body, t.opts.Metadata, notifyOptions{failFast: t.opts.FailFast})
		return err
	}
	r := &Request{Method: s.name, Kind: KindNotification, Conn: t.conn, Payload: body.B, Metadata: t.metadata(nil), spec: s}
	if _, err := t.do(ctx, s, r); err != nil {
		return asError(err)
	}
	return nil
}

// broadcast is one Broadcast without its types.
type broadcast struct {
	spec   *spec
	bodies map[encodedFor]*buf.Buf
}

// encodedFor is what one encoding is good for: the JSON-RPC dialect checks
// payloads that the binary one need not.
type encodedFor struct {
	codec string
	text  bool
}

func (b *broadcast) release() {
	for _, body := range b.bodies {
		body.Release()
	}
}

// wait sends to the connections that are behind, each for itself: they do not
// wait for each other either.
func (b *broadcast) wait(ctx context.Context, conns []*Conn, v any) error {
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { _, errs[i] = b.send(ctx, c, v, false) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (b *broadcast) send(ctx context.Context, c *Conn, v any, noWait bool) (busy bool, _ error) {
	t := target{conn: c}
	key := encodedFor{c.codec.Name(), c.dialect != session.Binary}
	body := b.bodies[key]
	if body == nil {
		var err *Error
		if body, err = t.encode(b.spec, v); err != nil {
			return false, err
		}
		b.bodies[key] = body
	}
	if noWait && !t.intercepted() {
		busy, err := c.sendNotification(ctx, b.spec, body, nil, notifyOptions{noWait: true})
		if err != nil {
			return busy, err
		}
		return busy, nil
	}
	if noWait && c.behind(body.Len()+wire.MaxMeta) {
		return true, nil // before the interceptors see it, who may see it only once, and add metadata
	}
	if err := t.notify(ctx, b.spec, body); err != nil {
		return false, err
	}
	return false, nil
}
