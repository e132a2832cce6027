package typedrpc

import (
	"context"
	"io"
	"math"
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// exchange is one side of a stream: the items that it sends and those that it
// receives, by their bytes. On the caller's side it hangs on a call, on the
// handler's on an inbound; what ends those ends it. Its fields are under
// Conn.mu unless they say otherwise.
type exchange struct {
	// fixed
	conn  *Conn
	spec  *spec
	req   *Request // whose OnItem functions see the items; nil: none
	call  *call    // nil on the handler's side
	in    *inbound // nil on the caller's side
	sends bool     // this side may send items
	takes bool     // and receive them

	id   uint64 // 0 until the CALL was counted
	sess *session.Session

	// sending
	line    line
	pack    packer
	flow    flow
	closed  bool          // END or the terminal frame is queued, or all was dropped
	dropped bool          // … because the call is being settled
	room    chan struct{} // capacity 1: the window may have room

	// receiving
	got     ring[piece]
	gotPack packer
	window  window
	over    bool          // the peer sends no more …
	end     *Error        // … because of this; nil: it was done
	arrived chan struct{} // capacity 1: there may be an item, or over is set

	// Where OnItem's functions look on they see one item after another, in
	// the items' order: held while one is sent, or received.
	sending, receiving sync.Mutex

	failed  *Error // this side gave up: nothing goes either way, and this is why
	stopped error  // the handler's side: what the call fails with, whatever its handler returns

	// the caller's side, when the call is settled
	done   chan struct{} // closed then
	held   bool          // interceptors have the last word: over is set by conclude
	result *buf.Buf
	meta   map[string]string
	reply  *Metadata // where the caller wants meta too; nil: nowhere
	err    *Error
	stop   func() // unties it from its context; nil: it has
}

func newExchange(c *Conn, s *spec, kind Kind, caller bool) *exchange {
	x := &exchange{conn: c, spec: s, room: make(chan struct{}, 1), arrived: make(chan struct{}, 1)}
	up, down := kind != KindServerStream, kind != KindClientStream
	x.sends, x.takes = down, up
	if caller {
		x.sends, x.takes = up, down
	}
	x.line.x = x
	x.window.size = c.config.limits.Window
	x.over, x.closed = !x.takes, !x.sends
	return x
}

// signal wakes one of those who wait on ch. Whoever finds more than it needs
// signals again, so that any number may wait.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// itemFrame is the ITEM of a piece.
func (x *exchange) itemFrame(p *piece) wire.Frame {
	f := wire.Frame{Type: wire.Item, ID: x.id, Flags: p.flags, Dropped: p.dropped}
	if x.call != nil {
		f.Flags |= wire.FromCaller
	}
	return f
}

// itemLeftLocked notes an item that was counted.
func (x *exchange) itemLeftLocked(cost int) {
	x.flow.counted(cost)
	if x.line.pieces.len() == 0 {
		x.pack.rest()
	}
}

// beginLocked is called when the stream has its id: from now on items may be
// sent.
func (x *exchange) beginLocked(id uint64) {
	x.id, x.sess = id, x.conn.sess
	x.window.taken, x.window.spent, x.window.due, x.window.dueBytes = 0, 0, 0, 0
	x.flow.window = int(min(x.conn.peer.Window, math.MaxInt32))
	signal(x.room)
}

// pushLocked lets the line send what it has, once the CALL has left, the whole
// of it.
func (x *exchange) pushLocked() {
	if x.id != 0 && !x.line.empty() && (x.call == nil || x.call.item.list == nil) {
		x.line.pushLocked(x.conn)
	}
}

// gone is closed when the handler's context ends. It is nil at the caller's,
// whose call is settled when its context ends.
func (x *exchange) gone() <-chan struct{} {
	if x.in != nil {
		return x.in.Done()
	}
	return nil
}

// brokenLocked says why this side can neither send nor receive.
func (x *exchange) brokenLocked() *Error {
	switch {
	case x.failed != nil:
		return x.failed
	case x.in != nil && x.in.orphanedLocked():
		return x.in.lostLocked()
	}
	return nil
}

// send encodes the item that v points to and queues it. It waits for the
// peer's window.
func (x *exchange) send(v any) error {
	body := buf.Get()
	defer body.Release()
	var err error
	if b, ok := v.(*Bytes); ok {
		body.B = b.append(body.B, x.conn.dialect)
	} else if body.B, err = x.spec.encode(x.conn.codec, body.B, v); err == nil {
		err = x.conn.checkPayload(body.B)
	}
	if err != nil {
		return Errorf(InvalidArgument, "cannot encode an item of %q: %w", x.spec.name, err)
	}
	return x.sendBody(body, 0, 0)
}

// sendBody queues an encoded item.
func (x *exchange) sendBody(body *buf.Buf, flags wire.Flags, dropped uint64) error {
	if x.inspected() {
		x.sending.Lock()
		defer x.sending.Unlock()
		if err := x.inspect(body.B, true); err != nil {
			return err
		}
	}
	for {
		wait, err := x.offer(body, flags, dropped)
		switch {
		case err != nil:
			return err
		case wait == nil:
			return nil
		}
		select {
		case <-wait:
		case <-x.gone():
		}
	}
}

// offer queues an encoded item if it can go now. Otherwise it returns a channel
// that says when to try again, or why it never will.
func (x *exchange) offer(body *buf.Buf, flags wire.Flags, dropped uint64) (wait <-chan struct{}, _ error) {
	if x.in != nil && x.in.Err() != nil {
		return nil, x.why()
	}
	c := x.conn
	c.mu.Lock()
	if x.dropped && x.done != nil && x.failed == nil && !x.isDone() {
		c.mu.Unlock()
		return x.done, nil // it will say why
	}
	if err := x.refusalLocked(body.Len()); err != nil {
		c.mu.Unlock()
		signal(x.room) // others who wait learn of it too
		return nil, err
	}
	cost := body.Len() + messageOverhead
	switch {
	case x.id == 0, !x.flow.fits(cost):
		// Before the CALL has left nothing is queued: it would take room from
		// answers that somebody may have to read for the CALL to leave.
		c.mu.Unlock()
		return x.room, nil
	case !x.affordableLocked(cost),
		c.queued > 0 && c.queued+cost > c.outgoingLocked():
		room := c.waitRoomLocked()
		c.mu.Unlock()
		return room, nil
	}
	var p piece
	if flags&shared != 0 || body.Len() > packMost {
		p = piece{buf: body.Retain(), n: uint32(body.Len())}
	} else {
		p = x.pack.put(body.B, x.line.pieces.len() > 0)
	}
	p.flags, p.dropped = flags&^shared, dropped
	x.line.pieces.push(p)
	x.flow.used += cost
	c.sentItems += cost
	c.queued += cost
	x.pushLocked()
	more := x.flow.fits(0)
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	if more {
		signal(x.room)
	}
	return nil, nil
}

// affordableLocked reports whether the peer's budget has room for an item. One
// small item of each stream always has: a share that all of them can have at
// once, so that streams that stand still do not stop the others.
func (x *exchange) affordableLocked(cost int) bool {
	c := x.conn
	budget := int(min(c.peer.Budget, math.MaxInt32))
	if c.sentItems == 0 || c.sentItems+cost <= budget {
		return true
	}
	share := budget / int(max(1, min(c.peer.Calls, math.MaxInt32)))
	return x.flow.used == 0 && cost <= max(share, smallItem)
}

// smallItem is the least that a stream's share of the peer's budget is taken
// for.
const smallItem = 1<<10 + messageOverhead

// shared marks an item whose buffer others hold too: it is not copied again.
// It does not travel.
const shared wire.Flags = 1 << 7

// refusalLocked says why an item of n bytes cannot be sent at all.
func (x *exchange) refusalLocked(n int) *Error {
	if err := x.brokenLocked(); err != nil {
		return err
	}
	switch {
	case x.err != nil:
		return x.err
	case x.done != nil && x.isDone():
		return &Error{Code: FailedPrecondition, Message: "the stream has ended: its handler has returned", Outcome: Answered, cause: io.EOF}
	case x.closed:
		return Errorf(FailedPrecondition, "no item of %q can be sent any more", x.spec.name)
	}
	if limit := x.spec.sizeLimit(int(min(x.conn.peer.Message, maxMessageCeiling))); n > limit {
		return Errorf(ResourceExhausted, "an item of %q has %d bytes, at most %d can be sent", x.spec.name, n, limit)
	}
	return nil
}

func (x *exchange) isDone() bool {
	select {
	case <-x.done:
		return true
	default:
		return false
	}
}

// closeSend says that this side sends no more.
func (x *exchange) closeSend() {
	c := x.conn
	c.mu.Lock()
	if x.closed || x.failed != nil {
		c.mu.Unlock()
		return
	}
	x.closed = true
	if x.call != nil { // a handler says it by returning
		x.line.frames.push(&item{frame: wire.Frame{Type: wire.End, ID: x.id}})
		x.pushLocked()
	}
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	signal(x.room)
}

// recv reads the next item into what v points to. It returns io.EOF when the
// peer sends no more.
func (x *exchange) recv(v any, validate func(any) error) (piece, error) {
	p, data, err := x.next()
	if err != nil {
		return p, err
	}
	defer p.buf.Release()
	if b, ok := v.(*Bytes); ok {
		err = b.decode(data, x.conn.dialect)
	} else {
		if len(data) == 0 && x.conn.codec == JSON {
			data = []byte("null")
		}
		err = x.spec.decode(x.conn.codec, data, v)
	}
	if err != nil {
		e := Errorf(Internal, "cannot decode an item of %q: %w", x.spec.name, err).with(MayHaveRun)
		if x.in != nil {
			e.Code = InvalidArgument
		}
		x.fail(e)
		return p, e
	}
	if validate != nil {
		if err := validate(v); err != nil {
			x.fail(asError(err))
			return p, asError(err)
		}
	}
	return p, nil
}

// next returns the next item, with the reference to its buffer.
func (x *exchange) next() (p piece, data []byte, err error) {
	c := x.conn
	if x.inspected() {
		x.receiving.Lock()
		defer x.receiving.Unlock()
	}
	for {
		if x.in != nil && x.in.Err() != nil {
			return p, nil, x.why()
		}
		c.mu.Lock()
		if e := x.brokenLocked(); e != nil {
			c.mu.Unlock()
			signal(x.arrived)
			return p, nil, e
		}
		if x.got.len() > 0 {
			p = x.got.pop()
			data = p.bytes()
			x.receivedLocked(p.cost())
			more := x.got.len() > 0 || x.over
			stop := x.untieLocked()
			wake, sess := c.wakeLocked(), c.sess
			c.mu.Unlock()
			if wake {
				sess.Wake()
			}
			stop()
			if more {
				signal(x.arrived)
			}
			if x.inspected() {
				if err := x.inspect(data, false); err != nil {
					p.buf.Release()
					return piece{}, nil, err
				}
			}
			return p, data, nil
		}
		over, end := x.over, x.end
		c.mu.Unlock()
		if over {
			signal(x.arrived)
			if end != nil {
				return p, nil, end
			}
			return p, nil, io.EOF
		}
		select {
		case <-x.arrived:
		case <-x.gone():
		}
	}
}

// why is the error of a handler's side whose context has ended.
func (x *exchange) why() *Error {
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := x.brokenLocked(); err != nil {
		return err
	}
	return ended(x.in, MayHaveRun)
}

// inspected reports whether interceptors' functions look on.
func (x *exchange) inspected() bool { return x.req != nil && len(x.req.hooks) > 0 }

// inspect shows an item to the interceptors' functions. The first that refuses
// it ends the stream.
func (x *exchange) inspect(data []byte, sent bool) error {
	hooks := x.req.hooks
	for i := range hooks {
		// The outermost interceptor is the nearest to the user at the caller's,
		// and to the wire at the handler's.
		if sent == (x.in != nil) {
			i = len(hooks) - 1 - i
		}
		if err := hooks[i](data, sent); err != nil {
			return x.stopFor(err)
		}
	}
	return nil
}

// stopFor ends the stream because of an interceptor's error. What the peer gets
// to know of it is decided where all errors of handlers are.
func (x *exchange) stopFor(err error) error {
	e := asError(err).with(MayHaveRun)
	if x.in != nil {
		c := x.conn
		c.mu.Lock()
		if x.stopped == nil {
			x.stopped = err
		}
		c.mu.Unlock()
	}
	x.fail(e)
	return e
}

// fail ends the stream from this side: what is queued is dropped, and the peer
// is told. The first reason wins.
func (x *exchange) fail(e *Error) {
	if x.in == nil {
		x.call.giveUp(func(o Outcome) *Error {
			e := e.with(o)
			x.refuse(e)
			return e
		})
		x.refuse(e) // for one that was settled already
		return
	}
	x.refuse(e)
	c := x.conn
	c.mu.Lock()
	if x.stopped == nil {
		x.stopped = e
	}
	c.mu.Unlock()
	x.in.cancel(context.Canceled)
}

// verdict is what the call fails with although its handler may think otherwise.
func (x *exchange) verdict() error {
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return x.stopped
}

// refuse ends this side of the stream, and tells nobody.
func (x *exchange) refuse(e *Error) {
	c := x.conn
	c.mu.Lock()
	if x.failed == nil {
		x.failed = e
	}
	x.dropReceivedLocked()
	c.movedLocked() // who sends may wait for the connection
	stop := x.untieLocked()
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
	stop()
	signal(x.arrived)
	signal(x.room)
}

// untieLocked returns what unties a stream from its context when it was settled
// and all was received: until then the end of the context frees what was not.
func (x *exchange) untieLocked() (stop func()) {
	if x.stop == nil || !x.isDone() || x.got.len() > 0 {
		return func() {}
	}
	stop, x.stop = x.stop, nil
	return stop
}

// dropSendLocked gives up what has not been sent, and what the peer owes.
func (x *exchange) dropSendLocked() {
	c := x.conn
	x.closed, x.dropped = true, true
	x.line.dropLocked(c)
	x.pack.rest()
	c.sentItems -= x.flow.used
	x.flow.used, x.flow.sizes = 0, ring[int]{}
	signal(x.room)
	c.unparkLocked()
	c.movedLocked()
}

// settle ends the caller's side with the call.
func (x *exchange) settle(body *buf.Buf, meta map[string]string, err *Error) {
	c := x.conn
	c.mu.Lock()
	x.dropSendLocked()
	x.result, x.meta, x.err = body, meta, err
	if !x.held {
		x.over, x.end = true, err
	}
	x.sess = nil // nothing is credited any more
	x.shrinkLocked()
	if x.reply != nil {
		*x.reply = meta
	}
	close(x.done)
	stop := x.untieLocked()
	c.movedLocked()
	c.mu.Unlock()
	stop()
	signal(x.arrived)
}

// conclude sets what a held stream ends with.
func (x *exchange) conclude(err *Error) {
	c := x.conn
	c.mu.Lock()
	x.over, x.end, x.err = true, err, err
	c.mu.Unlock()
	signal(x.arrived)
}

// leave ends the caller's side for good: whoever used it has gone.
func (x *exchange) leave() {
	left := &Error{Code: Canceled, Message: "this side left the stream", cause: context.Canceled}
	x.fail(left)
	<-x.done // giveUp settles the call, or somebody is just doing so
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	x.result.Release()
	x.result = nil
}

// callerLeftLocked takes a CANCEL: the caller does not want what has not left,
// and the handler is not to see what came before. The terminal frame is still
// to come.
func (x *exchange) callerLeftLocked() {
	x.dropSendLocked()
	if x.failed == nil {
		x.failed = &Error{Code: Canceled, Message: "the caller left the stream", Outcome: MayHaveRun, cause: context.Canceled}
	}
	x.dropReceivedLocked()
	signal(x.arrived)
}

// finishLocked ends the handler's side: its handler has returned. What is in
// the line still leaves, and then the terminal frame.
func (x *exchange) finishLocked() {
	x.closed, x.over = true, true
	if x.failed == nil {
		x.failed = Errorf(FailedPrecondition, "the stream has ended: its handler has returned")
	}
	x.dropReceivedLocked()
	x.sess = nil
	x.conn.sentItems -= x.flow.used
	x.flow.used, x.flow.sizes, x.flow.window = 0, ring[int]{}, 0
	x.conn.movedLocked()
	signal(x.room)
	signal(x.arrived)
}
