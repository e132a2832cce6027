package engine

import (
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// lane runs a session's notifications and Serial calls one after another. Its
// fields are under Conn.mu. Its goroutine exists while there is work.
type lane struct {
	queue   flow.Ring[waiter]
	pack    packer // of the small payloads in queue
	running bool
	ran     int      // requests that have been run
	current *Inbound // the notification being handled
	bytes   int      // of the notifications in queue, with their overhead
	held    int      // bytes of the account that those take
	taken   int      // notifications handled and not credited yet …
	spent   int      // … and their bytes
	leaver  leaver
}

// waiter is a call or notification in its place on the lane. A notification has
// its record made when its turn comes: until then it takes little more than its
// bytes.
type waiter struct {
	in      *Inbound // a Serial call; nil: a notification
	name    string
	meta    map[string]string
	payload Item
	whole   bool // payload's buffer holds nothing else
	dropped bool // nobody takes it
	cost    int32
	held    int32
}

// waiterOverhead is what a waiter takes in the queue, which grows by doubling,
// and a payload beside its bytes.
const waiterOverhead = 160

func (l *lane) busy() bool { return l.running || l.queue.Len() > 0 }

// laneLocked appends w and starts the lane if it rests.
func (c *Conn) laneLocked(w waiter) {
	l := c.lane
	l.queue.Push(w)
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
	for ran := 0; ; ran = 1 {
		c.mu.Lock()
		l.ran += ran
		l.ranLocked()
		if c.lane != l || l.queue.Len() == 0 {
			l.running = false
			c.checkIdleLocked()
			c.mu.Unlock()
			rested = true
			return
		}
		w := l.queue.Pop()
		in := w.in
		l.leaver.nextLocked()
		if in != nil {
			c.startLocked(in)
		} else {
			c.running++ // its record is made without the lock
		}
		c.mu.Unlock()
		if in != nil {
			in.begin()
		} else {
			c.runNotification(l, &w)
		}
	}
}

// dropLaneLocked gives up what a session that is over has on the lane.
func (c *Conn) dropLaneLocked() {
	l := c.lane
	if l == nil {
		return
	}
	if !l.leaver.any() {
		c.emptyLaneLocked()
		c.lane = nil
		return
	}
	for l.queue.Len() > l.leaver.waits {
		c.dropWaiterLocked(l, l.queue.PopLast(), false)
	}
	l.bytes, l.taken, l.spent = 0, 0, 0
}

// emptyLaneLocked gives up what the lane has not begun. The peer is credited for
// it, as for what it has handled: it may wait for that before it closes, too.
func (c *Conn) emptyLaneLocked() {
	l := c.lane
	if l == nil {
		return
	}
	for l.leaver.waits > 0 {
		l.leaver.waits--
		c.dropWaiterLocked(l, l.queue.Pop(), true)
	}
	for l.queue.Len() > 0 {
		c.dropWaiterLocked(l, l.queue.Pop(), false)
	}
	l.pack.rest()
	c.creditLaneLocked()
}

// dropWaiterLocked gives up what was taken from the queue, unbegun. left says that its
// peer has left.
func (c *Conn) dropWaiterLocked(l *lane, w waiter, left bool) {
	if in := w.in; in != nil {
		in.body.Release()
		if left {
			c.endedLocked(in, int64(status.Unavailable), true)
			c.account.Give(int(in.held))
			in.held = 0
		}
		return
	}
	c.noteDroppedLocked(&w)
	w.payload.Release()
	l.held -= int(w.held)
	c.account.Give(int(w.held))
	if !left {
		l.tookLocked(int(w.cost))
	}
}

// tookLocked notes a notification that nobody waits for any more.
func (l *lane) tookLocked(cost int) {
	l.bytes -= cost
	l.taken++
	l.spent += cost
}

// creditLaneLocked gives CREDIT when half of the window has been consumed or
// nothing waits: no sequence of sizes can then make both sides wait.
func (c *Conn) creditLaneLocked() {
	if l := c.lane; c.dialect != session.Plain && (l.spent >= c.config.Limits.Window/2 || l.bytes == 0) {
		c.credits += l.taken
		l.taken, l.spent = 0, 0
	}
}

// notified takes a NOTIFY; body is the buffer that the payload lives in, nil if
// there is none. MORE marks one whose rest was not taken.
func (c *Conn) notified(f *wire.Frame, body *buf.Buf) error {
	cost := len(f.Payload) + flow.MetaSize(f.Meta) + flow.MessageOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane
	// The sender may have one message out whatever its size, and its view of
	// the window is a round trip old: twice the window is tolerated. A plain
	// peer knows of no window and has the whole budget.
	held, most := l.bytes, 2*c.config.Limits.Window+c.config.Limits.MaxMessage
	if c.dialect == session.Plain {
		held, most = l.held, c.config.Limits.MaxBuffered
	}
	if held > 0 && held+cost > most {
		body.Release()
		return &link.CloseError{Code: session.CloseFlood, Reason: "notifications beyond the announced window"}
	}
	w := waiter{name: f.Method, meta: f.Meta, cost: int32(cost)}
	switch {
	case !Fits(f.Payload, c.config.Limits.MaxMessage), f.Flags&wire.More != 0, c.closing:
		// Dropped, and credited in its turn: it keeps its place in the queue.
		w.dropped = true
		body.Release()
	case body != nil:
		w.payload, w.whole = Item{buf: body, n: uint32(len(body.B))}, true
	case l.busy():
		w.payload = l.pack.put(f.Payload, true)
		w.whole = len(f.Payload) > packMost
	default:
		w.payload, w.whole = Item{buf: buf.Copy(f.Payload), n: uint32(len(f.Payload))}, true
	}
	w.held = int32(len(f.Method) + flow.MetaCost(f.Meta) + waiterOverhead)
	if w.whole {
		w.held += int32(w.payload.buf.Size())
	} else {
		w.held += int32(len(w.payload.bytes()))
	}
	if !c.account.Has(int(w.held)) { // nobody is told of a notification that is not taken
		w.payload.Release()
		return &link.CloseError{Code: session.CloseBudget, Reason: "the server is nearly full, and the notifications of this connection pass its share of it"}
	}
	l.bytes += cost
	l.held += int(w.held)
	c.account.Force(int(w.held))
	c.laneLocked(w)
	return nil
}

// runNotification makes the record of a notification whose turn has come, and
// has it handled.
func (c *Conn) runNotification(l *lane, w *waiter) {
	in, nobody := c.owner.Find(w.name, KindNotification, w.meta)
	in.conn, in.Kind, in.ordered, in.asked = c, KindNotification, true, &unasked
	in.cost, in.held = w.cost, w.held
	defer c.notificationDone(l, in, int(w.held)) // also when a handler ends the goroutine
	c.mu.Lock()
	live := c.lane == l && !c.closing && !c.Ended()
	if live {
		in.sess = c.sess
		l.current = in
	}
	in.begun = true
	in.body = w.payload.buf
	if !w.whole {
		in.body = buf.Copy(w.payload.bytes())
		w.payload.Release()
	}
	if live && !w.dropped && nobody == nil {
		c.decodesLocked(in)
	}
	c.account.Serve(int(in.held))
	c.mu.Unlock()
	in.timed()
	switch {
	case !live:
		in.record(int64(status.Unavailable), true)
	case nobody != nil:
		if !wire.MayBeIgnored(in.Record.Name()) {
			c.config.Logger.Warn("typedrpc: notification dropped: nobody handles it", "method", in.Record.Name())
		}
		in.record(int64(status.Unimplemented), true)
	case w.dropped:
		c.config.Logger.Warn("typedrpc: notification dropped: larger than Limits.MaxMessage", "method", in.Record.Name())
		in.record(int64(status.ResourceExhausted), true)
	default:
		_, _, err := c.owner.Run(in)
		code := int64(0)
		if e, ok := err.(*status.Error); ok {
			code = int64(e.Code)
		}
		in.record(code, false)
	}
}

// notificationDone gives back a notification's part of the window. held is what
// was counted while it waited.
func (c *Conn) notificationDone(l *lane, in *Inbound, held int) {
	in.over()
	in.dropRequest()
	c.mu.Lock()
	l.held -= held
	c.returnedLocked(in, 0)
	l.current = nil
	if c.lane != l {
		c.mu.Unlock()
		return
	}
	if !l.leaver.current {
		l.tookLocked(int(in.cost))
	}
	if l.queue.Len() == 0 {
		l.pack.rest()
	}
	c.creditLaneLocked()
	c.unlockAndWake()
}
