package engine

import (
	"errors"
	"time"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/stats"
)

// What the program's Recorder is told, without Conn.mu. Where there is none each place
// asks that, and does no more.

// Known is the declaration's name, "" if that is a peer's.
func (d *Decl) Known() string {
	if d == nil || d.Foreign {
		return ""
	}
	return d.Name
}

// record tells of a call of ours that is settled.
func (cl *Call) record(err *status.Error) {
	c := cl.Conn
	e := stats.Call{Conn: c.owner.Conn(), Method: cl.Decl.Known(), Kind: stats.Kind(cl.Decl.Kind), Outgoing: true, Attempts: max(cl.attempts, 1)}
	if !cl.began.IsZero() {
		e.Duration = time.Since(cl.began)
	}
	if err != nil {
		e.Code, e.NotRun = int64(err.Code), err.Outcome == status.NotSent
	} else {
		e.Attempts = cl.attempts + 1
	}
	c.config.Recorder.Call(e)
}

// recordNotify tells of a notification of ours.
func (c *Conn) recordNotify(d *Decl, err *status.Error) {
	e := stats.Call{Conn: c.owner.Conn(), Method: d.Known(), Kind: stats.Notification, Outgoing: true, Attempts: 1}
	if err != nil {
		e.Code, e.NotRun = int64(err.Code), true
	}
	c.config.Recorder.Call(e)
}

// record tells of a request that came and has ended.
func (in *Inbound) record(code int64, notRun bool) {
	c := in.conn
	if c.config.Recorder == nil {
		return
	}
	e := stats.Call{Conn: c.owner.Conn(), Method: in.Record.Decl().Known(), Kind: stats.Kind(in.Kind), Code: code, NotRun: notRun}
	if in.keyed != nil && !notRun {
		e.Duration = time.Since(in.keyed.arrived)
	}
	c.config.Recorder.Call(e)
}

// unheard is a request that has ended under mu, with code.
type unheard struct {
	in     *Inbound // nil: a notification that has no record yet …
	name   string   // … of this name
	code   int64
	notRun bool
}

// endedLocked has the Recorder told, when mu is given back, of a request that has ended.
func (c *Conn) endedLocked(in *Inbound, code int64, notRun bool) {
	if c.config.Recorder != nil {
		c.unheardLocked(unheard{in: in, code: code, notRun: notRun})
	}
}

// noteDroppedLocked is endedLocked for a notification that no handler will see.
func (c *Conn) noteDroppedLocked(w *waiter) {
	if c.config.Recorder != nil {
		c.unheardLocked(unheard{name: w.name, code: int64(status.Unavailable), notRun: true})
	}
}

func (c *Conn) unheardLocked(u unheard) {
	if c.unheard == nil {
		c.unheard = new([]unheard)
	}
	*c.unheard = append(*c.unheard, u)
}

func (c *Conn) tellOf(all []unheard) {
	for i := range all {
		u := &all[i]
		if u.in == nil {
			u.in, _ = c.owner.Find(u.name, KindNotification, nil)
			u.in.conn, u.in.Kind = c, KindNotification
		}
		u.in.record(u.code, u.notRun)
	}
}

// timed notes when a request came, where somebody is told how long it took.
func (in *Inbound) timed() {
	if in.conn.config.Recorder != nil && in.keyed == nil {
		in.keyed = &keyed{arrived: time.Now(), none: true}
	}
}

// record tells of an item.
func (x *Stream) record(sent bool, bytes int) {
	c := x.conn
	c.config.Recorder.Item(stats.Item{Conn: c.owner.Conn(), Method: x.decl.Known(), Outgoing: x.calling != nil, Sent: sent, Bytes: bytes})
}

// linkage is what was told of the link. Under Conn.mu.
type linkage struct {
	up    bool  // that there is one …
	begun bool  // … and that its session has begun
	since int64 // when it came up, by the wall clock
}

// setLocked notes the link that there is now, or that there is none.
func (l *linkage) setLocked(up bool) (was linkage) {
	was = *l
	l.up, l.since = up, time.Now().UnixNano()
	return was
}

// recordUp tells of a link, the first of a session or another one.
func (c *Conn) recordUp(was linkage) {
	r, conn, dialled := c.config.Recorder, c.owner.Conn(), c.config.Heals
	if was.up {
		r.Link(stats.Link{Conn: conn, Dialled: dialled, End: stats.EndReplaced, Duration: was.lived()})
	}
	r.Link(stats.Link{Conn: conn, Dialled: dialled, Up: true})
	event := stats.SessionBegun
	if was.begun {
		event = stats.SessionResumed
	}
	r.Session(stats.Session{Conn: conn, Dialled: dialled, Event: event})
}

// recordDown tells of the end of a link, and with over of its session.
func (c *Conn) recordDown(was linkage, cause error, over bool) {
	r, conn, dialled, end := c.config.Recorder, c.owner.Conn(), c.config.Heals, endOf(cause)
	if was.up {
		r.Link(stats.Link{Conn: conn, Dialled: dialled, End: end, Duration: was.lived()})
	}
	if over && was.begun {
		r.Session(stats.Session{Conn: conn, Dialled: dialled, Event: stats.SessionEnded, End: end})
	}
}

func (l linkage) lived() time.Duration { return max(time.Since(time.Unix(0, l.since)), 0) }

// endOf is the reason of an end, of a few.
func endOf(cause error) stats.End {
	switch {
	case errors.Is(cause, session.ErrGrace):
		return stats.EndGrace
	case errors.Is(cause, session.ErrEvicted):
		return stats.EndEvicted
	case errors.Is(cause, link.ErrSilent), errors.Is(cause, link.ErrStalled), errors.Is(cause, link.ErrSlow):
		return stats.EndSilent
	}
	var ce *link.CloseError
	if !errors.As(cause, &ce) {
		var e *status.Error
		if errors.As(cause, &e) { // this side has closed it
			return stats.EndClosed
		}
		return stats.EndBroken
	}
	switch ce.Code {
	case 0:
		return stats.EndBroken
	case session.CloseDone, session.CloseGoingAway, session.CloseRestart, session.CloseOverload:
		return stats.EndClosed
	case session.CloseTimeout:
		return stats.EndSilent
	case session.CloseSuperseded:
		return stats.EndReplaced
	case session.CloseBudget:
		return stats.EndMemory
	case session.CloseUnauthed, session.CloseForbidden:
		return stats.EndIdentity
	case session.CloseProtocol, session.CloseTooBig, session.CloseFlood:
		return stats.EndViolation
	}
	return stats.EndBroken
}
