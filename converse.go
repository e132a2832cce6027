package typedrpc

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Streams without their types.

// face is one side of a stream as typed functions see it. It is passed by value,
// so that closures do not make it escape.
type face struct {
	x     *engine.Stream
	conn  *Conn
	spec  *spec
	reply *reply // nil: nobody wants to know what comes back beside the items
	at    string // the place of the item that is sent; "": it has none
}

// send encodes the item that v points to and queues it. It waits for the peer's
// window.
func (f face) send(v any) error {
	body := buf.Get()
	defer body.Release()
	err := f.encode(body, v)
	if err != nil {
		return Errorf(InvalidArgument, "cannot encode an item of %q: %w", f.spec.name, err)
	}
	return lift(f.x.SendAt(body, 0, 0, f.at), f.conn.codec)
}

// recv reads the next item into what v points to. It returns io.EOF when the
// peer sends no more.
func (f face) recv(v any, validate func(any) error) (engine.Item, error) {
	p, err := f.next(v, validate)
	if f.reply != nil {
		f.reply.came(f.x, err != nil)
	}
	return p, err
}

func (f face) next(v any, validate func(any) error) (engine.Item, error) {
	p, data, err := f.x.Next()
	if err != nil {
		return p, lift(err, f.conn.codec)
	}
	defer p.Release()
	if b, ok := v.(*Bytes); ok {
		err = b.decode(data, f.conn.e.Dialect())
	} else {
		if len(data) == 0 && f.conn.codec == JSON {
			data = []byte("null")
		}
		err = f.spec.decode(f.conn.codec, data, v)
	}
	if err != nil {
		e := Errorf(Internal, "cannot decode an item of %q: %w", f.spec.name, err).with(MayHaveRun)
		if !f.x.Caller() {
			e.Code = InvalidArgument
		}
		f.x.Fail(lower(e))
		return p, e
	}
	if validate != nil {
		if err := validate(v); err != nil {
			f.x.Fail(lower(asError(err)))
			return p, asError(err)
		}
	}
	return p, nil
}

// reply brings a caller the metadata that comes back beside the items: on the
// goroutine that receives them, so that it may be read there between two of them.
type reply struct {
	to *Metadata

	mu           sync.Mutex // several goroutines may receive
	begun, ended bool
}

func replyTo(to *Metadata) *reply {
	if to == nil {
		return nil
	}
	return &reply{to: to}
}

// came is told of each item, and of the end.
func (p *reply) came(x *engine.Stream, end bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.begun && !end {
		return
	}
	p.begun, p.ended = true, end
	*p.to = maps.Clone(Metadata(x.Meta()))
}

// answer waits for the end of a stream with a response and returns it.
func (f face) answer() (Raw, error) {
	raw, err := f.x.Answer()
	return raw, lift(err, f.conn.codec)
}

// errLeft is what interceptors see of a loop that was left.
var errLeft = &Error{Code: Canceled, Message: "the loop over the stream was left", told: true, cause: context.Canceled}

// converse calls a stream, has use send and receive its items, and ends it when
// use returns. It runs on the caller's goroutine, inside the interceptors. A
// response is valid for as long as the caller keeps it. The target is nil when
// there was none, or the request could not be encoded.
func converse(ctx context.Context, c Caller, s *spec, req any, use func(face) (Raw, error)) (*target, Raw, *Error) {
	t, r, err := dialogue(ctx, c, s, req)
	if err != nil {
		return nil, nil, err
	}
	raw, failed := t.converse(ctx, s, r, use)
	if t.opts.ReplyMetadata != nil {
		*t.opts.ReplyMetadata = r.ReplyMetadata
	}
	if failed != nil {
		return t, nil, asError(failed)
	}
	return t, raw, nil
}

// converseFor is converse for a stream with a response.
func converseFor(ctx context.Context, c Caller, s *spec, req, resp any, use func(face) (Raw, error)) error {
	t, raw, err := converse(ctx, c, s, req, use)
	if err != nil {
		return err
	}
	return t.decode(s, raw, resp)
}

