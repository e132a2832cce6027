package replay

import (
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Handler is a handler of a keyed call, as the cache sees it.
type Handler interface {
	// Own makes the handler the one that the run is. It fails if its context
	// has ended. Cache's lock is held.
	Own(r *Run) error
	// Disown takes that back. Cache's lock is held.
	Disown()
	// Stop ends its context. Without locks.
	Stop()
	// Left says, under the cache's lock, that its caller is not there any more.
	Left() *bool
}

// Run is one handler of a keyed call, which repeats wait for; or the handlers
// that forward it. Its fields are under Cache.mu, but for answer, which is
// there when done is closed.
type Run struct {
	entry    *entry
	ins      []Handler // whose handlers they are, to end their contexts
	done     chan struct{}
	answer   Answer
	over     bool
	void     bool        // with over: there is no answer
	waiting  int         // callers that are there for the answer …
	idle     *time.Timer // ends the handler's context when nobody comes back
	detached *Detached   // not nil: its session was lost
}

// stop ends the handlers' contexts.
func (c *Cache) stop(r *Run) {
	c.mu.Lock()
	ins := slices.Clone(r.ins)
	c.mu.Unlock()
	for _, in := range ins {
		in.Stop()
	}
}

// Answer is how a keyed call ended.
type Answer struct {
	Body []byte
	Meta map[string]string
	Err  *status.Error
}

func (a *Answer) size() int64 {
	n := len(a.Body) + flow.MetaSize(a.Meta)
	if a.Err != nil {
		n += len(a.Err.Message) + len(a.Err.Fault) + len(a.Err.Data)
	}
	return int64(n)
}

// Done is closed when the answer is there.
func (r *Run) Done() <-chan struct{} { return r.done }

// Answer is the run's answer, once Done is closed.
func (r *Run) Answer() *Answer { return &r.answer }

// Begin finds the run, or the answer, of a keyed call: with first the caller is
// the one to run it. err is why it must not run.
func (c *Cache) Begin(key CallKey, sum [32]byte, age time.Duration, in Handler) (r *Run, first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, known, refused := c.findLocked(key, sum, age)
	switch {
	case refused != nil:
		return nil, false, refused
	case known && e.passed != nil:
		return nil, false, status.Errorf(status.InvalidArgument, "the idempotency key was used for a call that was forwarded")
	case known && e.run != nil:
		e.run.joinLocked()
		return e.run, false, nil
	case known:
		return &Run{entry: e, done: closedChan, answer: e.answer, over: true}, false, nil
	}
	r = &Run{entry: e, done: make(chan struct{}), waiting: 1}
	if in != nil {
		if err := in.Own(r); err != nil { // its context has ended
			c.dropLocked(e)
			return nil, false, err
		}
		r.ins = []Handler{in}
	}
	e.run = r
	return r, true, nil
}

// joinLocked counts one more caller that is there for the answer.
func (r *Run) joinLocked() {
	r.waiting++
	if r.idle != nil {
		r.idle.Stop()
	}
}

var closedChan = func() chan struct{} { ch := make(chan struct{}); close(ch); return ch }()

// End notes the answer of a run. What there is no room for is not kept; that
// the call ran is.
func (c *Cache) End(r *Run, a Answer) {
	c.mu.Lock()
	e := r.entry
	r.answer, e.answer = a, a
	if n := a.size(); c.fitsLocked(e.key.Subject, 0, n) {
		e.cost += n
		c.useLocked(e.key.Subject, 0, n)
	} else {
		e.answer = Answer{Err: errNotKept}
	}
	c.ageLocked(e)
	r.endLocked()
	c.mu.Unlock()
}

// Void forgets a run whose handler did not begin, because the connection that its call
// came over had ended: whoever waits for it, or asks again, is to begin another.
func (c *Cache) Void(r *Run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.void = true
	c.dropLocked(r.entry)
	r.endLocked()
}

// Void reports whether the run came to nothing, once Done is closed.
func (r *Run) Void() bool { return r.void }

// endLocked notes that the handler, or the last one that forwards, returned.
func (r *Run) endLocked() {
	r.over, r.entry.run, r.ins = true, nil, nil
	if r.idle != nil {
		r.idle.Stop()
	}
	if r.detached != nil {
		r.detached.remove(r)
	}
	close(r.done)
}

// Leave notes that a caller is no longer there for the answer of a run: lost,
// or because it cancelled its call. When the last one cancels, the handler's
// context ends; one that was lost may come back. in is the caller's call if it
// runs the handler. It reports false if that has returned.
func (c *Cache) Leave(r *Run, in Handler, cancelled bool) bool {
	c.mu.Lock()
	if r.over || in != nil && *in.Left() {
		defer c.mu.Unlock()
		return !r.over
	}
	if in != nil {
		*in.Left() = true
	}
	r.waiting--
	stop := false
	switch {
	case r.waiting > 0:
	case cancelled:
		stop = true
	case r.idle == nil:
		r.idle = time.AfterFunc(c.o.TTL, func() {
			c.mu.Lock()
			idle := r.waiting == 0
			c.mu.Unlock()
			if idle {
				c.stop(r)
			}
		})
	default:
		r.idle.Reset(c.o.TTL)
	}
	c.mu.Unlock()
	if stop {
		c.stop(r)
	}
	return true
}

// Detach notes that the session of a run's first caller was lost. It reports
// false if the run cannot go on without it.
func (c *Cache) Detach(r *Run, d *Detached) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.over:
		return false
	case r.detached == nil:
		if !d.add(c, r) {
			return false
		}
		r.detached = d
	}
	return true
}

// Forward returns the key of a call that this side only passes on, with what is
// known of where it went. The handler is like that of a keyed call until done.
func (c *Cache) Forward(key CallKey, sum [32]byte, age time.Duration, in Handler) (k *Key, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, known, refused := c.findLocked(key, sum, age)
	switch {
	case refused != nil:
		return nil, nil, refused
	case known && e.passed == nil:
		return nil, nil, status.Errorf(status.InvalidArgument, "the idempotency key was used for a call that was not forwarded")
	case !known:
		e.passed = &Key{id: key.ID, born: time.Now().Add(-age), told: true}
		c.ageLocked(e)
	}
	if in == nil {
		return e.passed, func() {}, nil
	}
	r := e.run
	if r == nil {
		r = &Run{entry: e, done: make(chan struct{})}
	}
	if err := in.Own(r); err != nil {
		return nil, nil, err
	}
	e.run = r
	if !*in.Left() && !slices.Contains(r.ins, in) {
		r.joinLocked()
	}
	r.ins = append(r.ins, in)
	return e.passed, func() { c.forwarded(r, in) }, nil
}

// forwarded notes that a handler which forwarded a call has its answer.
func (c *Cache) forwarded(r *Run, in Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(r.ins, in)
	r.ins = slices.Delete(r.ins, i, i+1)
	if slices.Contains(r.ins, in) {
		return // it forwards the call twice at once
	}
	if !*in.Left() {
		r.waiting--
	}
	in.Disown()
	if len(r.ins) == 0 {
		r.endLocked()
	}
}
