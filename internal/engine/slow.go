package engine

import (
	"context"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// pace finds messages in fragments that make too little progress, with one timer
// while there are any. Its clock stands still while there is no link. Under
// Conn.mu.
//
// A peer sends what it has under way in turns, a fragment each, so one of k
// makes a k-th of the rate, and comes in steps: it may be one fragment behind.
// All together may be no more than that behind either, whatever their number.
// The clock goes as far as something has come over the link: a line that is half
// open, and dies, has taken no time.
type pace struct {
	timer  *time.Timer   // nil: nothing is under way
	linked time.Duration // how long there has been a link, until …
	since  time.Time     // … this one came; zero: there is none
	heard  time.Time     // something has come over it at least until then

	// since the last look
	at     time.Duration // by the clock of linked
	came   int           // bytes of parts that have come
	behind float64       // bytes that all together are behind
}

// now is the time with a link.
func (p *pace) now() time.Duration {
	if p.since.IsZero() {
		return p.linked
	}
	return p.linked + max(0, p.heard.Sub(p.since))
}

// link notes that there is a link now, or none.
func (p *pace) link(up bool) {
	p.linked, p.since = p.now(), time.Time{}
	if up { // perhaps nobody has noticed that the last one was dead
		p.since = time.Now()
		p.heard = p.since
	}
}

// stop is called when nothing is under way any more.
func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
	*p = pace{linked: p.linked, since: p.since, heard: p.heard}
}

// addPartLocked begins a message that comes in parts.
func (c *Conn) addPartLocked(key partID, a *assembly) {
	if c.partial == nil {
		c.partial = map[partID]*assembly{}
	}
	c.partial[key] = a
	if c.pace.timer == nil && c.config.Limits.MinRate > 0 {
		c.lookedLocked()
		c.pace.timer = time.AfterFunc(flow.RateWindow, c.lookAtParts)
	}
}

// listenLocked brings the clock up to when something last came.
func (c *Conn) listenLocked() {
	if !c.linkedLocked() {
		return
	}
	if at := time.Now().Add(-c.sess.Carrier().Silence()); at.After(c.pace.heard) {
		c.pace.heard = at
	}
}

// lookedLocked notes what there is, for the next look.
func (c *Conn) lookedLocked() {
	c.listenLocked()
	p := &c.pace
	p.at, p.came = p.now(), 0
	for _, a := range c.partial {
		a.seen = true
	}
}

// lookAtParts refuses what makes too little progress. It may meet the reader in
// the middle of anything: what it decides of a call it does under the lock.
func (c *Conn) lookAtParts() {
	c.mu.Lock()
	if c.pace.timer == nil {
		c.mu.Unlock()
		return
	}
	e := status.Errorf(status.ResourceExhausted, "a message in fragments came slower than %d bytes per second and was given up", c.config.Limits.MinRate)
	var after []func()
	for _, a := range c.slowPartsLocked() {
		after = append(after, c.refuseSlowLocked(a, e))
	}
	c.lookedLocked()
	if c.underWayLocked() > 0 {
		c.pace.timer.Reset(flow.RateWindow)
	} else {
		c.pace.stop()
	}
	c.unlockAndWake()
	for _, f := range after {
		f()
	}
}

// refuseSlowLocked fails the call that an assembly belongs to. It returns what is
// to be done without the lock.
func (c *Conn) refuseSlowLocked(a *assembly, e *status.Error) (after func()) {
	f := &a.frame
	switch f.Type {
	case wire.Call:
		var err error
		if !a.in.orphanedLocked() {
			err = c.takeBackLocked(a.in, e)
		}
		sess := c.sess
		return func() {
			a.in.cancel(context.Canceled)
			if err != nil {
				c.End(sess, err) // it does not read the refusals
			}
		}
	case wire.Result:
		return func() { c.refusePart(a, e) }
	case wire.Item:
		if x, _ := c.streamLocked(f.ID, f.Flags&wire.FromCaller != 0); x != nil {
			return func() { x.Fail(e) }
		}
	}
	return func() {} // a notification is refused when the rest of it has come
}

// underWayLocked is how many messages are being put together.
func (c *Conn) underWayLocked() (k int) {
	for _, a := range c.partial {
		if !a.over {
			k++
		}
	}
	return k
}

// slowPartsLocked takes what makes too little progress out of the parts.
func (c *Conn) slowPartsLocked() (slow []*assembly) {
	p, limits, k := &c.pace, &c.config.Limits, c.underWayLocked()
	c.listenLocked()
	passed := p.now() - p.at
	most := limits.Least(flow.RateWindow) + fragment
	old := 0
	for _, a := range c.partial {
		if a.seen && !a.over {
			old++
			a.waited += passed
			if a.among = max(a.among, k); a.behind(limits) <= 0 {
				a.waited, a.came, a.among = 0, 0, 0
			}
		}
	}
	if old == 0 {
		p.behind = 0
		return nil
	}
	p.behind = max(0, p.behind+limits.Least(passed)-float64(p.came))
	all := p.behind > most
	for key, a := range c.partial {
		if a.seen && !a.over && (all || a.behind(limits) > most) {
			c.endPartLocked(key, a)
			a.over, a.late = true, key.id == 0
			if a.late {
				c.partial[key] = a // to drop the rest, should it come
			}
			if a.in != nil {
				a.in.partial = false
			}
			slow = append(slow, a)
		}
	}
	if all {
		p.behind = 0
	}
	return slow
}
