package engine

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// lane runs a session's notifications and Serial calls one after another. Its
// fields are under Conn.mu. Its goroutine exists while there is work.
type lane struct {
	queue   []*Inbound
	running bool
	current *Inbound // the notification being handled
	bytes   int      // of the notifications in queue, with their overhead
	taken   int      // notifications handled and not credited yet …
	spent   int      // … and their bytes
}

func (l *lane) busy() bool { return l.running || len(l.queue) > 0 }

// laneLocked appends in and starts the lane if it rests.
func (c *Conn) laneLocked(in *Inbound) {
	l := c.lane
	l.queue = append(l.queue, in)
	if !l.running {
		l.running = true
		go c.runLane(l)
	}
}

// runLane handles what is queued until nothing is.
func (c *Conn) runLane(l *lane) {
	rested := false
	defer func() {
		if !rested { // a handler ended this goroutine: go on with another
			go c.runLane(l)
		}
	}()
	for {
		c.mu.Lock()
		if len(l.queue) == 0 || c.lane != l {
			l.queue, l.running = nil, false
			c.checkIdleLocked()
			c.mu.Unlock()
			rested = true
			return
		}
		in := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		c.startLocked(in)
		c.mu.Unlock()
		if in.Kind == KindNotification {
			c.runNotification(l, in)
		} else {
			in.run()
		}
	}
}

// notified takes a NOTIFY; body is the buffer that the payload lives in, nil if
// there is none. MORE marks one whose rest was not taken.
func (c *Conn) notified(f *wire.Frame, body *buf.Buf) error {
	in, unknown := c.owner.Find(f.Method, KindNotification, f.Meta)
	in.conn, in.Kind, in.ordered = c, KindNotification, true
	cost := len(f.Payload) + flow.MetaSize(f.Meta) + flow.MessageOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane
	// The sender may have one message out whatever its size, and its view of
	// the window is a round trip old: twice the window is tolerated. A plain
	// peer knows of no window and has the whole budget.
	most := 2*c.config.Limits.Window + c.config.Limits.MaxMessage
	if c.dialect == session.Plain {
		most = c.config.Limits.MaxBuffered
	}
	if l.bytes > 0 && l.bytes+cost > most {
		body.Release()
		return &link.CloseError{Code: session.CloseFlood, Reason: "notifications beyond the announced window"}
	}
	in.sess = c.sess
	switch {
	case unknown != nil, len(f.Payload) > c.config.Limits.MaxMessage, f.Flags&wire.More != 0, c.closing:
		// Dropped, and credited in its turn: it keeps its place in the queue.
		in.dropped = true
		body.Release()
	default:
		if body == nil {
			body = buf.Copy(f.Payload)
		}
		in.body = body
	}
	l.bytes += cost
	in.cost = int32(cost)
	c.laneLocked(in)
	return nil
}

func (c *Conn) runNotification(l *lane, in *Inbound) {
	defer c.notificationDone(l, in) // also when a handler ends the goroutine
	c.mu.Lock()
	live := c.lane == l
	if live {
		l.current = in
	}
	c.mu.Unlock()
	switch {
	case !live:
	case in.dropped:
		c.config.Logger.Debug("typedrpc: notification dropped: no handler, or too large", "method", in.Record.Name())
	default:
		c.owner.Run(in)
	}
}

// notificationDone gives back a notification's part of the window.
func (c *Conn) notificationDone(l *lane, in *Inbound) {
	in.cancel(context.Canceled)
	in.body.Release()
	c.mu.Lock()
	c.returnedLocked(in)
	l.current = nil
	if c.lane != l {
		c.mu.Unlock()
		return
	}
	l.bytes -= int(in.cost)
	l.taken++
	l.spent += int(in.cost)
	// CREDIT is due when half of the window has been consumed or nothing
	// waits: no sequence of sizes can then make both sides wait.
	if c.dialect != session.Plain && (l.spent >= c.config.Limits.Window/2 || l.bytes == 0) {
		c.credits += l.taken
		l.taken, l.spent = 0, 0
	}
	c.unlockAndWake()
}
