package engine

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

const (
	// LeaveTime bounds how long what a plain peer had sent before it left goes on being run.
	LeaveTime = 30 * time.Second
	// StuckTime is how long one handler of it may take: somebody who sends what does not
	// come to an end, and leaves, is not to hold it for longer.
	StuckTime = 4 * time.Second
)

// leaver is the plain peer of a session that it closed itself, if something of it is on
// the lane. What had arrived until then is run, as if it were still there: it knows no
// credits to wait for before it closes. Under Conn.mu.
type leaver struct {
	waits   int           // how many of the lane's queue are its, the oldest
	current bool          // and what runs at the moment is
	timer   *time.Timer   // gives up: a handler that takes too long, or all at …
	until   time.Time     // … this time
	out     chan struct{} // closed when all has been run, or given up; nil: nobody waits
}

func (v *leaver) any() bool { return v.waits > 0 || v.current }

// leftLocked reports whether a session that ends for cause does because its peer, a plain
// one, has closed it, and did not merely go.
func (c *Conn) leftLocked(cause error) bool {
	var ce *link.CloseError
	return c.dialect == session.Plain && errors.As(cause, &ce) && ce.Remote && !c.closing && c.ctx.Err() == nil
}

// leaveLocked takes the end of a session whose peer has closed it: what it sent keeps
// its place on the lane, and calls that wait for room for their replies come behind it.
// Nothing of it is credited. It reports whether there is anything.
func (c *Conn) leaveLocked() bool {
	l := c.lane
	if l == nil || l.held > c.config.Limits.MaxBuffered {
		return false
	}
	for _, in := range c.parked {
		c.laneLocked(waiter{in: in})
	}
	c.parked = nil
	if !l.busy() {
		return false
	}
	for i := range l.queue.Len() {
		if in := l.queue.At(i).in; in != nil {
			in.begun = true // it keeps what it holds, as one that runs
		}
	}
	v := &l.leaver
	v.waits, v.current = l.queue.Len(), l.running
	l.bytes, l.taken, l.spent = 0, 0, 0
	if v.timer != nil {
		v.timer.Stop()
	}
	v.until = time.Now().Add(LeaveTime)
	v.timer = time.AfterFunc(StuckTime, func() { c.giveUpLane(l, true) })
	return true
}

// nextLocked is called when the oldest of the queue has been taken from it.
func (v *leaver) nextLocked() {
	if v.waits > 0 {
		v.waits--
		v.current = true
		v.timer.Reset(max(min(StuckTime, time.Until(v.until)), 1))
	}
}

// ranLocked is called when nothing of the lane is running.
func (l *lane) ranLocked() {
	if v := &l.leaver; v.current {
		if v.current = false; v.waits == 0 {
			l.goneLocked()
		}
	}
}

// goneLocked notes that nothing of a leaver's is on the lane any more.
func (l *lane) goneLocked() {
	v := &l.leaver
	if v.timer != nil {
		v.timer.Stop()
	}
	if v.out != nil {
		close(v.out)
	}
	*v = leaver{}
}

// LaneRan is how many requests of the lane have been run, and whether there are more.
func (c *Conn) LaneRan() (n int, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane
	if l == nil {
		return 0, false
	}
	return l.ran, l.busy()
}

// giveUpLane drops what of a leaver's requests has not been run, and lets what has come
// since go on without them. late says that their time is over.
func (c *Conn) giveUpLane(l *lane, late bool) {
	c.mu.Lock()
	v := &l.leaver
	if c.lane != l || !v.any() {
		c.mu.Unlock()
		return
	}
	if late {
		c.config.Logger.Warn("typedrpc: what a peer had sent before it left is given up: its handlers take too long", "dropped", v.waits)
	}
	for ; v.waits > 0; v.waits-- {
		c.dropWaiterLocked(l, l.queue.Pop(), true)
	}
	c.polite = false
	var stuck *Inbound
	if v.current {
		stuck = l.current
		c.replaceLaneLocked()
	}
	l.goneLocked()
	c.checkIdleLocked()
	c.unlockAndTell()
	if stuck != nil {
		stuck.cancel()
	}
}

// replaceLaneLocked lets what waits go on behind a handler that does not return.
func (c *Conn) replaceLaneLocked() {
	old := c.lane
	c.lane = &lane{bytes: old.bytes, taken: old.taken, spent: old.spent}
	for old.queue.Len() > 0 {
		w := old.queue.Pop()
		old.held -= int(w.held)
		c.lane.held += int(w.held)
		c.laneLocked(w)
	}
	old.pack.rest()
}

// leaving is closed when all has been run that a peer had sent before it left, or was
// given up; nil: nothing is there.
func (c *Conn) leaving() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lane == nil || !c.lane.leaver.any() {
		return nil
	}
	v := &c.lane.leaver
	if v.out == nil {
		v.out = make(chan struct{})
	}
	return v.out
}

// RunOut waits until all has been run that a peer had sent before it left, but not for
// long, nor beyond the end of the connection. Nobody is there to be answered.
func (c *Conn) RunOut() {
	if out := c.leaving(); out != nil {
		select {
		case <-out:
		case <-c.ctx.Done():
		}
	}
}

// Ended reports whether nothing of the peer's is to begin any more: the connection
// was closed, or the context that it lives by has ended. What a peer sent that has left
// since may begin. Without locks: every handler is asked for before it begins.
func (c *Conn) Ended() bool { return c.ctx.Err() != nil && !c.parted.Load() }

// End ends a session, whether it has a link or not.
func (c *Conn) End(sess *session.Session, cause error) {
	if sess.End(cause) {
		c.keeper.Over(cause)
	}
	c.forsake(sess)
}

// forsake gives up what the peer of a session has left behind: it is not to be run any
// more.
func (c *Conn) forsake(sess *session.Session) {
	c.mu.Lock()
	l := c.lane
	if c.sess == sess || l == nil || !l.leaver.any() {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.giveUpLane(l, false)
}

// CallersLeft ends the contexts of all calls that came: their callers are not there any
// more, or may not be. Calls with a key go on, for the one who asks again.
func (c *Conn) CallersLeft() {
	c.mu.Lock()
	calls := slices.Collect(maps.Values(c.inbound))
	c.mu.Unlock()
	for _, in := range calls {
		if !in.Keyed() {
			in.cancel()
		}
	}
}

// Asked reports whether a plain peer has made calls.
func (c *Conn) Asked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastIn > 0
}
