package engine

import (
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
//
// Whoever takes turns sends, so a peer of whom less than the rate comes, of
// anything, is not that far behind: it has stopped. What is half done of it is
// given up after a window of looks for which that is certain: it has answered,
// when asked, so it hears us and we hear it. All others are left out: a line that
// stands still, or is dead in one direction, holds back what was sent, or the
// acknowledgements that the peer waits for.
type pace struct {
	timer  *time.Timer   // nil: nothing is under way
	linked time.Duration // how long there has been a link, until …
	since  time.Time     // … this one came; zero: there is none
	heard  time.Time     // something has come over it at least until then

	// since the last look
	at      time.Duration // by the clock of linked
	came    int           // bytes of parts that have come
	behind  float64       // bytes that all together are behind
	got     int64         // what the link had received then …
	answers int64         // … and how many answers had come

	parts  int              // bytes of parts, ever …
	begun  int              // … and how many messages
	recent [looksKept]int64 // what came before each of the latest looks that are certain
	looks  int              // how many those were
}

const (
	// lookEvery is short, because a line that stands still for a while should
	// cost few looks.
	lookEvery = flow.RateWindow / looksKept
	looksKept = 5
	// segment is what comes over a line at once: a window may have one less.
	segment = 1500
)

// now is the time with a link.
func (p *pace) now() time.Duration {
	if p.since.IsZero() {
		return p.linked
	}
	return p.linked + max(0, p.heard.Sub(p.since))
}

// linkLocked notes that there is a link now, or none.
func (c *Conn) linkLocked(up bool) {
	p := &c.pace
	p.linked, p.since = p.now(), time.Time{}
	if up { // perhaps nobody has noticed that the last one was dead
		p.since = time.Now()
		p.heard, p.got, p.answers = p.since, 0, 0
		for _, a := range c.partial {
			a.looks = 0 // links that die one after another are no peer that has stopped
		}
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
	c.pace.begun++
	if c.pace.timer == nil && c.config.Limits.MinRate > 0 {
		c.lookedLocked()
		c.pace.timer = time.AfterFunc(lookEvery, c.lookAtParts)
	}
}

// listenLocked brings the clock up to when something last came.
func (c *Conn) listenLocked() {
	carrier := c.carrierLocked()
	if carrier == nil {
		return
	}
	if at := time.Now().Add(-carrier.Silence()); at.After(c.pace.heard) {
		c.pace.heard = at
	}
}

// lookedLocked notes what there is, for the next look.
func (c *Conn) lookedLocked() {
	c.listenLocked()
	p := &c.pace
	p.at, p.came = p.now(), 0
	if carrier := c.carrierLocked(); carrier != nil {
		p.got, p.answers = carrier.Received(), carrier.Answers()
	}
	for _, a := range c.partial {
		a.seen = true
	}
}

// sentLocked returns how much has come since the last look, and whether that is
// all that the peer wanted to send. It asks a peer of whom little came to answer
// until the next one.
func (c *Conn) sentLocked() (came int64, certain bool) {
	p, carrier := &c.pace, c.carrierLocked()
	if carrier == nil {
		return 0, false
	}
	came = max(carrier.Received()-p.got, int64(p.came))
	if float64(came) >= c.config.Limits.Least(lookEvery) {
		return came, true
	}
	carrier.Ping()
	return came, carrier.Answers() > p.answers
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
		c.pace.timer.Reset(lookEvery)
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
			a.in.cancel()
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
	came, certain := c.sentLocked()
	passed := p.now() - p.at
	most := limits.Least(flow.RateWindow) + fragment
	old := 0
	for _, a := range c.partial {
		if a.seen && !a.over {
			old++
			a.waited += passed
			if certain {
				a.looks++
			}
			if a.among = max(a.among, k); a.behind(limits) <= 0 {
				a.waited, a.came, a.among = 0, 0, 0
			}
		}
	}
	if old == 0 {
		p.behind = 0
		return nil
	}
	if certain {
		p.recent[p.looks%looksKept] = came
		p.looks++
	}
	stopped := p.stopped(limits)
	p.behind = max(0, p.behind+limits.Least(passed)-float64(p.came))
	all := p.behind > most
	for key, a := range c.partial {
		if !a.seen || a.over {
			continue
		}
		if all || stopped && a.looks >= looksKept || a.behind(limits) > most || p.overtaken(a) {
			slow = append(slow, a)
			c.endSlowLocked(key, a)
		}
	}
	if all {
		p.behind = 0
	}
	return slow
}

// stopped reports whether less than the rate came in the latest window.
func (p *pace) stopped(l *flow.Limits) bool {
	sum := int64(0)
	for _, n := range p.recent {
		sum += n
	}
	least := l.Least(flow.RateWindow)
	return float64(sum) < least-min(least/4, segment)
}

// overtaken reports whether a has missed a turn: all others that were there when
// it had its last have had two since, and those that were begun later one.
func (p *pace) overtaken(a *assembly) bool {
	return p.parts-a.parts > (2*a.others+p.begun-a.begun)*fragment
}

// endSlowLocked takes a message out of the parts.
func (c *Conn) endSlowLocked(key partID, a *assembly) {
	c.endPartLocked(key, a)
	a.over, a.late = true, key.id == 0
	if a.late {
		c.partial[key] = a // to drop the rest, should it come
	}
	if a.in != nil {
		a.in.partial = false
	}
}

// partCameLocked notes that n bytes of a have come.
func (c *Conn) partCameLocked(a *assembly, n int) {
	p := &c.pace
	a.came += n
	p.came += n
	p.parts += n
	a.parts, a.begun, a.others = p.parts, p.begun, len(c.partial)
}
