package typedrpc

import (
	"context"
	"errors"
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Future is the response of a call that is on its way, made by Go, or that has ended, as
// CallAll has it. Its methods may be called by any goroutine, any number of times. A future
// that is never awaited costs its memory and nothing else. The methods of one that neither
// made panic.
type Future[T any] struct {
	p    *pending
	once sync.Once
	val  T
	err  error
}

// Done is closed when the call has ended.
func (f *Future[T]) Done() <-chan struct{} { return f.of().done() }

// Cancel ends the call: Await returns Canceled, unless the response is here
// already, and the handler's context ends. It does not wait.
func (f *Future[T]) Cancel() { f.of().cancel() }

func (f *Future[T]) of() *pending {
	if f == nil || f.p == nil {
		panic("typedrpc: the Future is nil, or was not made by Go or CallAll")
	}
	return f.p
}

// Await returns the call's response or error, waiting for it as long as ctx
// allows. When ctx ends first the call goes on, and may be awaited again; use
// Cancel, or the context given to Go, to end it. The error is then Canceled or
// DeadlineExceeded, MayHaveRun, as it is of All, Any and Wait.
func (f *Future[T]) Await(ctx context.Context) (T, error) {
	if ctx == nil {
		var none T
		return none, unawaited(ctx, "", f.of())
	}
	select {
	case <-f.Done(): // before a context that has ended too
	default:
		select {
		case <-f.Done():
		case <-ctx.Done():
			var none T
			return none, unawaited(ctx, "stopped waiting for a call that goes on", f.p)
		}
	}
	f.resolve()
	return f.val, f.err
}

// resolve decodes the response of a settled call, once.
func (f *Future[T]) resolve() error {
	f.once.Do(func() {
		if f.err = f.p.take(&f.val); f.err != nil {
			f.val = *new(T) // what was decoded until then is no response
		}
	})
	return f.err
}

// Waiter is a future of any type, for Wait. It is sealed.
type Waiter interface {
	Done() <-chan struct{}
	Cancel()
	resolve() error
	of() *pending
}

// pending is a Future without its type.
type pending struct {
	call   *outcall // nil: it did not get as far, and has failed
	failed *Error
	cancel func()
}

// unmade is what has failed before there was a call.
func unmade(err *Error) *pending { return &pending{failed: err, cancel: func() {}} }

// over is closed, as Done is of what has failed.
var over = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (p *pending) done() <-chan struct{} {
	if p.call == nil {
		return over
	}
	return p.call.Done()
}

// watch has i sent on ch when the call has ended. ch must have room.
func (p *pending) watch(ch chan<- int, i int) {
	if p.call == nil {
		ch <- i
		return
	}
	p.call.Watch(ch, i)
}

func (p *pending) unwatch(ch chan<- int) {
	if p.call != nil {
		p.call.Unwatch(ch)
	}
}

// take decodes the response into v. The result is an error, not an *Error, so
// that nil stays nil.
func (p *pending) take(v any) error {
	if p.call == nil {
		return p.failed
	}
	cl := p.call
	body, meta, err := cl.Result()
	defer cl.Taken()
	if cl.target.opts.ReplyMetadata != nil {
		*cl.target.opts.ReplyMetadata = meta
	}
	if err != nil {
		return up(err, cl.codec())
	}
	defer body.Release()
	return cl.target.decode(cl.spec, body.B, v)
}

// codec is the codec of the call's answer, nil: it never got as far as a
// connection.
func (cl *outcall) codec() Codec {
	if cl.target.conn == nil {
		return nil
	}
	return cl.target.conn.codec
}

// begin is Go without its types.
func begin(ctx context.Context, c Caller, s *spec, req any) *pending {
	return beginWith(ctx, c, s, func(t *target) (*buf.Buf, *Error) { return t.encode(s, req) })
}

// beginWith is begin of a request that encode has, with a reference to it.
func beginWith(ctx context.Context, c Caller, s *spec, encode func(t *target) (*buf.Buf, *Error)) *pending {
	t, err := aim(ctx, c, s, "NewMethod")
	aimed := err == nil
	if aimed {
		err = t.giveKey(s)
	}
	var body *buf.Buf
	if err == nil {
		body, err = encode(&t)
	}
	if err == nil && ctx.Err() != nil {
		err = ended(ctx, NotSent)
	}
	var meta Metadata
	if err == nil {
		meta, err = t.checkMetadata(t.opts.Metadata)
	}
	if err != nil {
		body.Release()
		p := unmade(err)
		if aimed {
			engine.Refused(p, t.conn.e, ctx)
		}
		return p
	}
	cl := &outcall{spec: s}
	cl.Init(true)
	cl.Made(t.conn.e, ctx, t.intercepted())
	p := &pending{call: cl}
	p.cancel = func() {
		cl.GiveUp(func(o status.Outcome) *status.Error {
			return &status.Error{Code: status.Canceled, Message: "the future was cancelled", Outcome: o, Cause: context.Canceled}
		})
	}
	defer body.Release()
	stop := func() {}
	if s.timeout > 0 {
		ctx, stop = context.WithTimeout(ctx, s.timeout)
	}
	if t.intercepted() {
		p.intercept(ctx, stop, t, s, body.Bytes())
		return p
	}
	t.prepare(cl, ctx, s)
	unbind := func() bool { return true }
	if ctx.Done() != nil {
		unbind = context.AfterFunc(ctx, func() {
			cl.GiveUp(cl.Expired)
		})
	}
	cl.Untie(func() bool { defer stop(); return unbind() })
	cl.begin(body, meta)
	return p
}

// intercept runs interceptors, which wait, on a goroutine of the future's own.
func (p *pending) intercept(ctx context.Context, stop func(), t target, s *spec, body []byte) {
	cl := p.call
	cl.target, cl.Key = t, t.key
	ctx, p.cancel = context.WithCancel(ctx)
	cl.Untie(func() bool { p.cancel(); stop(); return true })
	r := &Request{Method: s.name, Kind: KindMethod, Outgoing: true, Declared: true, Conn: t.conn, Payload: append(Raw(nil), body...), Metadata: t.metadata(nil), spec: s}
	go func() {
		returned := false
		defer func() {
			if !returned { // runtime.Goexit in an interceptor
				cl.Settle(nil, nil, &status.Error{Code: status.Internal, Message: "an interceptor ended its goroutine", Outcome: status.MayHaveRun})
			}
		}()
		raw, err := t.doSafely(ctx, s, r)
		returned = true
		var e *status.Error
		n := len(raw)
		if err != nil {
			e = lower(asError(err))
			n = len(e.Message) + len(e.Data)
		}
		if full := cl.Answered(t.conn.e, ctx, n); full != nil {
			cl.Settle(nil, nil, full.With(status.Answered))
			return
		}
		if e != nil {
			cl.Settle(nil, r.ReplyMetadata, e)
			return
		}
		cl.Settle(buf.Copy(raw), r.ReplyMetadata, nil) // it may be an interceptor's cache
	}()
}

// collect calls each with the index of every future as it settles, until each
// returns false, all have, or ctx ends; then it returns ctx's error.
func collect(ctx context.Context, fs []*pending, each func(i int) bool) error {
	if ctx == nil {
		return unawaited(ctx, "", fs...)
	}
	ch := make(chan int, len(fs))
	for i, f := range fs {
		f.watch(ch, i)
	}
	defer func() {
		for _, f := range fs {
			f.unwatch(ch)
		}
	}()
	for range fs {
		select {
		case i := <-ch:
			if !each(i) {
				return nil
			}
		case <-ctx.Done():
			return unawaited(ctx, "stopped waiting for calls that go on", fs...)
		}
	}
	return nil
}

// unawaited is the error of who stops waiting for fs because ctx has ended. It says so
// where one of them has no link.
func unawaited(ctx context.Context, text string, fs ...*pending) *Error {
	if ctx == nil {
		return &Error{Code: InvalidArgument, Message: "the context to wait with is nil; the calls go on", Outcome: MayHaveRun}
	}
	e := status.Ended(ctx, status.MayHaveRun)
	e.Message = text
	for _, f := range fs {
		if f.call == nil {
			continue
		}
		if x := f.call.Unlinked(e); x != e {
			return up(x, f.call.codec())
		}
	}
	return up(e, nil)
}

func pendings[T any](fs []*Future[T]) []*pending {
	ps := make([]*pending, len(fs))
	for i, f := range fs {
		ps[i] = f.of()
	}
	return ps
}

func cancelAll(fs []*pending) {
	for _, f := range fs {
		f.cancel()
	}
}

// All waits for all futures and returns their responses in order. The first
// error cancels the others and is returned. When ctx ends first the calls go on.
func All[T any](ctx context.Context, fs ...*Future[T]) ([]T, error) {
	ps := pendings(fs)
	var failed error
	err := collect(ctx, ps, func(i int) bool {
		failed = fs[i].resolve()
		return failed == nil
	})
	if failed != nil {
		cancelAll(ps)
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	vals := make([]T, len(fs))
	for i, f := range fs {
		vals[i] = f.val
	}
	return vals, nil
}

// Any waits for the first response and cancels the other calls. If all fail it
// returns their errors, joined, so that errors.Is and errors.As look into each.
// When ctx ends first the calls go on. Of no futures it is InvalidArgument.
func Any[T any](ctx context.Context, fs ...*Future[T]) (T, error) {
	var none T
	ps := pendings(fs)
	winner := -1
	var errs []error
	err := collect(ctx, ps, func(i int) bool {
		if err := fs[i].resolve(); err != nil {
			errs = append(errs, err)
			return true
		}
		winner = i
		return false
	})
	switch {
	case winner >= 0:
		cancelAll(ps)
		return fs[winner].val, nil
	case err != nil:
		return none, err
	case len(fs) == 0:
		return none, refuse(InvalidArgument, "Any of no futures")
	}
	return none, errors.Join(errs...)
}

// Wait waits for futures of different types; their values are then at hand
// without waiting. The first error cancels the others and is returned. When
// ctx ends first the calls go on.
func Wait(ctx context.Context, fs ...Waiter) error {
	ps := make([]*pending, len(fs))
	for i, f := range fs {
		if f == nil {
			panic("typedrpc: Wait for a Waiter that is nil")
		}
		ps[i] = f.of()
	}
	var failed error
	err := collect(ctx, ps, func(i int) bool {
		failed = fs[i].resolve()
		return failed == nil
	})
	if failed != nil {
		cancelAll(ps)
		return failed
	}
	return err
}
