package typedrpc

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

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

	// when the window was last consumed once over
	since   time.Time
	once    int // bytes since then …
	largest int // … and the largest item of them
}

// received takes an ITEM.
func (c *Conn) received(f *wire.Frame, body *buf.Buf) error {
	c.mu.Lock()
	x, err := c.receiverLocked(f)
	if x == nil {
		c.mu.Unlock()
		body.Release()
		return err
	}
	e := x.overLimitLocked(len(f.Payload))
	if e != nil {
		c.mu.Unlock()
		body.Release()
		x.fail(e)
		return nil
	}
	var p piece
	if body != nil {
		p = piece{buf: body, n: uint32(len(body.B))}
	} else {
		p = x.gotPack.put(f.Payload, x.got.len() > 0)
	}
	p.flags, p.dropped = f.Flags&wire.History, f.Dropped
	x.got.push(p)
	x.window.out += p.cost()
	c.unread += p.cost()
	first := x.got.len() == 1
	c.mu.Unlock()
	if first {
		signal(x.arrived)
	}
	return nil
}

// receiverLocked finds the stream that takes the ITEM f. nil: it is dropped,
// silently if the stream has ended.
func (c *Conn) receiverLocked(f *wire.Frame) (*exchange, error) {
	x, known := c.exchangeLocked(f.ID, f.Flags&wire.FromCaller != 0)
	switch {
	case !known || x != nil && !x.takes:
		return nil, c.offendedLocked()
	case x == nil || x.over || x.failed != nil:
		return nil, nil
	}
	return x, nil
}

// endReceived takes an END: the caller sends no more items.
func (c *Conn) endReceived(f *wire.Frame) error {
	c.mu.Lock()
	x, known := c.exchangeLocked(f.ID, true)
	if !known || x == nil && c.inbound[f.ID] != nil || x != nil && !x.takes {
		defer c.mu.Unlock()
		return c.offendedLocked()
	}
	if x != nil {
		x.over = true
	}
	c.mu.Unlock()
	if x != nil {
		signal(x.arrived)
	}
	return nil
}

// exchangeLocked finds the stream that a frame with id is for. known says that
// there has been such a call.
func (c *Conn) exchangeLocked(id uint64, fromCaller bool) (x *exchange, known bool) {
	if fromCaller {
		if in := c.inbound[id]; in != nil {
			return in.exchange, true
		}
		return nil, id <= c.lastIn
	}
	if cl := c.pending[id].call; cl != nil {
		return cl.exchange, true
	}
	return nil, id <= c.nextID
}

// overLimitLocked says why an item of n bytes cannot be taken: then the stream
// fails, and not the link. The item's bytes are in the budgets if it can.
func (x *exchange) overLimitLocked(n int) *Error {
	c, w := x.conn, &x.window
	limits := &c.config.limits
	cost := n + messageOverhead
	if most := x.spec.sizeLimit(limits.MaxMessage); n > most {
		return Errorf(ResourceExhausted, "an item of %q has %d bytes, at most %d are taken", x.spec.name, n, most)
	}
	// The peer may have one item out whatever its size. Beyond its window it
	// has no business; twice that is tolerated (PROTOCOL.md section 3).
	if w.out > 0 && w.out+cost > 2*w.size {
		return Errorf(ResourceExhausted, "the peer of %q sends beyond its window of %d bytes", x.spec.name, w.size)
	}
	if c.unread > 0 && c.unread+cost > c.mostUnread() {
		return Errorf(ResourceExhausted, "%d bytes of items and fragments have not been received, no more are taken", c.unread)
	}
	if !c.config.budget.take(cost) {
		return errBusy("an item")
	}
	return nil
}

// mostUnread bounds what a peer can make us hold of items and fragments. One
// that keeps to PROTOCOL.md section 3 has at most our budget and as much in
// small items, or one message, and our budget in fragments of answers.
func (c *Conn) mostUnread() int {
	l := &c.config.limits
	return 3*l.MaxBuffered + l.MaxMessage + l.MaxCalls*smallItem
}

// receivedLocked accounts for an item that was handed over.
func (x *exchange) receivedLocked(cost int) {
	c, w := x.conn, &x.window
	c.unread -= cost
	c.config.budget.give(cost)
	if x.got.len() == 0 {
		x.gotPack.rest()
	}
	w.taken++
	w.spent += cost
	w.largest = max(w.largest, cost)
	// CREDIT is due when half of the window has been consumed or nothing more
	// waits: no sequence of sizes can then make both sides wait.
	if w.spent >= w.size/2 || x.got.len() == 0 {
		x.creditLocked()
	}
}