// dialogue prepares a stream's request.
func dialogue(ctx context.Context, c Caller, s *spec, req any) (*target, *Request, *Error) {
	t, err := aim(ctx, c, s, "a function such as NewServerStream or transfer.NewDownload")
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
	r := &Request{Method: s.name, Kind: s.kind, Outgoing: true, Declared: true, Conn: t.conn, Payload: append(Raw(nil), body.B...), Metadata: t.metadata(nil), spec: s}
	body.Release()
	return &t, r, nil
}

// converse runs use inside the interceptors. It is also what Forward does.
func (t *target) converse(ctx context.Context, s *spec, r *Request, use func(face) (Raw, error)) (Raw, error) {
	return t.around(ctx, r, func(ctx context.Context, r *Request) (Raw, error) {
		x, err := t.open(ctx, s, r, false)
		if err != nil {
			return nil, err
		}
		defer func() {
			x.x.Leave()
			r.ReplyMetadata = x.x.Meta()
		}()
		return use(x)
	})
}

// open begins a stream. The end of one that is held comes from conclude.
func (t *target) open(ctx context.Context, s *spec, r *Request, held bool) (face, error) {
	if ctx.Err() != nil {
		return face{}, ended(ctx, NotSent)
	}
	meta := maps.Clone(r.Metadata)
	if err := meta.check(); err != nil {
		return face{}, err
	}
	body := buf.Copy(r.Payload)
	defer body.Release()
	if err := t.measure(r.Method, body.B); err != nil {
		return face{}, err
	}
	stop := func() {}
	if s.timeout > 0 {
		ctx, stop = context.WithTimeout(ctx, s.timeout)
	}
	cl := new(outcall)
	t.prepare(cl, ctx, s)
	cl.policy, cl.Retries, cl.Resends = nil, false, engine.MaxResends // what has been sent and received cannot be taken back
	x, failed := cl.Open(body, meta, engine.OpenOptions{Held: held, Inspector: looks{r}, Stop: stop})
	if failed != nil {
		return face{}, up(failed, t.conn.codec)
	}
	r.stream, r.headed = x, false
	return face{x: x, conn: t.conn, spec: s, reply: replyTo(t.opts.ReplyMetadata)}, nil
}

// open is Open without its types. With interceptors, which wait for the end of
// the stream, they have a goroutine of their own.
func open(ctx context.Context, c Caller, s *spec, req any) (face, error) {
	t, r, err := dialogue(ctx, c, s, req)
	if err != nil {
		return face{}, err
	}
	if !t.intercepted() {
		return t.open(ctx, s, r, false)
	}
	opened, returned := make(chan face, 1), make(chan error, 1)
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
			err = refuse(FailedPrecondition, "an interceptor answered the stream %q without calling next", s.name)
		}
		return face{}, asError(err)
	}
}

// attend runs the interceptors of a stream that Open opened. What they return
// is what the stream ends with.
func (t *target) attend(ctx context.Context, s *spec, r *Request, opened chan<- face, returned chan<- error) {
	var x face
	failure := error(Errorf(Internal, "an interceptor ended its goroutine").with(MayHaveRun))
	defer func() {
		if p := recover(); p != nil {
			t.conn.logPanic("typedrpc: interceptor panicked", r.Method, p)
			failure = Errorf(Internal, status.InternalText).with(MayHaveRun)
		}
		if x.x != nil {
			var e *status.Error
			if failure != nil {
				e = lower(asError(failure))
			}
			x.x.Conclude(r.ReplyMetadata, e)
			if e != nil && !x.x.Ended() { // else items that came before it are still to be received
				x.x.Fail(e)
			}
		}
		returned <- failure
	}()
	_, failure = t.around(ctx, r, func(ctx context.Context, r *Request) (Raw, error) {
		if x.x != nil {
			return nil, Errorf(FailedPrecondition, "the stream %q was opened already and cannot be opened again", s.name)
		}
		o, err := t.open(ctx, s, r, true)
		if err != nil {
			return nil, err
		}
		x = o
		opened <- o
		<-o.x.Done()
		o.x.Between(func() { r.ReplyMetadata, r.headed = o.x.Meta(), true })
		if err := o.x.Err(); err != nil {
			return nil, up(err, t.conn.codec)
		}
		return nil, nil
	})
}

