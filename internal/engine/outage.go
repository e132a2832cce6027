package engine

import (
	"iter"
	"time"
)

// outage is the time without a link, for what waits for one without a deadline: a
// program that hangs is to find in its log what it hangs on. Under Conn.mu.
type outage struct {
	n     uint32      // of the connection's outages
	since time.Time   // zero: there is a link, or nobody is told
	timer *time.Timer // of the next look at what waits; nil: there is none
}

// outagePatience is for how long a call may wait before that is logged.
const outagePatience = 10 * time.Second

// outLocked is called when the link is gone. Only what was dialled tells: at a
// server nothing waits for longer than the session has.
func (c *Conn) outLocked() {
	o := &c.outage
	if c.config.Lacks == nil || c.closing {
		return
	}
	if o.since.IsZero() {
		o.since = time.Now()
		o.n++
	}
	if len(c.pending)+c.queue.len+c.waiting.len > 0 {
		c.lookLocked(outagePatience)
	}
}

// backLocked is called when there is a link.
func (o *outage) backLocked() {
	if o.timer != nil {
		o.timer.Stop()
	}
	o.since, o.timer = time.Time{}, nil
}

// waitsLocked is called with each call that begins.
func (c *Conn) waitsLocked(cl *Call) {
	if !c.outage.since.IsZero() && cl.deadline.IsZero() {
		cl.began = time.Now()
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
	without := now.Sub(o.since)
	c.mu.Unlock()
	if calls > 0 {
		what, err := c.config.Lacks()
		c.config.Logger.Warn("typedrpc: a call waits for a link", "method", name, "calls", calls, "without", without, "awaits", what, "error", err)
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
		for it := c.waiting.head; it != nil; it = it.next {
			if !tell(it.call) {
				return
			}
		}
	}
}
