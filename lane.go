package typedrpc

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// lane runs a session's notifications and Serial calls one after another. Its
// fields are under Conn.mu. Its goroutine exists while there is work.
type lane struct {
	queue   []*inbound
	running bool
	current *inbound // the notification being handled
	bytes   int      // of the notifications in queue, with their overhead
	taken   int      // notifications handled and not credited yet …
	spent   int      // … and their bytes
}

func (l *lane) busy() bool { return l.running || len(l.queue) > 0 }

// laneLocked appends in and starts the lane if it rests.
func (c *Conn) laneLocked(in *inbound) {
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
		in.begun = true
		c.mu.Unlock()
		if in.req.Kind == KindNotification {
			c.runNotification(l, in)
		} else {
			in.run()
		}
	}
}

// notified takes a NOTIFY; body is the buffer that the payload lives in, nil if
// there is none. MORE marks one whose rest was not taken.
func (c *Conn) notified(f *wire.Frame, body *buf.Buf) error {
	in := &inbound{
		req:     Request{Method: f.Method, Kind: KindNotification, Conn: c, Metadata: f.Meta},
		entry:   c.config.mux.lookup(f.Method, KindNotification),
		ordered: true,
	}
	cost := len(f.Payload) + Metadata(f.Meta).size() + messageOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane
	// The sender may have one message out whatever its size, and its view of
	// the window is a round trip old: twice the window is tolerated. A plain
	// peer knows of no window and has the whole budget.
	most := 2*c.config.limits.Window + c.config.limits.MaxMessage
	if c.dialect == session.Plain {
		most = c.config.limits.MaxBuffered
	}
	if l.bytes > 0 && l.bytes+cost > most {
		body.Release()
		return &link.CloseError{Code: session.CloseFlood, Reason: "notifications beyond the announced window"}
	}
	in.sess = c.sess
	switch {
	case in.entry == nil, len(f.Payload) > c.config.limits.MaxMessage, f.Flags&wire.More != 0, c.closing:
		// Dropped, and credited in its turn: it keeps its place in the queue.
		in.entry = nil
		body.Release()
	default:
		if body == nil {
			body = buf.Copy(f.Payload)
		}
		in.body = body
		in.req.Payload = in.body.B
		in.req.spec = in.entry.spec
	}
	l.bytes += cost
	in.cost = cost
	c.laneLocked(in)
	return nil
}

func (c *Conn) runNotification(l *lane, in *inbound) {
	defer c.notificationDone(l, in) // also when a handler ends the goroutine
	c.mu.Lock()
	live := c.lane == l
	if live {
		l.current = in
	}
	c.mu.Unlock()
	switch {
	case !live:
	case in.entry == nil:
		c.config.logger.Debug("typedrpc: notification dropped: no handler, or too large", "method", in.req.Method)
	default:
		c.runHandlers(in)
	}
}

// notificationDone gives back a notification's part of the window.
func (c *Conn) notificationDone(l *lane, in *inbound) {
	in.cancel(context.Canceled)
	in.body.Release()
	c.mu.Lock()
	l.current = nil
	if c.lane != l {
		c.mu.Unlock()
		return
	}
	l.bytes -= in.cost
	l.taken++
	l.spent += in.cost
	// CREDIT is due when half of the window has been consumed or nothing
	// waits: no sequence of sizes can then make both sides wait.
	if c.dialect != session.Plain && (l.spent >= c.config.limits.Window/2 || l.bytes == 0) {
		c.credits += l.taken
		l.taken, l.spent = 0, 0
	}
	wake, sess := c.wakeLocked(), c.sess
	c.mu.Unlock()
	if wake {
		sess.Wake()
	}
}

// runHandlers runs a notification's handlers in the order of registration. A
// method may be notified too: its response is dropped (JSON-RPC 2.0 section
// 4.1).
func (c *Conn) runHandlers(in *inbound) {
	handlers := in.entry.notify
	switch {
	case in.entry.raw != nil:
		handlers = []RawHandler{in.entry.raw}
	case in.entry.serve != nil:
		handlers = []RawHandler{func(ctx context.Context, r *Request) (Raw, error) {
			body, err := in.entry.serve(ctx, r)
			body.Release()
			return nil, err
		}}
	}
	for _, h := range handlers {
		_, err := in.invoke(h)
		switch CodeOf(err) {
		case 0, Unimplemented:
		case InvalidArgument, ResourceExhausted: // the peer's mistake, at the peer's rate
			c.config.logger.Debug("typedrpc: notification refused", "method", in.req.Method, "error", err)
		default:
			c.config.logger.Warn("typedrpc: notification handler failed", "method", in.req.Method, "error", err)
		}
	}
}
