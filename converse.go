package typedrpc

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime/debug"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// The caller's side of streams without its types.

// errLeft is what interceptors see of a loop that was left.
var errLeft = &Error{Code: Canceled, Message: "the loop over the stream was left", Outcome: MayHaveRun, cause: context.Canceled}

// converse calls a stream, has use send and receive its items, and ends it when
// use returns. It runs on the caller's goroutine, inside the interceptors. A
// response is valid for as long as the caller keeps it. The target is nil when
// there was none, or the request could not be encoded.
func converse(ctx context.Context, c Caller, s *spec, req any, use func(*exchange) (Raw, error)) (*target, Raw, *Error) {
	t, r, err := dialogue(ctx, c, s, req)
	if err != nil {
		return nil, nil, err
	}
	raw, failed := t.converse(ctx, s, r, use)
	if t.opts.Reply != nil {
		*t.opts.Reply = r.Reply
	}
	if failed != nil {
		return t, nil, asError(failed)
	}
	return t, raw, nil
}

// converseFor is converse for a stream with a response.
func converseFor(ctx context.Context, c Caller, s *spec, req, resp any, use func(*exchange) (Raw, error)) error {
	t, raw, err := converse(ctx, c, s, req, use)
	if err != nil {
		return err
	}
	return t.decode(s, raw, resp)
}

// dialogue prepares a stream's request.
func dialogue(ctx context.Context, c Caller, s *spec, req any) (*target, *Request, *Error) {
	t, err := c.target(ctx, s.name)
	if err == nil {
		err = t.giveKey(s)
	}
	if err != nil {
		return nil, nil, err
	}
	body, err := t.encode(s, req)
	if err != nil {
		return nil, nil, err
	}
	// The payload is not pooled: interceptors and the stream's life are long.
	r := &Request{Method: s.name, Kind: s.kind, Conn: t.conn, Payload: append(Raw(nil), body.B...), Metadata: t.metadata(nil), spec: s}
	body.Release()
	return &t, r, nil
}

// converse runs use inside the interceptors. It is also what Forward does.
func (t *target) converse(ctx context.Context, s *spec, r *Request, use func(*exchange) (Raw, error)) (Raw, error) {
	return t.around(ctx, r, func(ctx context.Context, r *Request) (Raw, error) {
		x, err := t.open(ctx, s, r, false)
		if err != nil {
			return nil, err
		}
		defer func() {
			x.leave()
			r.Reply = x.meta
		}()
		return use(x)
	})
}

// open begins a stream. The end of one that is held comes from conclude.
func (t *target) open(ctx context.Context, s *spec, r *Request, held bool) (*exchange, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx, NotSent)
	}
	meta := maps.Clone(r.Metadata)
	if err := meta.check(); err != nil {
		return nil, err
	}
	body := buf.Copy(r.Payload)
	defer body.Release()
	if err := t.conn.checkPayload(body.B); err != nil {
		return nil, Errorf(InvalidArgument, "cannot send the payload of %q: %w", r.Method, err)
	}
	stop := func() {}
	if s.timeout > 0 {
		ctx, stop = context.WithTimeout(ctx, s.timeout)
	}
	x := newExchange(t.conn, s, s.kind, true)
	x.req, x.done, x.held = r, make(chan struct{}), held
	if !t.intercepted() {
		x.reply = t.opts.Reply
	}
	x.call = &call{exchange: x}
	t.prepare(x.call, ctx, s, body, meta)
	x.call.policy = nil // what has been sent and received cannot be taken back
	f := &x.call.item.frame
	f.Kind = s.kind.wireKind()
	if !x.sends {
		f.Flags |= wire.NoItems
	}
	unbind := func() bool { return true }
	if ctx.Done() != nil {
		unbind = context.AfterFunc(ctx, func() { x.fail(ended(ctx, MayHaveRun)) })
	}
	t.conn.mu.Lock() // the context may end this moment
	x.stop = func() { unbind(); stop() }
	t.conn.mu.Unlock()
	x.call.begin()
	if err := x.unsent(); err != nil {
		return nil, err
	}
	return x, nil
}

// unsent is why the call could not even be queued.
func (x *exchange) unsent() error {
	if !x.isDone() {
		return nil
	}
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.err == nil || x.err.Outcome != NotSent {
		return nil
	}
	return x.err
}

