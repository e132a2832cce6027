package engine

import (
	"context"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
)

// Inbound is one call or notification that a peer made, and the context that
// its handler runs with. Being its own context saves the allocations of a
// derived one: the channel and the timer are made when somebody asks.
type Inbound struct {
	// Record is the owner's record that this one is embedded in, set in Find.
	Record Record
	// Answer is where what a call is answered with will be, if that is in the same
	// record; nil: it is made then.
	Answer *Answer
	Kind   Kind // set by the engine before Run

	begun   bool // its handler was started
	serial  bool // runs on the lane
	ordered bool // runs on the lane, or was called from one
	partial bool // the rest of its request is to come
	lsp     bool // cancelled as language servers' requests are
	ended   end  // under mu

	turn  uint16 // of purchases, in which its reply was bought …
	cost  int32  // its bytes of the connection's budget or the lane's window
	held  int32  // its bytes of the account
	price int32  // … and for how many bytes

	conn   *Conn
	sess   *session.Session // whose it is: a later one does not know it
	id     uint64           // its key in Conn.inbound
	body   *buf.Buf
	*asked // never nil

	stream *Stream // the items of a stream; nil: none
	keyed  *keyed  // the call has an idempotency key; nil: none

	deadline time.Duration // see clock; 0: none

	mu     sync.Mutex
	done   chan struct{}
	timer  *time.Timer
	afters *afterFunc // the first of them
}

// asked is what a request of a plain peer has besides.
type asked struct {
	rawID []byte        // to be echoed
	array *arrayReply   // which it came in; nil: none
	index int32         // its place there
	sub   *subscription // whose the stream is; nil: none
}

// unasked is that of all others. It stays empty.
var unasked asked

// epoch is what deadlines are counted from, which takes a third of what a time does.
var epoch = time.Now()

// clock is how long after the epoch it is. (Not time.Since, which in a test's bubble has another
// answer than the times there.)
func clock() time.Duration {
	now := time.Now()
	return now.Sub(epoch)
}

// end is how a handler and its context ended. It is one byte, since a record has no
// more to spare: why, in two bits, and two marks.
type end uint8

const (
	notEnded end = iota
	canceled
	deadlineExceeded

	whys         = 1<<2 - 1
	returned end = 1 << 2 // the handler has: what is made with its context is not nested any more
	withConn end = 1 << 3 // the context ended with its connection, whose cause is its own
	onReader end = 1 << 4 // the reader runs its handler, which must wait for nothing that comes
)

// why is without the marks.
func (e end) why() end { return e & whys }

// err is nil of one that has not ended.
func (e end) err() error { return [...]error{nil, context.Canceled, context.DeadlineExceeded}[e.why()] }

// Answer is what a call is answered with, while it waits to be sent, and a plain peer's was asked
// with.
type Answer struct {
	parcel parcel
	asked  asked
}

// Record is what the owner knows of a request.
type Record interface {
	Inspector
	Name() string
	Decl() *Decl // nil: of a fallback, or of nobody
	// Reply is the metadata that goes back. Of a stream it is asked for when its handler
	// sends the first item.
	Reply() map[string]string
	// Waits reports whether Owner.Replied is to be called. It is asked when the handler
	// has returned.
	Waits() bool
	// Forget drops the request's bytes: its handler has returned, and its context may
	// be kept for long.
	Forget()
}

// afterFunc is what AfterFunc was given, in a list that has no trouble with
// thousands. Under the request's mu; what has ended is not touched any more.
type afterFunc struct {
	f          func() // nil: it was stopped
	next, prev *afterFunc
}

type inboundKey struct{}

// RequestKey is the key of a value that contexts have which belong to a request: what
// outlives that does not have it, see WithoutRequest.
type RequestKey interface{ OfRequest() }

func (inboundKey) OfRequest() {}

// AfterKey is that of what contexts have which belong to what follows a reply.
type AfterKey struct{}

func (AfterKey) OfRequest() {}

// From returns the request that a handler's context belongs to, nil if it is
// none's.
func From(ctx context.Context) *Inbound {
	in, _ := ctx.Value(inboundKey{}).(*Inbound)
	return in
}

// Conn is the connection that it came in on.
func (in *Inbound) Conn() *Conn { return in.conn }

// Payload is the encoded request, valid until Run returns.
func (in *Inbound) Payload() []byte { return in.body.Bytes() }

// Heavy reports whether the call is taken to answer much.
func (in *Inbound) Heavy() bool { return int(in.price) > flow.HeavyFrom+replyOverhead }

// Stream has the items, nil: it has none.
func (in *Inbound) Stream() *Stream { return in.stream }

// Deadline is the caller's, as far as it told.
func (in *Inbound) Deadline() (time.Time, bool) {
	if in.deadline == 0 {
		return time.Time{}, false
	}
	now := time.Now() // so that it is right by today's clock, too
	return now.Add(in.deadline - now.Sub(epoch)), true
}

// Value finds the call itself, and else what the connection's context holds.
func (in *Inbound) Value(key any) any {
	if key == (inboundKey{}) || key == causeKey && in.endedAlone() {
		return in.own(key)
	}
	return in.conn.ctx.Value(key)
}

// own is what the call itself has.
func (in *Inbound) own(key any) any {
	if key == (inboundKey{}) {
		return in
	}
	return nil // no cause beside Err
}

