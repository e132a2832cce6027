package engine

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Stream is one side of a stream: the items that it sends and those that it
// receives, by their bytes. On the caller's side it hangs on a call, on the
// handler's on an inbound; what ends those ends it. Its fields are under
// Conn.mu unless they say otherwise.
type Stream struct {
	// fixed
	conn     *Conn
	decl     *Decl
	in       *Inbound // nil on the caller's side
	*calling          // nil on the handler's side

	id   uint64 // 0 until the CALL was counted
	sess *session.Session

	// Words are saved where there are thousands.
	sends   bool // this side may send items; fixed
	closed  bool // END or the terminal frame is queued, or all was dropped
	dropped bool // … because the call is being settled
	over    bool // the peer sends no more
	held    bool // the caller's: interceptors have the last word: over is set by conclude
	fresh   bool // no HEAD and no item has gone, or come, from the handler
	starved bool // the window has no room for what a handler at rest offered
	listed  bool // the connection has none: in outbox.starved

	granted int32 // bytes of the window that the peer grants; 0: without limit
	// Where OnItem's functions look on they see one item after another, in
	// the items' order: held while one is sent. The inlet has another.
	sending sync.Mutex

	state   atomic.Uint32 // of rest
	rest    rest
	*outlet            // never nil
	pace    *flow.Pace // of items of which only the newest counts; nil: the window is all there is
	*inlet             // nil: this side receives no items; fixed

	failed  *status.Error // this side gave up: nothing goes either way, and this is why
	stopped *error        // the handler's side: what the call fails with, whatever its handler returns
}

// calling is what the caller's side has besides.
type calling struct {
	call      *Call     // fixed
	inspector Inspector // never nil
	// when it is settled
	done   chan struct{} // closed then
	result *buf.Buf
	meta   map[string]string // before that, what HEAD brought
	err    *status.Error
	stop   func() // unties it from its context; nil: it has
}

// inlet is what a stream receives: most of it lives where there is something to
// receive. nil: nothing is.
type inlet struct {
	got       flow.Ring[Item]
	gotPack   packer
	window    window
	since     time.Time     // items wait since then, where only the newest counts
	arrived   chan struct{} // capacity 1: there may be an item, or over is set
	fed       chan struct{} // capacity 1: the window may have room for Feed; nil: items come as frames
	receiving sync.Mutex    // held from one item to the next where OnItem's functions see them …
	looking   sync.Mutex    // … and while they see one
}

// waits reports whether there are items to receive.
func (i *inlet) waits() bool { return i != nil && i.got.Len() > 0 }

// signal tells who receives that there may be something.
func (i *inlet) signal() {
	if i != nil {
		signal(i.arrived)
	}
}

func newStream(c *Conn, d *Decl, kind Kind, caller bool) *Stream {
	var x *Stream
	if caller {
		both := new(struct {
			Stream
			calling
		})
		x = &both.Stream
		x.calling = &both.calling
	} else {
		x = new(Stream)
	}
	x.conn, x.decl = c, d
	up, down := kind != KindServerStream, kind != KindClientStream
	takes := up
	x.outlet, x.sends = &unsent, down
	if caller {
		x.sends, takes = up, down
	}
	if takes {
		x.inlet = &inlet{arrived: make(chan struct{}, 1)}
		x.window.size = c.config.Limits.Window
	}
	if x.sends && d.Newest {
		x.pace = new(flow.Pace)
	}
	x.over, x.closed = !takes, !x.sends
	x.fresh = caller || x.sends
	return x
}

// Inspector is who looks at a stream's items.
type Inspector interface {
	// Watched reports whether anybody does.
	Watched() bool
	// Inspect sees an item, and may stop the stream: e is the error err as this
	// side sees it.
	Inspect(item []byte, sent bool) (e *status.Error, err error)
}

// signal wakes one of those who wait on ch. Whoever finds more than it needs
// signals again, so that any number may wait.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// beginLocked is called when the stream has its id: from now on items may be
// sent.
func (x *Stream) beginLocked(id uint64) {
	x.id, x.sess = id, x.conn.sess
	if x.inlet != nil {
		x.unspendLocked()
		x.window.due, x.window.dueBytes = 0, 0
	}
	x.grantLocked(int(min(x.conn.peer.limits.Window, math.MaxInt32)))
	x.roomLocked()
}