// creditLocked makes CREDIT due for what has been consumed.
func (x *exchange) creditLocked() {
	c, w := x.conn, &x.window
	if x.over && !x.sends || x.sess == nil || x.sess != c.sess {
		return // nobody needs it: the stream has ended, or is about to
	}
	if w.due == 0 {
		c.creditors = append(c.creditors, x)
	}
	w.due += w.taken
	w.dueBytes += w.spent
	x.growLocked(w.spent)
	w.taken, w.spent = 0, 0
}

// growLocked widens the window of a sender that the window holds back, and not
// the receiver or the path: one whose window is consumed once over in about one
// round trip (docs/design.md).
func (x *exchange) growLocked(bytes int) {
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
	if c.grown+more > c.config.limits.MaxBuffered/2 || c.config.budget.pressed() {
		return
	}
	w.size += more
	c.grown += more
	w.grown = true
}

// takeCreditLocked adds the CREDIT that is due for the stream.
func (x *exchange) takeCreditLocked(b *session.Batch) {
	w := &x.window
	if x.sess == nil || x.sess != x.conn.sess || w.due == 0 {
		w.due, w.dueBytes = 0, 0
		return // it has ended meanwhile
	}
	f := wire.Frame{Type: wire.Credit, ID: x.id, Items: uint64(w.due)}
	if x.call != nil {
		f.Flags = wire.FromCaller
	}
	if w.grown {
		f.Window = uint64(w.size)
	}
	w.out -= w.dueBytes
	w.due, w.dueBytes, w.grown = 0, 0, false
	b.Add(&f, nil)
}

// dropReceivedLocked gives up what has come and was not received.
func (x *exchange) dropReceivedLocked() {
	c := x.conn
	for x.got.len() > 0 {
		p := x.got.pop()
		c.unread -= p.cost()
		c.config.budget.give(p.cost())
		p.buf.Release()
	}
	x.gotPack.rest()
	x.shrinkLocked()
}

// shrinkLocked gives back what the window has grown by.
func (x *exchange) shrinkLocked() {
	c := x.conn
	if more := x.window.size - c.config.limits.Window; more > 0 {
		c.grown -= more
		x.window.size -= more
	}
}

// credited takes the peer's CREDIT.
func (c *Conn) credited(f *wire.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.ID != 0 {
		return c.creditedStreamLocked(f)
	}
	if _, ok := c.notify.credit(f.Items); !ok {
		return protocolError(fmt.Sprintf("credit for %d notifications that were not sent", f.Items))
	}
	if f.Window > 0 {
		c.notify.window = int(min(f.Window, mostWindow))
	}
	c.movedLocked()
	if c.notify.used == 0 {
		c.checkIdleLocked()
	}
	return nil
}

func (c *Conn) creditedStreamLocked(f *wire.Frame) error {
	x, known := c.exchangeLocked(f.ID, f.Flags&wire.FromCaller != 0)
	switch {
	case !known || x != nil && !x.sends:
		return c.offendedLocked()
	case x == nil || x.closed && x.flow.used == 0:
		return nil // it has ended
	}
	bytes, ok := x.flow.credit(f.Items)
	if !ok {
		return protocolError(fmt.Sprintf("credit for %d items that were not sent", f.Items))
	}
	c.sentItems -= bytes
	if f.Window > 0 {
		x.flow.window = int(min(f.Window, mostWindow))
	}
	signal(x.room)
	c.movedLocked()
	return nil
}

// budget is what all connections of a server may hold together. A nil one has
// no bound.
type budget struct {
	max  int64
	used atomic.Int64
}

// take takes n bytes if they are there.
func (b *budget) take(n int) bool {
	if b == nil {
		return true
	}
	if used := b.used.Add(int64(n)); used > b.max && used > int64(n) {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// force takes n bytes whether they are there or not.
func (b *budget) force(n int) { b.give(-n) }

func (b *budget) give(n int) {
	if b != nil {
		b.used.Add(-int64(n))
	}
}

// pressed reports that half is in use: nobody gets more than the least.
func (b *budget) pressed() bool { return b != nil && b.used.Load() > b.max/2 }

func errBusy(what string) *Error {
	return Errorf(ResourceExhausted, "the server is holding all that it may for its connections; %s more is not taken", what)
}

// outgoingLocked is how many bytes may wait for the connection's socket, beside
// those that have left and are not acknowledged.
func (c *Conn) outgoingLocked() int {
	most := c.config.limits.MaxBuffered
	if c.sess != nil {
		most -= c.sess.Logged()
	}
	if c.config.budget.pressed() {
		most = min(most, fragment)
	}
	return most
}
