package engine

import (
	"context"
	"iter"
	"time"

	"github.com/typedrpc/typedrpc/internal/status"
)

// outage is the time without a link. What fails in it says so, and why; of what waits
// without a deadline the log says it, since a program that hangs is to find there what
// it hangs on. Under Conn.mu.
type outage struct {
	n     uint32        // of the connection's outages
	told  linkage       // of the link, to the program's Recorder
	since time.Time     // zero: there is a link
	why   *status.Error // what the last link, or attempt to get one, ended with
	timer *time.Timer   // of the next look at what waits; nil: there is none
	away  time.Time     // since when the peer has been leaving, where it is
}

// outagePatience is for how long a call may wait before that is logged.
const outagePatience = 10 * time.Second

// Away notes what a link, or an attempt to get one, ended with. Whoever brings the
// links calls it before it says that the link is gone, and after each attempt.
func (c *Conn) Away(why *status.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outage.why = why
}

// lackLocked says what calls wait for, where that is more than their turn, since when,
// and why; "": nothing.
func (c *Conn) lackLocked() (what string, why *status.Error) {
	o := &c.outage
	since, what := o.since, "no connection"
	switch {
	case !since.IsZero():
		why = o.why
	case c.peer.away:
		since, what = o.away, "the peer has been shutting down"
	default:
		return "", nil
	}
	if d := time.Since(since).Round(time.Millisecond); d > 0 {
		return what + " for " + d.String(), why
	} else if why == nil && c.peer.away {
		return "the peer is shutting down", nil
	}
	return what + " at the moment", why
}

// noLinkLocked is the error of what cannot be sent because there is no link.
func (c *Conn) noLinkLocked() *status.Error {
	e := status.Errorf(status.Unavailable, "no connection at the moment")
	if what, why := c.lackLocked(); what != "" {
		e.Message = ""
		e = e.Lacking(what, why)
	}
	return e
}

// GaveUp is the error of what was given up because ctx ended: while there is no link
// it says that, and why.
func (c *Conn) GaveUp(ctx context.Context, o status.Outcome) *status.Error {
	return c.unlinked(status.Ended(ctx, o))
}

func (c *Conn) unlinked(e *status.Error) *status.Error {
	c.mu.Lock()
	what, why := c.lackLocked()
	c.mu.Unlock()
	if what == "" {
		return e
	}
	return e.Lacking(what, why)
}

// outLocked is called when the link is gone, because of cause.
func (c *Conn) outLocked(cause error) {
	o := &c.outage
	if c.closing {
		return
	}
	if o.since.IsZero() {
		o.since = time.Now()
		o.n++
	}
	if o.why == nil {
		o.why = status.Lost(cause, nil)
	}
	if c.config.Lacks != nil && len(c.pending)+c.queue.len+c.waiting.len() > 0 {
		c.lookLocked(outagePatience)
	}
}

// backLocked is called when there is a link.
func (o *outage) backLocked() {
	if o.timer != nil {
		o.timer.Stop()
	}
	o.since, o.timer, o.why = time.Time{}, nil, nil
}

// waitsLocked is called with each call that begins.
func (c *Conn) waitsLocked(cl *Call) {
	if c.config.Lacks != nil && !c.outage.since.IsZero() && cl.deadline.IsZero() {
		if c.config.Recorder == nil || cl.began.IsZero() {
			cl.began = time.Now()
		}
		c.lookLocked(outagePatience)
	}
}

func (c *Conn) lookLocked(wait time.Duration) {
	if c.outage.timer == nil {
		c.outage.timer = time.AfterFunc(wait, c.tellWaiting)
	}
}

// tellWaiting logs what has waited long enough, in one line, and looks again when
// there is more. It runs on the timer.
func (c *Conn) tellWaiting() {
	c.mu.Lock()
	o, now := &c.outage, time.Now()
	o.timer = nil
	if o.since.IsZero() || c.closing {
		c.mu.Unlock()
		return
	}
	var name string
	var calls int
	var most, next time.Duration
	for cl := range c.unboundedLocked() {
		waited := min(now.Sub(cl.began), now.Sub(o.since))
		switch left := outagePatience - waited; {
		case left > 0 && (next == 0 || left < next):
			next = left
		case left > 0:
		default:
			cl.told = o.n
			if calls++; waited > most || waited == most && cl.Decl.Name < name {
				most, name = waited, cl.Decl.Name
			}
		}
	}
	if next > 0 {
		c.lookLocked(max(next, time.Second)) // each look costs all that wait
	}
	without, why := now.Sub(o.since), o.why
	c.mu.Unlock()
	if calls > 0 {
		c.config.Logger.Warn("typedrpc: a call waits for a link", "method", name, "calls", calls, "without", without, "awaits", c.config.Lacks(), "error", why)
	}
}

// unboundedLocked ranges over our calls without a deadline of which nobody has been
// told in this outage.
func (c *Conn) unboundedLocked() iter.Seq[*Call] {
	return func(yield func(*Call) bool) {
		tell := func(cl *Call) bool {
			return !cl.deadline.IsZero() || cl.told == c.outage.n || yield(cl)
		}
		for cl := range c.begunLocked() {
			if !tell(cl) {
				return
			}
		}
		for cl := range c.waiting.all() {
			if !tell(cl) {
				return
			}
		}
	}
}