// pushLocked lets the line send what it has, once the CALL has left, the whole
// of it.
func (x *Stream) pushLocked() {
	if x.id != 0 && !x.line.empty() && (x.calling == nil || x.call.item.list == nil) {
		x.line.pushLocked(&x.conn.outbox)
	}
}

// Gone is closed when the handler's context ends. It is nil at the caller's,
// whose call is settled when its context ends.
func (x *Stream) Gone() <-chan struct{} {
	if x.in != nil {
		return x.in.Done()
	}
	return nil
}

// brokenLocked says why this side can neither send nor receive.
func (x *Stream) brokenLocked() *status.Error {
	switch {
	case x.failed != nil:
		return x.failed
	case x.in != nil && x.in.orphanedLocked():
		return x.lostLocked()
	}
	return nil
}

// lostLocked is why a handler's side can do no more whose session is over: that, unless its
// time was over before. (A caller that left before has said why itself.)
func (x *Stream) lostLocked() *status.Error {
	if x.in.Err() == context.DeadlineExceeded {
		return status.Ended(x.in, status.MayHaveRun)
	}
	return x.in.lostLocked()
}

// why is the error of a handler's side whose context has ended.
func (x *Stream) why() *status.Error {
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := x.brokenLocked(); err != nil {
		return err
	}
	return status.Ended(x.in, status.MayHaveRun)
}

// inspected reports whether interceptors' functions look on.
func (x *Stream) inspected() bool {
	if x.in != nil {
		return x.in.Record.Watched()
	}
	return x.inspector.Watched()
}

// Watched reports whether somebody looks at the items.
func (x *Stream) Watched() bool { return x.inspected() }

// inspect shows an item to the interceptors' functions. The first that refuses
// it ends the stream.
func (x *Stream) inspect(data []byte, sent bool) error {
	var by Inspector
	if x.in != nil {
		by = x.in.Record
	} else {
		by = x.inspector
	}
	e, err := by.Inspect(data, sent)
	if err != nil {
		x.Stop(e, err)
		return e
	}
	return nil
}

// OpenOptions are what a stream is opened with.
type OpenOptions struct {
	Held      bool      // the end comes from Conclude, not from the peer alone
	Inspector Inspector // never nil
	Stop      func()    // called when the stream has ended and its context is not watched any more
}

// Open begins a stream: it takes a reference of body and never waits. The end of
// the call's context ends the stream. err is why it could not even be queued.
func (cl *Call) Open(body *buf.Buf, meta map[string]string, o OpenOptions) (*Stream, *status.Error) {
	x := newStream(cl.Conn, cl.Decl, cl.Decl.Kind, true)
	x.inspector, x.done, x.held = o.Inspector, make(chan struct{}), o.Held
	x.call, cl.stream = cl, x
	cl.prepare(body, meta)
	f := &cl.content.frame
	f.Kind = cl.Decl.Kind.wire()
	if !x.sends {
		f.Flags |= wire.NoItems
	}
	stop, unbind := o.Stop, func() bool { return true }
	if ctx := cl.Ctx; ctx.Done() != nil {
		unbind = context.AfterFunc(ctx, x.expired)
	}
	cl.Conn.mu.Lock() // the context may end this moment
	x.stop = func() { unbind(); stop() }
	cl.Conn.mu.Unlock()
	cl.start()
	if err := x.unsent(); err != nil {
		return nil, err
	}
	return x, nil
}

// unsent is why the call could not even be queued.
func (x *Stream) unsent() *status.Error {
	if !x.Ended() {
		return nil
	}
	c := x.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if x.err == nil || x.err.Outcome != status.NotSent {
		return nil
	}
	return x.err
}

// Conn is the connection of a stream.
func (x *Stream) Conn() *Conn { return x.conn }

// Decl is its declaration.
func (x *Stream) Decl() *Decl { return x.decl }

// Caller reports whether this is the caller's side.
func (x *Stream) Caller() bool { return x.in == nil }

// Takes reports whether this side receives items.
func (x *Stream) Takes() bool { return x.inlet != nil }

// Done is closed when the caller's side is settled. It is nil at the handler's.
func (x *Stream) Done() <-chan struct{} {
	if x.calling == nil {
		return nil
	}
	return x.done
}

// Err is what a settled stream's call ended with.
func (x *Stream) Err() *status.Error {
	x.conn.mu.Lock()
	defer x.conn.mu.Unlock()
	return x.err
}
