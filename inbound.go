package typedrpc

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// inbound is one call or notification that a peer made, and the context that
// its handler runs with. Being its own context saves the allocations of a
// derived one: the channel and the timer are made when somebody asks.
type inbound struct {
	req     Request
	entry   *entry
	sess    *session.Session // whose it is: a later one does not know it
	id      uint64           // its key in Conn.inbound
	rawID   []byte           // plain peers: to be echoed
	body    *buf.Buf
	array   *arrayReply // plain peers: the array it came in
	index   int         // its place in array
	cost    int         // its bytes of the connection's budget or the lane's window
	owes    int         // bytes of the server's budget that it holds without a session
	begun   bool        // its handler was started
	serial  bool        // runs on the lane
	ordered bool        // runs on the lane, or was called from one
	partial bool        // the rest of its request is to come
	reply   item

	exchange *exchange // the items of a stream; nil: none
	keyed    *keyed    // the call has an idempotency key; nil: none

	deadline time.Time // zero: none

	mu     sync.Mutex
	err    error
	done   chan struct{}
	timer  *time.Timer
	afters []*afterFunc
}

type afterFunc struct{ f func() }

type inboundKey struct{}

func inboundFrom(ctx context.Context) *inbound {
	in, _ := ctx.Value(inboundKey{}).(*inbound)
	return in
}

// ConnFrom returns the connection that a handler's request came in on. Over
// HTTP POST there is none to call back on: then calls on it fail with
// FailedPrecondition and say so. It panics if ctx is not a handler's, so that
// it never returns nil.
func ConnFrom(ctx context.Context) *Conn { return RequestFrom(ctx).Conn }

// RequestFrom returns the request that a handler is handling: its metadata, its
// name, its reply metadata to set. It panics if ctx is not a handler's.
func RequestFrom(ctx context.Context) *Request {
	in := inboundFrom(ctx)
	if in == nil {
		panic("typedrpc: ConnFrom and RequestFrom need the context that a handler was given")
	}
	return &in.req
}

// Deadline is the caller's, as far as it told.
func (in *inbound) Deadline() (time.Time, bool) { return in.deadline, !in.deadline.IsZero() }

// Value finds the call itself, and else what the connection's context holds.
func (in *inbound) Value(key any) any {
	if key == (inboundKey{}) {
		return in
	}
	return in.req.Conn.ctx.Value(key)
}

// Done is closed when the caller gave up, its time is over, the connection is
// gone, or the handler has returned.
func (in *inbound) Done() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.done == nil {
		in.done = make(chan struct{})
		if in.err != nil {
			close(in.done)
		} else {
			in.armLocked()
		}
	}
	return in.done
}

// Err says why the context ended.
func (in *inbound) Err() error {
	in.mu.Lock()
	err := in.err
	in.mu.Unlock()
	if err == nil && !in.deadline.IsZero() && !time.Now().Before(in.deadline) {
		in.cancel(context.DeadlineExceeded)
		return context.DeadlineExceeded
	}
	return err
}

// AfterFunc makes contexts derived from this one cheap: package context calls
// it instead of starting a goroutine for each.
func (in *inbound) AfterFunc(f func()) (stop func() bool) {
	a := &afterFunc{f}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		go f()
		return func() bool { return false }
	}
	in.afters = append(in.afters, a)
	in.armLocked()
	return func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		for i, other := range in.afters {
			if other == a {
				in.afters = append(in.afters[:i], in.afters[i+1:]...)
				return true
			}
		}
		return false
	}
}

func (in *inbound) armLocked() {
	if in.timer == nil && !in.deadline.IsZero() {
		in.timer = time.AfterFunc(max(time.Until(in.deadline), 1), func() { in.cancel(context.DeadlineExceeded) })
	}
}

func (in *inbound) cancel(err error) {
	in.mu.Lock()
	if in.err != nil {
		in.mu.Unlock()
		return
	}
	in.err = err
	if in.done != nil {
		close(in.done)
	}
	if in.timer != nil {
		in.timer.Stop()
	}
	afters := in.afters
	in.afters = nil
	in.mu.Unlock()
	for _, a := range afters {
		go a.f()
	}
}

