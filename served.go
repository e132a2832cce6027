package typedrpc

import (
	"context"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// served is the record of a request that came in: what the engine knows of it,
// and the API's view. It is one allocation.
type served struct {
	engine.Inbound
	req   Request
	entry *entry
}

// answered is a served call, with what it is answered with: still one allocation.
type answered struct {
	served
	answer engine.Answer
}

// owner is a Conn as its engine asks it.
type owner struct{ conn *Conn }

// connOf is the Conn whose engine e is.
func connOf(e *engine.Conn) *Conn { return e.Owner().(owner).conn }

// Name is the request's.
func (s *served) Name() string { return s.req.Method }

// Decl is what the engine knows of its declaration.
func (s *served) Decl() *engine.Decl {
	if s.entry == nil || s.entry.spec == nil {
		return nil
	}
	return &s.entry.spec.decl
}

// Reply is the metadata that goes back.
func (s *served) Reply() map[string]string { return s.req.ReplyMetadata }

func (s *served) Forget() { s.req.Payload = nil }

func (o owner) Find(name string, kind engine.Kind, meta map[string]string) (*engine.Inbound, *status.Error) {
	var s *served
	if kind == engine.KindCall {
		a := new(answered)
		s, a.Answer = &a.served, &a.answer
	} else {
		s = new(served)
	}
	s.req = Request{Method: name, Kind: stats.Kind(kind), Conn: o.conn, Metadata: meta}
	s.Record = s
	var nobody *status.Error
	if s.entry, nobody = o.conn.opts.find(name, s.req.Kind, o.conn.e.Dialect()); nobody == nil {
		s.req.spec = s.entry.spec
		s.req.Declared = s.req.spec != nil
	}
	return &s.Inbound, nobody
}

func (o owner) Run(in *engine.Inbound) (*buf.Buf, map[string]string, error) {
	s := in.Record.(*served)
	s.req.Payload, s.req.stream = in.Payload(), in.Stream()
	if s.req.stream.Marks() && s.req.stream.Entrusted() == nil {
		if err := s.resume(); err != nil {
			return nil, nil, err
		}
	}
	s.req.heavy = in.Heavy()
	if s.req.Kind == KindNotification {
		code := s.notify()
		o.Replied(in, errNotified)
		if code != 0 {
			return nil, nil, &status.Error{Code: status.Code(code)}
		}
		return nil, nil, nil
	}
	body, err := s.serve()
	if err == engine.ErrRests {
		s.req.Payload = nil
	}
	return body, s.req.ReplyMetadata, err
}

func (o owner) Failure(in *engine.Inbound, err error) (f wire.Frame) {
	s, c := in.Record.(*served), o.conn
	defer func() { // MapError and the encoding of a fault's data may panic too
		if p := recover(); p != nil {
			c.logPanic("typedrpc: handler panicked", s.known(), p)
			f = wire.Frame{Type: wire.Fail, Code: int64(Internal), Message: status.InternalText}
		}
	}()
	f, hidden := toWire(in, err, c.codec, c.opts.mapError)
	if hidden != nil {
		c.opts.logger.Error("typedrpc: handler failed", "method", s.known(), "error", hidden)
	}
	if s.refusedBy(err) {
		f.Flags |= wire.NotRun
	}
	f.Meta = s.req.ReplyMetadata // which MapError may have set
	return f
}

// Waits reports whether the program has something to do behind the reply.
func (s *served) Waits() bool { return s.req.AfterReply != nil }

func (o owner) Replied(in *engine.Inbound, err error) {
	s := in.Record.(*served)
	then := s.req.AfterReply
	if then == nil {
		return
	}
	s.req.AfterReply = nil
	var panicked error // which is nobody's
	defer s.caught(&panicked)
	then(after{o.conn.e.Context(), o.conn}, lift(err, o.conn.codec))
}

func (o owner) Again(cl *engine.Call, err *status.Error, n int) (time.Duration, bool) {
	if err.Foreign {
		return 0, false // the number is one of ours by chance
	}
	return cl.Above.(*outcall).policy.next(err, n, cl.Repeatable())
}

func (o owner) Unmade(cl *engine.Call) { cl.Above.(*outcall).policy.Budget.unmade() }

func (o owner) Next(cl *engine.Call, n int, failed *status.Error) (e *engine.Conn, err *status.Error) {
	oc := cl.Above.(*outcall)
	defer func() {
		if p := recover(); p != nil { // of Pick's function, or OnRetry
			o.conn.logPanic("typedrpc: retrying a call panicked", logs.Known(oc.spec.name), p)
			e, err = nil, &status.Error{Code: status.Internal, Message: status.InternalText}
		}
	}()
	if oc.policy != nil && oc.policy.OnRetry != nil {
		oc.policy.OnRetry(cl.Ctx, oc.spec.name, n, up(failed, o.conn.codec))
	}
	conn, refused := oc.target.next(cl.Ctx, oc.spec.name)
	if refused != nil {
		return nil, lower(refused)
	}
	cl.FailFast = oc.target.failFast(conn)
	if oc.target.bare && conn.e.Dialect() == session.Plain {
		cl.Bare()
	}
	return conn.e, nil
}

func (o owner) Conn() any { return o.conn }

func (o owner) Face(e *status.Error) error { return up(e, o.conn.codec) }

var errNotified = status.Errorf(status.FailedPrecondition, "the request was a notification: nothing answers it")

// serve runs a call's handler. The frames between the goroutine's first and the
// program's function are few: a handler whose stack grows costs its caller a
// tenth more.
func (s *served) serve() (body *buf.Buf, err error) {
	defer s.caught(&err)
	if h := s.req.stream.Entrusted(); h != nil {
		return nil, lift(h.Resume(&s.Inbound), s.req.Conn.codec)
	}
	if s.entry.raw == nil {
		return s.entry.serve(&s.Inbound, &s.req)
	}
	raw, err := s.entry.raw(&s.Inbound, &s.req)
	if raw == nil || err != nil {
		return nil, err
	}
	// Copied: it may be the request's payload, or an interceptor's cache.
	return buf.Copy(raw), nil
}

// invoke runs one of a notification's handlers.
func (s *served) invoke(h RawHandler) (code Code, err error) {
	code = Internal // unless it returns, and its error can be looked into
	defer s.caught(&err)
	_, err = h(&s.Inbound, &s.req)
	return CodeOf(err), err
}

// caught makes a panic one failed call. It is deferred.
func (s *served) caught(err *error) {
	if p := recover(); p != nil {
		s.req.Conn.logPanic("typedrpc: handler panicked", s.known(), p)
		*err = &Error{Code: Internal, Message: status.InternalText}
	}
}

// notify runs a notification's handlers in the order of registration. A method
// may be notified too: its response is dropped (JSON-RPC 2.0 section 4.1). failed is the
// last error's code.
func (s *served) notify() (failed Code) {
	handlers := s.entry.notify
	switch {
	case s.entry.raw != nil:
		handlers = []RawHandler{s.entry.raw}
	case s.entry.serve != nil:
		handlers = []RawHandler{func(ctx context.Context, r *Request) (Raw, error) {
			body, err := s.entry.serve(ctx, r)
			body.Release()
			return nil, err
		}}
	}
	logger := s.req.Conn.opts.logger
	taken := false
	for _, h := range handlers {
		if s.req.Conn.e.Ended() {
			return failed
		}
		code, err := s.invoke(h)
		if code != 0 && code != Unimplemented {
			failed = code
		}
		taken = taken || code != Unimplemented
		switch code {
		case 0, Unimplemented:
		case InvalidArgument, ResourceExhausted: // the peer's mistake
			logger.Warn("typedrpc: notification refused", "method", s.known(), "error", err)
		default:
			logger.Warn("typedrpc: notification handler failed", "method", s.known(), "error", err)
		}
	}
	if !taken { // each left it to others, as a fallback may that only looks on
		if !wire.MayBeIgnored(s.req.Method) {
			logger.Warn("typedrpc: notification dropped: nobody handles it", "method", s.known())
		}
		return Unimplemented
	}
	return failed
}