// loop is a loop over a server stream, without its types: it opens the stream
// and, if that is restartable, opens it again after a gap. All of it is the
// goroutine's that runs the loop.
type loop struct {
	caller   Caller
	spec     *spec
	restarts bool

	left  bool // the loop's body left, or panicked
	gap   bool // the body was told of one, and has not seen an item since
	empty int  // openings in a row that brought no item
}

// came notes an item, and reports whether it is the first after a gap.
func (l *loop) came() (afterGap bool) {
	afterGap = l.gap
	l.gap, l.empty = false, 0
	return afterGap
}

// run opens the stream with what request returns, which is told whether this is
// the first time, and has use receive its items. fail tells the body an error,
// and reports whether it stays.
func (l *loop) run(ctx context.Context, request func(first bool) any, use func(face) (Raw, error), fail func(error) bool) {
	if l.restarts && l.spec.timeout > 0 && ctx != nil { // for all openings together
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.spec.timeout)
		defer cancel()
	}
	for first := true; ; first = false {
		began := time.Now()
		l.empty++
		t, _, err := converse(ctx, l.caller, l.spec, request(first), use)
		if err == nil || l.left {
			return
		}
		if !first && err.Outcome == NotSent { // but an earlier opening was
			err = t.reason(ctx, err).with(MayHaveRun)
		}
		if !l.restarts || !err.gap || !t.reopens() {
			switch {
			case !fail(err) || !err.gap:
			case !l.restarts: // a body that goes on at gaps is told that it will not
				fail(errNotRestartable)
			case t != nil:
				fail(errNotReopened)
			}
			return
		}
		if !l.gap {
			l.gap = true
			if !fail(err) {
				return
			}
		}
		if time.Since(began) >= client.Lived {
			l.empty = 0
		}
		if l.empty > 0 {
			t.pause(ctx, l.empty)
		}
	}
}

// errNotReopened ends a loop over a restartable stream that is not restarted.
var errNotReopened = Errorf(Unavailable, "the stream broke off and is not opened again: the caller is FailFast, or the connection does not dial").with(MayHaveRun)

// errNotRestartable ends a loop that goes on at a gap over a stream that is not
// opened again.
var errNotRestartable = Errorf(Unavailable, "the stream broke off, and its declaration is not Restartable: it is not opened again").with(MayHaveRun)

// errBrokeOff is the same for both sides of a stream that is in a program's hands.
var errBrokeOff = Errorf(Unavailable, "the stream broke off and is not opened again: its two sides would have to agree on where to go on").with(MayHaveRun)

// reopens reports whether a restartable stream that broke off can be opened
// again: the connection heals, or there may be another one.
func (t *target) reopens() bool {
	return t != nil && !t.failFast(t.conn) && (t.pick != nil || t.conn.e.Heals())
}

// reason is why a stream could not be opened again: when the connection has
// ended for good, what ended it.
func (t *target) reason(ctx context.Context, err *Error) *Error {
	if t == nil || ctx.Err() != nil {
		return err
	}
	if gone := t.conn.e.Err(); gone != nil {
		return up(gone, t.conn.codec)
	}
	return err
}

// pause waits, by the connection's backoff, after openings that brought no item:
// whoever breaks off every stream at once is not to be hammered. The next
// session is not waited for here, since calls do that by themselves.
func (t *target) pause(ctx context.Context, empty int) {
	var b flow.Backoff
	if d, ok := t.conn.keeper.(*client.Client); ok {
		b = d.Pause()
	}
	var ended <-chan struct{} // and no other connection will be asked
	if t.pick == nil {
		ended = t.conn.e.Context().Done()
	}
	timer := time.NewTimer(max(b.Delay(empty), 1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-ended:
	}
}