// endedAlone reports that the context ended, and not because of its connection: what
// ends that later was not the cause.
func (in *Inbound) endedAlone() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.ended.why() != notEnded && in.ended&withConn == 0
}

// causeKey is what context.Cause asks a context for, found out by being asked.
var causeKey = func() (asked any) {
	context.Cause(asker{context.Background(), &asked})
	return asked
}()

type asker struct {
	context.Context
	asked *any
}

func (a asker) Err() error { return context.Canceled }

func (a asker) Value(key any) any {
	*a.asked = key
	return nil
}

// String is what prints instead of all fields, which change meanwhile.
func (in *Inbound) String() string { return "typedrpc.Context(" + in.Record.Name() + ")" }

// WithoutRequest is ctx without the request that it belongs to: for what outlives
// that.
func WithoutRequest(ctx context.Context) context.Context {
	switch in := From(ctx); {
	case in == nil && ctx.Value(AfterKey{}) == nil:
		return ctx
	case in != nil && ctx == context.Context(in):
		return in.conn.ctx // which keeps no request
	}
	return requestless{ctx}
}

type requestless struct{ context.Context }

func (r requestless) Value(key any) any {
	if _, of := key.(RequestKey); of {
		return nil
	}
	return r.Context.Value(key)
}

// nestedOn reports whether what is made with the context now is made by a handler of
// c: one that has returned cannot be what waits for itself.
func (in *Inbound) nestedOn(c *Conn) bool {
	if in == nil || in.conn != c {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.ended&returned == 0
}

// Handling is the connection of a handler that ctx was given to and that has not returned,
// nil if there is none: what waits for the handlers of that would wait for itself.
func Handling(ctx context.Context) *Conn {
	if in := From(ctx); in != nil && in.nestedOn(in.conn) {
		return in.conn
	}
	return nil
}

// reads reports whether the reader runs its handler, or did.
func (in *Inbound) reads() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.ended&onReader != 0
}

// Done is closed when the caller gave up, its time is over, the connection is
// gone, or the handler has returned.
func (in *Inbound) Done() <-chan struct{} {
	in.mu.Lock()
	if in.done == nil {
		in.done = make(chan struct{})
		if in.ended.why() != notEnded {
			close(in.done)
		} else {
			in.armLocked()
		}
	}
	done, late := in.done, in.lateLocked()
	in.mu.Unlock()
	if late {
		in.end(deadlineExceeded)
	}
	return done
}

// Err says why the context ended. It reads the clock, and what it says once stays.
func (in *Inbound) Err() error {
	in.mu.Lock()
	why, late := in.ended, in.lateLocked()
	in.mu.Unlock()
	if late {
		why = in.end(deadlineExceeded)
	}
	return why.err()
}

// lateLocked reports that the deadline has passed, and nobody has noticed.
func (in *Inbound) lateLocked() bool {
	return in.ended.why() == notEnded && in.deadline != 0 && clock() >= in.deadline
}

// AfterFunc makes contexts derived from this one cheap: package context calls
// it instead of starting a goroutine for each.
func (in *Inbound) AfterFunc(f func()) (stop func() bool) {
	a := &afterFunc{f: f}
	ended := in.Err() != nil // which reads the clock
	in.mu.Lock()
	defer in.mu.Unlock()
	if ended || in.ended.why() != notEnded {
		go f()
		return func() bool { return false }
	}
	if a.next = in.afters; a.next != nil {
		a.next.prev = a
	}
	in.afters = a
	in.armLocked()
	return func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.ended.why() != notEnded || a.f == nil {
			return false
		}
		a.f = nil
		if a.prev == nil {
			in.afters = a.next
		} else {
			a.prev.next = a.next
		}
		if a.next != nil {
			a.next.prev = a.prev
		}
		return true
	}
}

func (in *Inbound) armLocked() {
	if in.timer == nil && in.deadline != 0 {
		in.timer = time.AfterFunc(max(in.deadline-clock(), 1), func() { in.end(deadlineExceeded) })
	}
}

// cancel ends the context, unless it has ended, or its deadline passed before.
func (in *Inbound) cancel() {
	in.mu.Lock()
	why := canceled
	if in.lateLocked() {
		why = deadlineExceeded
	}
	in.unlockEnded(why)
}

// dropRequest gives the request's bytes back.
func (in *Inbound) dropRequest() {
	in.Record.Forget()
	in.body.Release()
	in.body = nil
}

// over ends what still hangs on the context of a handler that has returned.
func (in *Inbound) over() {
	in.mu.Lock()
	in.ended |= returned
	in.unlockEnded(canceled)
}

// end ends the context, and returns why it has ended: the first reason is the one.
func (in *Inbound) end(why end) end {
	in.mu.Lock()
	return in.unlockEnded(why)
}

// unlockEnded is end with mu held, which it gives up.
func (in *Inbound) unlockEnded(why end) end {
	if was := in.ended.why(); was != notEnded {
		in.mu.Unlock()
		return was
	}
	in.ended |= why
	if why == canceled && in.conn.ctx.Err() != nil { // a deadline had passed before that, unnoticed
		in.ended |= withConn
	}
	if in.done != nil {
		close(in.done)
	}
	if in.timer != nil {
		in.timer.Stop()
	}
	afters := in.afters
	in.afters = nil
	in.mu.Unlock()
	for a := afters; a != nil; a = a.next {
		go a.f()
	}
	if in.stream != nil {
		in.stream.Wake()
	}
	return why
}
