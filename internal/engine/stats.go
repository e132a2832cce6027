package engine

import (
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// past is what the ended sessions of a connection have done.
type past struct {
	sessions int64
	load     stats.Load // what counts upwards
}

// passedLocked keeps what a session has done that ends.
func (c *Conn) passedLocked(sess *session.Session) {
	if c.past == nil {
		c.past = new(past)
	}
	n := sess.Numbers()
	c.past.sessions++
	c.past.load.Ended(&stats.Load{Sent: n.Sent, Received: n.Received, Resumes: resumes(n)})
}

// resumes is how often a session went on over another link.
func resumes(n session.Numbers) int64 { return max(n.Links-1, 0) }

// Stats are the connection's numbers.
func (c *Conn) Stats() (s stats.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.past; p != nil {
		s.Sessions = p.sessions
		s.Load.Ended(&p.load)
	}
	if c.sess != nil {
		n := c.sess.Numbers()
		s.Sessions++
		s.Linked, s.RoundTrip, s.Unacked = n.Linked, n.RTT, int64(n.Unacked)
		s.Load.Ended(&stats.Load{Sent: n.Sent, Received: n.Received, Resumes: resumes(n)})
	}
	limits := &c.config.Limits
	s.Buffered, s.Unread, s.Grown, s.Memory = int64(c.queued+c.unsent), int64(c.unread), int64(c.grown), c.account.Used()
	s.Out = stats.Places{Calls: c.slots, Streams: c.streams, Bytes: int64(c.held)}
	s.In = stats.Places{Calls: len(c.inbound), Streams: c.inflow, Bytes: int64(c.inBytes), Most: limits.MaxCalls, MaxBytes: int64(limits.MaxBuffered)}
	s.Waiting = c.waiting.len() + len(c.resting)
	if c.notify.Window > 0 { // else nothing is credited
		s.NotifyOut = stats.Window{Used: int64(c.notify.Used), Size: int64(c.notify.Window)}
	}
	s.ItemsOut.Used = int64(c.sentItems)
	if c.sess != nil {
		peer := &c.peer.limits
		s.Out.Most, s.Out.MaxBytes = int(bound(peer.Calls)), bound(peer.Budget)
		s.ItemsOut.Size = bound(peer.Budget)
	}
	if c.lane != nil {
		s.NotifyIn.Used = int64(c.lane.bytes)
	}
	if c.dialect != session.Plain {
		s.NotifyIn.Size = int64(limits.Window)
	}
	return s
}

// bound is a peer's limit, 0 if that is none.
func bound(n uint64) int64 {
	if n > math.MaxInt32 {
		return 0
	}
	return int64(n)
}

// Without is since when there is no link, and what the last one ended with; zero: there is
// one.
func (c *Conn) Without() (since time.Time, why *status.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outage.since, c.outage.why
}

// Tap begins to look at the frames of the session that there is; nil: there is none. See
// session.Tap.
func (c *Conn) Tap(payload int) *session.Tap {
	c.mu.Lock()
	sess := c.sess
	c.mu.Unlock()
	if sess == nil {
		return nil
	}
	return sess.Tap(payload)
}
