package engine

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// pace finds messages in fragments that make too little progress, with a look
// every two seconds while there are any. Under Conn.mu.
//
// Each has to make the least rate, whatever else comes. A look is held against one
// if the peer was heard: much has come since the last look, of anything, or it has
// answered when asked. A line that stands still holds back what was sent, and is
// not the message's fault; but a link over which nothing is heard for as long ends,
// as it does in the middle of a WebSocket message, and the session may go on over
// another one.
type pace struct {
	timer   *time.Timer      // nil: nothing is under way
	link    *session.Carrier // that there was at the last look; nil: none
	got     int64            // what it had received then …
	answers int64            // … and how many answers had come
	silent  int              // looks in a row at which nobody was heard over it
}

const (
	looksKept = 5
	lookEvery = flow.RateWindow / looksKept
	// mostSilent is how many looks at which nobody is heard a message outlives, on
	// one link after another.
	mostSilent = 2 * looksKept
	// mostExcused is at how many looks a message that the link is receiving may be
	// the rest of one that has begun.
	mostExcused = 2 * looksKept
	// segment is what comes over a line at once: a window may have one less.
	segment = 1500
)

// stop is called when nothing is under way any more.
func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
	*p = pace{}
}

// addPartLocked begins a message that comes in parts.
func (c *Conn) addPartLocked(key partID, a *assembly) {
	if c.partial == nil {
		c.partial = map[partID]*assembly{}
	}
	c.partial[key] = a
	if c.pace.timer == nil && c.config.Limits.MinRate > 0 {
		c.lookedLocked()
		c.pace.timer = time.AfterFunc(lookEvery, c.lookAtParts)
	}
}

// carrierLocked is the link that there is, nil: none.
func (c *Conn) carrierLocked() *session.Carrier {
	if c.sess == nil {
		return nil
	}
	return c.sess.Carrier()
}

// lookedLocked notes what there is, for the next look.
func (c *Conn) lookedLocked() {
	p, carrier := &c.pace, c.carrierLocked()
	if carrier != p.link {
		p.link, p.silent = carrier, 0
	}
	if carrier != nil {
		p.got, p.answers = carrier.Received(), carrier.Answers()
	}
	for _, a := range c.partial {
		a.seen = true
	}
}

// heardLocked reports whether the peer was heard since the last look, and whether
// what came may be a part of any message: the link is receiving one. A peer of whom
// little comes is asked to answer until the next look.
func (c *Conn) heardLocked() (heard, partway bool) {
	p, carrier := &c.pace, c.pace.link
	came := carrier.Received() - p.got
	if float64(came) >= c.config.Limits.Least(lookEvery) {
		p.silent = 0
		return true, carrier.Partway()
	}
	carrier.Ping()
	if carrier.Answers() > p.answers {
		p.silent = 0
		return true, false
	}
	p.silent++
	return false, false
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
	slow, over := c.slowPartsLocked()
	for _, a := range slow {
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
	if over != nil {
		over.Fail(&link.CloseError{Code: session.CloseTimeout, Reason: "the rest of a message does not come, nor an answer", Err: link.ErrSlow})
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

// slowPartsLocked takes what makes too little progress out of the parts. over is
// the link over which nobody is heard any more, nil: none.
func (c *Conn) slowPartsLocked() (slow []*assembly, over *session.Carrier) {
	if c.pace.link == nil || c.pace.link != c.carrierLocked() {
		return nil, nil // there was none for all of the time
	}
	least := c.config.Limits.Least(flow.RateWindow)
	enough := int(least - min(least/4, segment))
	heard, partway := c.heardLocked()
	old := false
	for key, a := range c.partial {
		if !a.seen || a.over {
			continue
		}
		old = true
		switch {
		case a.came >= enough:
			a.came, a.looks, a.silent, a.excused = 0, 0, 0, 0
		case !heard:
			a.silent++
		case partway && a.excused < mostExcused:
			a.excused++
		default:
			a.looks++
		}
		if a.looks >= looksKept || a.silent >= mostSilent {
			slow = append(slow, a)
			c.endSlowLocked(key, a)
		}
	}
	if old && c.pace.silent >= looksKept {
		over = c.pace.link
	}
	return slow, over
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