// answer waits for the end of a stream with a response and returns it.
func (x *exchange) answer() (Raw, error) {
	<-x.done
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.err != nil {
		return nil, x.err
	}
	raw := append(Raw(nil), x.result.Bytes()...)
	return raw, nil
}

// open is Open without its types. With interceptors, which wait for the end of
// the stream, they have a goroutine of their own.
func open(ctx context.Context, c Caller, s *spec, req any) (*exchange, error) {
	t, r, err := dialogue(ctx, c, s, req)
	if err != nil {
		return nil, err
	}
	if !t.intercepted() {
		return t.open(ctx, s, r, false)
	}
	opened, returned := make(chan *exchange, 1), make(chan error, 1)
	go t.attend(ctx, s, r, opened, returned)
	select {
	case x := <-opened:
		return x, nil
	case err := <-returned:
		select {
		case x := <-opened: // and it is over already
			return x, nil
		default:
		}
		if err == nil {
			err = Errorf(FailedPrecondition, "an interceptor answered the stream %q without calling next", s.name)
		}
		return nil, asError(err)
	}
}

// attend runs the interceptors of a stream that Open opened. What they return
// is what the stream ends with.
func (t *target) attend(ctx context.Context, s *spec, r *Request, opened chan<- *exchange, returned chan<- error) {
	var x *exchange
	failure := error(&Error{Code: Internal, Message: "an interceptor ended its goroutine", Outcome: MayHaveRun})
	defer func() {
		if p := recover(); p != nil {
			t.conn.config.logger.Error("typedrpc: interceptor panicked",
				"method", r.Method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			failure = &Error{Code: Internal, Message: internalText, Outcome: MayHaveRun}
		}
		if t.opts.Reply != nil {
			*t.opts.Reply = r.Reply
		}
		if x != nil {
			var e *Error
			if failure != nil {
				e = asError(failure)
			}
			x.conclude(e)
			if e != nil && !x.isDone() { // else items that came before it are still to be received
				x.fail(e)
			}
		}
		returned <- failure
	}()
	_, failure = t.around(ctx, r, func(ctx context.Context, r *Request) (Raw, error) {
		if x != nil {
			return nil, Errorf(FailedPrecondition, "the stream %q was opened already and cannot be opened again", s.name)
		}
		o, err := t.open(ctx, s, r, true)
		if err != nil {
			return nil, err
		}
		x = o
		opened <- o
		<-o.done
		r.Reply = o.meta
		if t.opts.Reply != nil {
			*t.opts.Reply = o.meta
		}
		if o.err != nil {
			return nil, o.err
		}
		return nil, nil
	})
}

// forward passes the items of r's stream on to x, and x's back.
func (r *Request) forward(x *exchange) (Raw, error) {
	in := r.exchange
	if r.forwarded {
		return nil, Errorf(FailedPrecondition, "the stream %q was forwarded already; its items cannot be had again", r.Method)
	}
	r.forwarded = true
	if in.takes {
		go in.pass(x)
	}
	for x.takes {
		p, err := x.hand(in)
		p.buf.Release()
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
func (x *exchange) pass(to *exchange) {
	passed := false
	defer func() {
		if p := recover(); p != nil { // an interceptor's function that looks at items
			x.conn.config.logger.Error("typedrpc: interceptor panicked",
				"method", x.spec.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		if !passed {
			to.fail(&Error{Code: Internal, Message: internalText})
		}
	}()
	for {
		p, err := x.hand(to)
		p.buf.Release()
		if err == nil {
			continue
		}
		passed = true
		if err == io.EOF {
			to.closeSend()
		} else {
			to.fail(asError(err))
		}
		return
	}
}

// hand passes one item on.
func (x *exchange) hand(to *exchange) (piece, error) {
	p, data, err := x.next()
	if err != nil {
		return p, err
	}
	if err := to.conn.checkPayload(data); err != nil {
		return p, Errorf(InvalidArgument, "cannot forward an item of %q: %w", to.spec.name, err)
	}
	body := buf.Copy(data)
	defer body.Release()
	return p, to.sendBody(body, p.flags, p.dropped)
}
