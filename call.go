package typedrpc

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/replay"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
)

// target is where one call goes.
type target struct {
	conn  *Conn // of the first attempt
	pick  func(context.Context, string) (*Conn, error)
	opts  CallOptions
	key   *replay.Key // of a Keyed method's call
	depth int16       // of the message that was encoded for it
	bare  bool        // which says nothing: plain peers are not sent it
}

// next returns the connection for the next attempt.
func (t *target) next(ctx context.Context, method string) (*Conn, *Error) {
	if t.pick == nil {
		return t.conn, nil
	}
	conn, err := t.pick(ctx, method)
	switch {
	case err != nil:
		if _, coded := codeIn(err); coded {
			return nil, asError(err).unsent()
		}
		return nil, &Error{Code: Unavailable, Message: "no connection was picked", Outcome: NotSent, cause: err}
	case conn == nil:
		return nil, refuse(Unavailable, "Pick returned no connection for %q", method)
	case conn.e == nil:
		return nil, refuse(InvalidArgument, noConn)
	case t.conn != nil && t.conn.codec.Name() != conn.codec.Name():
		return nil, refuse(FailedPrecondition, "Pick chose connections of different codecs, %q and %q", t.conn.codec.Name(), conn.codec.Name())
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
	return len(t.opts.Interceptors) > 0 || len(t.conn.opts.interceptors) > 0
}

// failFast reports whether calls on conn do not wait for a link.
func (t *target) failFast(conn *Conn) bool {
	if t.opts.FailFast || t.opts.WaitForLink {
		return t.opts.FailFast
	}
	return conn != nil && conn.opts.failFast
}

func (t *target) policy(s *spec) *RetryPolicy {
	switch {
	case t.opts.Retry != nil:
		return t.opts.Retry
	case s.retry != nil:
		return s.retry
	}
	return t.conn.opts.retry
}

// encode encodes a request or notification that t's connection can be sent.
func (t *target) encode(s *spec, v any) (*buf.Buf, *Error) {
	b, err := t.encodeForAll(s, v)
	if err != nil {
		return nil, err
	}
	if err := t.conn.e.CheckDepth(t.depth); err != nil {
		b.Release()
		return nil, refuse(InvalidArgument, "cannot encode the message of %q: %w", s.name, err)
	}
	return b, nil
}

// encodeForAll encodes a message for all connections of the codec and the dialect.
// What each of them takes is not asked.
func (t *target) encodeForAll(s *spec, v any) (*buf.Buf, *Error) {
	b := buf.Get()
	if _, t.bare = v.(*struct{}); t.bare && t.conn.e.Dialect() == session.Plain {
		return b.Fit(), nil // no params: those who take them by position take no object
	}
	var err error
	if b.B, err = s.encode(t.conn.codec, b.B, v); err == nil {
		t.depth, err = t.conn.e.Measure(b.B)
	}
	if err != nil {
		b.Release()
		return nil, refuse(InvalidArgument, "cannot encode the message of %q: %w", s.name, err)
	}
	return b.Fit(), nil
}

// invoke is Call without its types.
func invoke(ctx context.Context, c Caller, s *spec, req, resp any) error {
	if s.timeout > 0 && ctx != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	t, err := aim(ctx, c, s, "NewMethod")
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
		r := &Request{Method: s.name, Kind: KindMethod, Outgoing: true, Declared: true, Conn: t.conn, Payload: body.B, Metadata: t.metadata(nil), spec: s}
		raw, err := t.do(ctx, s, r)
		if t.opts.ReplyMetadata != nil {
			*t.opts.ReplyMetadata = r.ReplyMetadata
		}
		if err != nil {
			return asError(err)
		}
		return t.decode(s, raw, resp)
	}
	answer, meta, err := t.exchange(ctx, s, body, t.opts.Metadata)
	if t.opts.ReplyMetadata != nil {
		*t.opts.ReplyMetadata = meta
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

// do sends a request through the interceptors.
func (t target) do(ctx context.Context, s *spec, r *Request) (Raw, error) {
	return t.around(ctx, r, func(ctx context.Context, r *Request) (Raw, error) {
		// Copied: an interceptor's bytes are its own as soon as this returns,
		// and the writer may still hold the request then.
		body := buf.Copy(r.Payload)
		defer body.Release()
		t := t
		t.bare = t.bare && string(r.Payload) == nothing // still
		if err := t.measure(r.Method, body.B); err != nil {
			return nil, err
		}
		if s.kind == KindNotification {
			meta := maps.Clone(r.Metadata) // read when the notification is written
			if err := meta.check(); err != nil {
				return nil, err
			}
			if err := t.send(ctx, s, body, meta); err != nil {
				return nil, err
			}
			return nil, nil
		}
		answer, meta, err := t.exchange(ctx, s, body, maps.Clone(r.Metadata))
		r.ReplyMetadata = meta
		if err != nil {
			return nil, err
		}
		return answer.B, nil // not released: an interceptor may keep it
	})
}

// measure is encode's checks of a payload that is encoded already.
func (t *target) measure(name string, payload []byte) *Error {
	depth, err := t.conn.e.Measure(payload)
	if err == nil {
		err = t.conn.e.CheckDepth(depth)
	}
	if err != nil {
		return refuse(InvalidArgument, "cannot send the payload of %q: %w", name, err)
	}
	t.depth = depth
	return nil
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
	raw, err := chain(slices.Concat(t.conn.opts.interceptors, t.opts.Interceptors), next)(ctx, r)
	if err != nil {
		// An interceptor's own error says nothing of what next did.
		e := asError(err)
		switch {
		case !ran.Load():
			e = e.unsent()
		case e.Outcome == NotSent || !e.told:
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
			t.conn.logPanic("typedrpc: interceptor panicked", r.Method, p)
			err = Errorf(Internal, status.InternalText).with(MayHaveRun)
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
	t.prepare(cl, ctx, s)
	cl.begin(body, meta)
	cl.Wait()
	answer, reply, failed := cl.Result()
	cl.Taken()
	cl.recycle()
	if failed != nil {
		return nil, reply, up(failed, t.conn.codec)
	}
	return answer, reply, nil
}

// outcall is the record of a call: what the engine knows of it, and whom to ask
// for a connection at the next attempt. It is one allocation, which a connection
// pools.
type outcall struct {
	engine.Call
	target target
	spec   *spec
	policy *RetryPolicy
}

// newCall returns a call to be recycled. Each connection has a pool of its own
// because a channel belongs to the testing/synctest bubble it was made in.
func (c *Conn) newCall() *outcall {
	if cl, ok := c.calls.Get().(*outcall); ok {
		return cl
	}
	cl := new(outcall)
	cl.Init(false)
	return cl
}

// recycle gives back a call that nobody else knows any more: one that was
// answered, or failed, and whose caller took the signal.
func (cl *outcall) recycle() {
	if cl.policy != nil {
		return // a timer may still know it
	}
	conn := cl.target.conn
	cl.Reset()
	cl.target, cl.spec = target{}, nil
	conn.calls.Put(cl)
}

// prepare fills in a call.
func (t *target) prepare(cl *outcall, ctx context.Context, s *spec) {
	cl.target, cl.spec, cl.policy = *t, s, t.policy(s)
	cl.Above, cl.Conn, cl.Ctx, cl.Decl, cl.Key, cl.Depth = cl, t.conn.e, ctx, &s.decl, t.key, t.depth
	cl.FailFast, cl.Roams = t.failFast(t.conn), t.pick != nil
	cl.Resends = engine.MaxResends
	if cl.Retries = cl.policy != nil; cl.Retries {
		cl.Resends = cl.policy.MaxAttempts - 1
	}
}

// begin starts the first attempt.
func (cl *outcall) begin(body *buf.Buf, meta Metadata) {
	if cl.policy != nil {
		cl.policy.Budget.earn()
	}
	cl.Begin(body, meta)
}

// send queues a notification.
func (t *target) send(ctx context.Context, s *spec, body *buf.Buf, meta Metadata) *Error {
	_, err := t.conn.e.Notify(ctx, &s.decl, body, meta, engine.NotifyOptions{FailFast: t.failFast(t.conn), Depth: t.depth})
	return up(err, t.conn.codec)
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
		return t.send(ctx, s, body, t.opts.Metadata)
	}
	r := &Request{Method: s.name, Kind: KindNotification, Outgoing: true, Declared: true, Conn: t.conn, Payload: body.B, Metadata: t.metadata(nil), spec: s}
	if _, err := t.do(ctx, s, r); err != nil {
		return asError(err)
	}
	return nil
}

// asError makes what an interceptor returned an *Error.
func asError(err error) *Error {
	if e := errorIn(err); e != nil {
		return e
	}
	return &Error{Code: CodeOf(err), Message: err.Error(), cause: err}
}
