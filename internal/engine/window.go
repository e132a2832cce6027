package engine

import (
	"fmt"
	"time"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// sums are bytes of all streams together, beside the account. One
// stream's window is its own. Under Conn.mu.
type sums struct {
	sentItems int // bytes of items that the peer has not credited
	unread    int // bytes of items that nobody has received yet, and of what is being assembled
	out       int // bytes of items that came and are not credited …
	spent     int // … and of them, of those that were consumed while CREDIT is not due
	grown     int // bytes that windows have grown by
}

// give gives back bytes that were unread, here and to the server.
func (c *Conn) give(n int) {
	c.unread -= n
	c.account.Give(n)
}

// maxWindow is what a stream's window may grow to (docs/design.md).
const maxWindow = 1 << 20

// window is the receiver's side of a stream's flow control.
type window struct {
	size  int // granted
	out   int // bytes received and not credited
	taken int // items consumed and not credited yet …
	spent int // … and their bytes

	due      int // items to credit with the next CREDIT …
	dueBytes int // … and their bytes
	grown    bool
	prompt   bool // the sender asked for it, with the last item

	// when the window was last consumed once over
	since   time.Time
	once    int // bytes since then …
	largest int // … and the largest item of them
}

// receivedLocked accounts for an item that was handed over.
func (x *Stream) receivedLocked(cost int) {
	c, w := x.conn, &x.window
	c.give(cost)
	if x.got.Len() == 0 {
		x.gotPack.rest()
	}
	w.taken++
	w.spent += cost
	c.spent += cost
	w.largest = max(w.largest, cost)
	// CREDIT is due when half of the window has been consumed or nothing more
	// waits, but for the slack: no sequence of sizes can then make both sides wait. What all
	// streams have consumed counts in the budget until then, and may be no more than its slack:
	// a handler that does not go on may wait for what another stream brings.
	if w.spent >= w.size/2 || x.got.Len() == 0 || c.spent > c.budgetSlack() {
		x.creditLocked()
	}
}

// creditLocked makes CREDIT due for what has been consumed.
func (x *Stream) creditLocked() {
	c, w := x.conn, &x.window
	if x.fed != nil {
		x.roomFedLocked()
		return
	}
	if x.sess == nil || x.sess != c.sess {
		x.unspendLocked()
		return // nobody needs it: the stream has ended
	}
	if w.due == 0 {
		c.creditors = append(c.creditors, x)
	}
	w.due += w.taken
	w.dueBytes += w.spent
	x.growLocked(w.spent)
	x.unspendLocked()
	// No item comes from a sender that has ended its side, and would bring its credit along; a
	// handler that answers nothing else is about to return.
	c.prompt = c.prompt || w.prompt || w.grown || x.over && x.sends || x.pressingLocked()
}

// unspendLocked is called when CREDIT is due for what has been consumed, or never will be.
func (x *Stream) unspendLocked() {
	w := &x.window
	x.conn.spent -= w.spent
	w.taken, w.spent = 0, 0
}

// pressingLocked reports whether what is due to the sender may hold it back, and so is not
// left for the next message that goes: all that came of the stream and is not credited is more
// than the slack of the first window, or all of all streams more than that of the
// budget. Then the sender, which counts what is under way besides, may have no slack
// left. The first window, since the sender's may be smaller than ours for as long as a
// CREDIT takes, and a long path loses no more than that.
func (x *Stream) pressingLocked() bool {
	first := min(x.conn.config.Limits.Window, mostPeerWindow)
	return x.window.out > flow.Slack(first) || x.conn.pressingLocked()
}

// pressingLocked is that of all streams.
func (c *Conn) pressingLocked() bool { return c.out > c.budgetSlack() }

// budgetSlack is the slack of what senders use of our budget.
func (c *Conn) budgetSlack() int {
	return flow.Slack(min(c.config.Limits.MaxBuffered, mostPeerBudget))
}

// growLocked widens the window of a sender that the window holds back, and not
// the receiver or the path: one whose window is consumed once over in about one
// round trip (docs/design.md).
func (x *Stream) growLocked(bytes int) {
	c, w := x.conn, &x.window
	if w.size >= maxWindow {
		return
	}
	w.once += bytes
	// A sender is held back from where its next item does not fit: of large
	// ones the window holds few, or one alone.
	if w.once <= w.size-w.largest {
		return
	}
	now := time.Now()
	took := now.Sub(w.since)
	first := w.since.IsZero()
	w.since, w.once, w.largest = now, 0, 0
	c.sess.Probe()
	if rtt := c.sess.RTT(); first || took >= rtt*3/2 {
		return
	}
	more := min(w.size, maxWindow-w.size)
	if c.grown+more > c.config.Limits.MaxBuffered/2 || c.account.Pressed() {
		return
	}
	w.size += more
	c.grown += more
	w.grown = true
}

// takeCreditLocked adds the CREDIT that is due for the stream.
func (x *Stream) takeCreditLocked(b *session.Batch) {
	w := &x.window
	if x.sess == nil || x.sess != x.conn.sess || w.due == 0 {
		w.due, w.dueBytes = 0, 0
		return // it has ended meanwhile
	}
	f := wire.Frame{Type: wire.Credit, ID: x.id, Items: uint64(w.due)}
	if x.calling != nil {
		f.Flags = wire.FromCaller
	}
	if w.grown {
		f.Window = uint64(w.size)
	}
	x.returnLocked(w.dueBytes)
	w.due, w.dueBytes, w.grown = 0, 0, false
	b.Add(&f, nil)
}

// shrinkLocked gives back what the window has grown by.
func (x *Stream) shrinkLocked() {
	if x.inlet == nil {
		return
	}
	c := x.conn
	if more := x.window.size - c.config.Limits.Window; more > 0 {
		c.grown -= more
		x.window.size -= more
	}
}

// returnLocked notes that n bytes of items are credited, or will not be.
func (x *Stream) returnLocked(n int) {
	x.window.out -= n
	x.conn.out -= n
}

// credited takes the peer's CREDIT.
func (c *Conn) credited(f *wire.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.ID != 0 {
		return c.creditedStreamLocked(f)
	}
	if _, ok := c.notify.Credit(f.Items); !ok {
		return protocolError(fmt.Sprintf("credit for %d notifications that were not sent", f.Items))
	}
	c.account.Force(c.notify.Grown())
	if f.Window > 0 {
		c.notify.Window = int(min(f.Window, mostPeerWindow))
	}
	c.freedLocked()
	if c.notify.Used == 0 {
		c.checkIdleLocked()
	}
	return nil
}

func (c *Conn) creditedStreamLocked(f *wire.Frame) error {
	x, known := c.streamLocked(f.ID, f.Flags&wire.FromCaller != 0)
	switch {
	case !known || x != nil && !x.sends:
		return c.offendedLocked()
	case x == nil || x.closed && x.flow.Used == 0:
		return nil // it has ended
	}
	bytes, ok := x.flow.Credit(f.Items)
	if !ok {
		return protocolError(fmt.Sprintf("credit for %d items that were not sent", f.Items))
	}
	c.sentItems -= bytes
	if f.Items > 0 { // else it may have none, see unsent
		c.account.Force(x.flow.Grown())
	}
	if x.pace != nil && x.sess != nil {
		x.pace.Credited(int(f.Items), x.sess.RTT())
	}
	if f.Window > 0 {
		x.grantLocked(int(min(f.Window, mostPeerWindow)))
	}
	if x.rest.handler != nil { // others have a goroutine, and most are about to send again
		x.restOutletLocked()
	}
	x.roomLocked()
	c.freedLocked()
	return nil
}