// kinds translates what a CALL says of itself.
var kinds = [...]Kind{
	wire.Unary: KindCall, wire.ServerStream: KindServerStream,
	wire.ClientStream: KindClientStream, wire.BidiStream: KindBidiStream,
}

// called takes a CALL: start it, put it on the lane, or refuse it; with MORE,
// wait for the rest of its request. body is the buffer that the payload lives
// in, nil if there is none. array is where a plain peer's answer goes, nil for
// one of its own.
func (c *Conn) called(f *wire.Frame, body *buf.Buf, array *arrayReply, index int) error {
	in := &inbound{
		req:   Request{Method: f.Method, Kind: kinds[f.Kind], Conn: c, Metadata: f.Meta},
		array: array, index: index,
	}
	if f.TimeLeft > 0 {
		in.deadline = time.Now().Add(time.Duration(min(f.TimeLeft, maxTimeLeft)) * time.Millisecond)
	}
	if _, ok := f.Meta[metaKey]; ok {
		in.keyed = &keyed{arrived: time.Now()}
	}
	in.entry = c.config.mux.lookup(f.Method, in.req.Kind)
	if in.entry != nil && in.entry.spec != nil {
		in.req.spec = in.entry.spec
		in.serial = in.req.spec.serial
	}
	in.ordered = in.serial || f.Flags&wire.Lane != 0

	c.mu.Lock()
	if err := c.identifyLocked(in, f); err != nil {
		c.mu.Unlock()
		body.Release()
		return err
	}
	in.cost = len(f.Payload) + Metadata(f.Meta).size()
	refusal, offence := c.refusalLocked(in, f)
	if refusal == nil && !c.config.budget.take(in.cost) {
		refusal = errBusy("a request")
	}
	if refusal != nil {
		err := c.refuseLocked(in, refusal)
		if err == nil && offence {
			err = c.offendedLocked()
		}
		wake, sess := c.wakeLocked(), c.sess
		c.mu.Unlock()
		if wake {
			sess.Wake()
		}
		body.Release()
		return err
	}
	c.inbound[in.id] = in
	c.inBytes += in.cost
	if in.req.Kind.streams() {
		s := in.req.spec
		if s == nil { // a fallback's
			s = &spec{name: f.Method, kind: in.req.Kind}
		}
		in.exchange = newExchange(c, s, in.req.Kind, false)
		in.exchange.in, in.exchange.req = in, &in.req
		in.exchange.over = in.exchange.over || f.Flags&wire.NoItems != 0
		in.exchange.beginLocked(in.id)
		in.req.exchange = in.exchange
	}
	if f.Flags&wire.More != 0 {
		part := buf.Sized(min(2*len(f.Payload), c.config.limits.MaxMessage))
		part.B = append(part.B, f.Payload...)
		a := &assembly{frame: *f, in: in, body: part}
		a.frame.Payload = nil
		c.partial[partOf(f)] = a
		in.partial = true
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	if body == nil {
		body = buf.Copy(f.Payload)
	}
	c.begin(in, body)
	return nil
}

// begin starts an admitted call, whose request is whole, or lets it wait for
// the lane or for replies to be read.
func (c *Conn) begin(in *inbound, body *buf.Buf) {
	c.mu.Lock()
	if in.orphanedLocked() {
		c.mu.Unlock()
		body.Release() // the connection ended meanwhile
		return
	}
	in.partial = false
	in.body = body
	in.req.Payload = body.B
	park := !in.serial && in.array == nil && c.crowdedLocked()
	switch {
	case in.serial:
		c.laneLocked(in)
	case park:
		c.parked = append(c.parked, in)
	default:
		in.begun = true
	}
	c.mu.Unlock()
	if !in.serial && !park {
		go in.run()
	}
}

// refuse takes back the admission of a call whose request was not complete.
func (c *Conn) refuse(in *inbound, e *Error) error {
	c.mu.Lock()
	in.detachLocked()
	delete(c.inbound, in.id)
	err := c.refuseLocked(in, e)
	c.checkIdleLocked()
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	in.cancel(context.Canceled)
	if wake {
		sess.Wake()
	}
	return err
}

// orphanedLocked reports that the session which the call came in is over.
func (in *inbound) orphanedLocked() bool { return in.sess == nil || in.sess != in.req.Conn.sess }

// lostLocked says why a call's session is over.
func (in *inbound) lostLocked() *Error {
	if in.sess == nil {
		return Errorf(Unavailable, "the connection was closed by this side").with(MayHaveRun)
	}
	return sessionLost(nil)
}

// detachLocked gives back what an inbound call holds of the connection, when
// it or its session ends.
func (in *inbound) detachLocked() {
	c := in.req.Conn
	c.inBytes -= in.cost
	if in.keyed != nil && in.begun {
		in.owes = in.cost // its handler may go on, and hold the request
	} else {
		c.config.budget.give(in.cost)
	}
	in.cost = 0
	if x := in.exchange; x != nil {
		if x.failed == nil {
			x.failed = in.lostLocked()
		}
		c.dropPartLocked(partID{in.id, true})
		x.dropSendLocked()
		x.finishLocked()
	}
}

// repayLocked gives back what a call without a session holds of the server's
// budget.
func (in *inbound) repayLocked() {
	in.req.Conn.config.budget.give(in.owes)
	in.owes = 0
}

// crowdedLocked reports that the peer does not read the replies there are. Its
// calls begin when it has: it may be busy asking, so they are not refused.
func (c *Conn) crowdedLocked() bool {
	return c.queued+c.unsent > c.config.limits.MaxBuffered
}

// unparkLocked begins the calls that waited for replies to be read.
func (c *Conn) unparkLocked() {
	if len(c.parked) == 0 || c.crowdedLocked() {
		return
	}
	for _, in := range c.parked {
		in.begun = true
		go in.run()
	}
	c.parked = nil
}

// maxTimeLeft bounds a caller's deadline, in milliseconds: a century.
const maxTimeLeft = 100 * 365 * 24 * 3600 * 1000

// identifyLocked gives an inbound call its key.
func (c *Conn) identifyLocked(in *inbound, f *wire.Frame) error {
	in.sess = c.sess
	if c.dialect == session.Plain {
		c.lastIn++
		in.id = c.lastIn
		in.rawID = append([]byte(nil), f.RawID...)
		return nil
	}
	in.id = f.ID
	if f.ID <= c.lastIn {
		return protocolError(fmt.Sprintf("CALL %d after CALL %d: ids rise", f.ID, c.lastIn))
	}
	c.lastIn = f.ID
	return nil
}

// refusalLocked says why a call cannot run, nil if it can. No handler sees a
// refused call, so it is safe to make again. offence is a call that a peer
// which keeps to the announced limits does not make.
func (c *Conn) refusalLocked(in *inbound, f *wire.Frame) (e *Error, offence bool) {
	limits := &c.config.limits
	hello := c.dialect != session.Plain
	switch {
	case c.drained != nil || c.closing:
		return Errorf(Unavailable, "shutting down"), false
	case f.Kind != wire.Unary && !c.streams:
		return Errorf(Unimplemented, "streams were not announced"), true
	case in.entry == nil:
		return c.unknown(f.Method, in.req.Kind), false
	case len(f.Payload) > limits.MaxMessage:
		return Errorf(ResourceExhausted, "the request has %d bytes, at most %d are taken", len(f.Payload), limits.MaxMessage), false
	case len(c.inbound) >= limits.MaxCalls:
		return Errorf(ResourceExhausted, "%d calls are running, no more are taken", limits.MaxCalls), hello
	case c.inBytes > 0 && c.inBytes+in.cost > limits.MaxBuffered:
		return Errorf(ResourceExhausted, "%d bytes of requests are being handled, at most %d are taken", c.inBytes, limits.MaxBuffered), hello
	case in.array != nil && c.crowdedLocked():
		// It cannot wait: what takes the room may be the rest of its array.
		return Errorf(ResourceExhausted, "%d bytes of replies have not been read", c.queued+c.unsent), false
	case in.serial && f.Flags&wire.Lane != 0 && c.lane.busy():
		return Errorf(FailedPrecondition, "%q is Serial and the lane is busy; a call from an ordered handler must not wait for it, because that could deadlock", f.Method), false
	}
	return nil, false
}

// unknown is the error for a name that is nothing of this kind.
func (c *Conn) unknown(name string, kind Kind) *Error {
	if is, ok := c.config.mux.kindOf(name); ok {
		return Errorf(Unimplemented, "%q is a %s, not a %s", name, is, kind)
	}
	return Errorf(Unimplemented, "no method %q", name)
}

// refuseLocked queues a refusal. It does not wait for the outgoing budget, but
// counts in it: see overflowLocked.
func (c *Conn) refuseLocked(in *inbound, e *Error) error {
	f := wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: in.id, RawID: in.rawID, Code: int64(e.Code), Message: clip(e.Message)}
	if in.array != nil {
		c.arrayPartLocked(in.array, in.index, &f)
	} else {
		c.pushAnswerLocked(f)
	}
	return c.overflowLocked()
}

