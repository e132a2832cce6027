package engine

import (
	"context"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
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
	ended   end  // under mu

	turn  uint16 // of purchases, in which its reply was bought …
	index int32  // its place in array
	cost  int32  // its bytes of the connection's budget or the lane's window
	held  int32  // its bytes of the account
	price int32  // … and for how many bytes

	conn  *Conn
	sess  *session.Session // whose it is: a later one does not know it
	id    uint64           // its key in Conn.inbound
	rawID []byte           // plain peers: to be echoed
	body  *buf.Buf
	array *arrayReply // plain peers: the array it came in

	stream *Stream // the items of a stream; nil: none
	keyed  *keyed  // the call has an idempotency key; nil: none

	deadline time.Time // zero: none

	mu     sync.Mutex
	done   chan struct{}
	timer  *time.Timer
	afters []*afterFunc
}

// end is why a handler's context ended: an error in one byte.
type end uint8

const (
	notEnded end = iota
	canceled
	deadlineExceeded
)

// err is nil of one that has not ended.
func (e end) err() error { return [...]error{nil, context.Canceled, context.DeadlineExceeded}[e] }

// Answer is what a call is answered with, while it waits to be sent.
type Answer struct{ parcel parcel }

// Record is what the owner knows of a request.
type Record interface {
	Inspector
	Name() string
	Decl() *Decl // nil: of a fallback, or of nobody
}

type afterFunc struct{ f func() }

type inboundKey struct{}

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

// Stream has the items, nil: it has none.
func (in *Inbound) Stream() *Stream { return in.stream }

// Deadline is the caller's, as far as it told.
func (in *Inbound) Deadline() (time.Time, bool) { return in.deadline, !in.deadline.IsZero() }

// Value finds the call itself, and else what the connection's context holds.
func (in *Inbound) Value(key any) any {
	if key == (inboundKey{}) {
		return in
	}
	return in.conn.ctx.Value(key)
}

// Done is closed when the caller gave up, its time is over, the connection is
// gone, or the handler has returned.
func (in *Inbound) Done() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.done == nil {
		in.done = make(chan struct{})
		if in.ended != notEnded {
			close(in.done)
		} else {
			in.armLocked()
		}
	}
	return in.done
}

// Err says why the context ended.
func (in *Inbound) Err() error {
	in.mu.Lock()
	err := in.ended.err()
	in.mu.Unlock()
	if err == nil && !in.deadline.IsZero() && !time.Now().Before(in.deadline) {
		in.cancel(deadlineExceeded)
		return context.DeadlineExceeded
	}
	return err
}

// AfterFunc makes contexts derived from this one cheap: package context calls
// it instead of starting a goroutine for each.
func (in *Inbound) AfterFunc(f func()) (stop func() bool) {
	a := &afterFunc{f}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ended != notEnded {
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

func (in *Inbound) armLocked() {
	if in.timer == nil && !in.deadline.IsZero() {
		in.timer = time.AfterFunc(max(time.Until(in.deadline), 1), func() { in.cancel(deadlineExceeded) })
	}
}

func (in *Inbound) cancel(why end) {
	in.mu.Lock()
	if in.ended != notEnded {
		in.mu.Unlock()
		return
	}
	in.ended = why
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
	if in.stream != nil {
		in.stream.Wake()
	}
}