// pushAnswerLocked queues an answer that the reader gives itself.
func (c *Conn) pushAnswerLocked(f wire.Frame) {
	cost := len(f.Message) + messageOverhead
	c.queued += cost
	c.queue.push(&item{frame: f, cost: cost})
}

// overflowLocked ends the link of a peer that makes us answer and does not
// read the answers: the reader cannot wait for it, so it has to go.
func (c *Conn) overflowLocked() error {
	if c.queued <= 2*c.config.limits.MaxBuffered {
		return nil
	}
	return &link.CloseError{Code: session.CloseFlood, Reason: "answers are not being read"}
}

// run handles the call.
func (in *inbound) run() {
	returned := false
	defer func() {
		if !returned { // runtime.Goexit, as t.FailNow does: still one terminal frame
			in.finish(nil, Errorf(Internal, "the handler ended its goroutine"))
		}
	}()
	body, err := in.serve()
	returned = true
	in.finish(body, err)
}

// finish answers the call.
func (in *inbound) finish(body *buf.Buf, err error) {
	c := in.req.Conn
	f := wire.Frame{Type: wire.Result, Meta: in.req.Reply}
	if err == nil {
		err = c.checkReply(in, body)
	}
	if x := in.exchange; x != nil {
		if e := x.verdict(); e != nil {
			err = e
		}
	}
	if err != nil {
		body.Release()
		body = nil
		f = c.failure(in, err)
	}
	in.cancel(context.Canceled) // whatever still hangs on the context ends here
	c.reply(in, f, body)
}

// serve runs a call's handler.
func (in *inbound) serve() (body *buf.Buf, err error) {
	if in.entry.raw != nil {
		raw, err := in.invoke(in.entry.raw)
		if raw == nil || err != nil {
			return nil, err
		}
		// Copied: it may be the request's payload, or an interceptor's cache.
		return buf.Copy(raw), nil
	}
	_, err = in.invoke(func(ctx context.Context, r *Request) (_ Raw, err error) {
		body, err = in.entry.serve(ctx, r)
		return nil, err
	})
	return body, err
}

// invoke runs a handler. A panic is one failed call.
func (in *inbound) invoke(h RawHandler) (raw Raw, err error) {
	defer func() {
		if p := recover(); p != nil {
			in.logPanic(p)
			err = &Error{Code: Internal, Message: internalText}
		}
	}()
	return h(in, &in.req)
}

func (in *inbound) logPanic(p any) {
	in.req.Conn.config.logger.Error("typedrpc: handler panicked",
		"method", in.req.Method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// checkReply refuses a response that cannot be sent.
func (c *Conn) checkReply(in *inbound, body *buf.Buf) error {
	limit := int(min(c.peerLimits().Message, maxMessageCeiling))
	if s := in.req.spec; s != nil {
		limit = s.sizeLimit(limit)
	}
	if body.Len() > limit {
		return Errorf(ResourceExhausted, "the response has %d bytes, the caller takes at most %d", body.Len(), limit)
	}
	if err := Metadata(in.req.Reply).check(); err != nil {
		return fmt.Errorf("the reply's metadata: %s", err.Message) // the handler's defect
	}
	return c.checkPayload(body.Bytes())
}

// checkPayload keeps what is no JSON value out of the JSON-RPC dialect, where it
// would break its envelope: a Raw, or a message that writes its own JSON. What
// nests deeper than the peer reads ends here too: it would close the link.
func (c *Conn) checkPayload(p []byte) error {
	if c.dialect == session.Binary || len(p) == 0 {
		return nil
	}
	if err := wire.Valid(p, int(min(c.peerLimits().Depth, rawDepth))); err != nil {
		return fmt.Errorf("message is no JSON, or deeper than the peer reads: %w", err)
	}
	return nil
}

// failure makes the frame for a handler's error and logs what stays here. The
// user's code that it calls, MapError and the encoding of a fault's data, may
// panic too.
func (c *Conn) failure(in *inbound, err error) (f wire.Frame) {
	defer func() {
		if p := recover(); p != nil {
			in.logPanic(p)
			f = wire.Frame{Type: wire.Fail, Code: int64(Internal), Message: internalText}
		}
	}()
	f, foreign := toWire(in, err, c.codec, c.config.mapError)
	if foreign {
		c.config.logger.Error("typedrpc: handler failed", "method", in.req.Method, "error", err)
	}
	if in.refusedBy(err) {
		f.Flags |= wire.NotRun
	}
	if Metadata(in.req.Reply).check() == nil {
		f.Meta = in.req.Reply
	}
	if len(f.Payload) > maxErrorData || c.checkPayload(f.Payload) != nil {
		c.config.logger.Error("typedrpc: error data dropped: too large or no JSON", "method", in.req.Method, "bytes", len(f.Payload))
		f.Payload = nil
	}
	return f
}

// maxErrorData bounds the typed data of an error.
const maxErrorData = 64 << 10

// replyOverhead is what an answered call keeps in memory, beside the reply's
// bytes, until the reply was written: many small ones are bounded too.
const replyOverhead = 1 << 10

// reply queues the terminal frame. It waits for the outgoing budget, holding
// the call's slot, so that a peer that does not read is not served either.
func (c *Conn) reply(in *inbound, f wire.Frame, body *buf.Buf) {
	defer in.body.Release()
	f.ID, f.RawID = in.id, in.rawID
	cost := body.Len() + len(f.Payload) + len(f.Message) + Metadata(f.Meta).size() + replyOverhead
	c.mu.Lock()
	c.unsent += cost
	// An array's answer does not wait for room: what is held already may be the
	// rest of its array, which goes out with it.
	for in.array == nil && !in.orphanedLocked() && c.queued > 0 && c.queued+cost > c.outgoingLocked() {
		room := c.waitRoomLocked()
		c.mu.Unlock()
		<-room
		c.mu.Lock()
	}
	c.unsent -= cost
	if in.orphanedLocked() {
		in.repayLocked()
		c.mu.Unlock()
		body.Release() // nobody is there to answer
		return
	}
	delete(c.inbound, in.id)
	c.inBytes -= in.cost
	c.config.budget.give(in.cost)
	if in.array != nil {
		if body != nil {
			f.Payload = body.B
		}
		c.arrayPartLocked(in.array, in.index, &f)
		body.Release()
	} else {
		if body == nil && len(f.Payload) > 0 {
			body = buf.Copy(f.Payload) // an error value may be returned often
		}
		in.reply = item{frame: f, body: body, cost: cost}
		c.queued += cost
		if x := in.exchange; x != nil {
			c.dropPartLocked(partID{in.id, true})
			x.finishLocked()
			x.line.frames.push(&in.reply) // after its items
			x.line.pushLocked(c)
		} else {
			c.queue.push(&in.reply)
		}
	}
	c.checkIdleLocked()
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
}

// cancelled takes a CANCEL.
func (c *Conn) cancelled(f *wire.Frame) error {
	c.mu.Lock()
	var in *inbound
	if c.dialect == session.Plain {
		// Ids of plain peers may repeat: the newest is meant.
		for id, other := range c.inbound {
			if string(other.rawID) == string(f.RawID) && (in == nil || id > in.id) {
				in = other
			}
		}
	} else {
		in = c.inbound[f.ID]
	}
	var err error
	if in == nil && c.dialect != session.Plain && f.ID > c.lastIn {
		err = c.offendedLocked()
	}
	partial := in != nil && in.partial
	if partial {
		c.dropPartLocked(partID{in.id, true}) // no more parts will come
	} else if in != nil && in.exchange != nil {
		in.exchange.callerLeftLocked()
	}
	c.mu.Unlock()
	switch {
	case partial:
		return c.refuse(in, Errorf(Canceled, "canceled"))
	case in != nil:
		in.giveUp()
	}
	return err
}

func (c *Conn) peerLimits() wire.Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

func protocolError(reason string) error {
	return &link.CloseError{Code: session.CloseProtocol, Reason: reason}
}
