package engine

import (
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// dropQueueLocked gives up what can only go to the session that ended:
// replies, cancels and, when the connection is over, notifications.
func (c *Conn) dropQueueLocked() {
	c.gatherLocked()
	for it := c.queue.pop(); it != nil; it = c.queue.pop() {
		if it.turn != nil {
			it.turn.line.dropLocked(&c.outbox)
			continue
		}
		c.free(it.cost)
		it.body.Release()
	}
	c.account.Force(c.notify.Forget())
	c.cutting = 0
}

// unqueueLocked takes a frame out of the queue, wherever it waits there.
func (o *outbox) unqueueLocked(it *item) {
	it.list.remove(it)
	if it == o.midway {
		o.midway = nil
	}
	if it.sent > 0 {
		it.sent = 0
		o.uncutLocked(it.body.Len())
	}
}

// addLocked adds f, and reports whether more of its message has to follow. It
// takes over the reference to body with the last of it.
func (o *outbox) addLocked(b *session.Batch, f *wire.Frame, body *buf.Buf, sent *int32) (more bool) {
	if *sent == 0 && f.Flags&wire.More == 0 {
		b.Add(f, body)
		return false
	}
	if *sent == 0 {
		o.cutting += body.Len()
	}
	*sent += int32(len(f.Payload)) // a message is bounded
	if f.Flags&wire.More != 0 {
		b.Add(f, body.Retain())
		return true
	}
	o.uncutLocked(int(*sent))
	*sent = 0
	b.Add(f, body)
	return false
}

// uncutLocked ends a message that was leaving in fragments: others may begin.
func (o *outbox) uncutLocked(bytes int) {
	o.cutting -= bytes
	o.gatherLocked()
}

// gatherLocked puts what waits for others back to the front of the queue, in
// its order.
func (o *outbox) gatherLocked() {
	if o.large.len > 0 {
		o.queue.prepend(&o.large)
	}
	o.overtaken = false
}

// outgoingLocked is how many bytes may wait for the connection's socket, beside
// those that have left and are not acknowledged.
func (c *Conn) outgoingLocked() int {
	most := c.config.Limits.MaxBuffered
	if c.sess != nil {
		most -= c.sess.Logged()
	}
	if c.account.Pressed() {
		most = min(most, fragment)
	}
	return most
}

// outbox is what waits for the writer: its queues, whose turn it is, whether the
// writer knows, and who waits for room. It never settles a call. Under Conn.mu.
type outbox struct {
	queue     items // ready to be taken
	large     items // those that wait until another has left in fragments
	cutting   int   // bytes of messages that are leaving in fragments
	midway    *item // of them, the ordered one
	overtaken bool  // an ordered one waits in large, and so must those behind it
	woken     bool  // the writer knows that there is something to take
	queued    int   // bytes of replies, items and notifications in queue …
	unsent    int   // … and of replies that wait for room there
	credits   int   // notifications to credit
	creditors []*Stream
	prompt    bool          // … and some of it goes now, and not with the next message
	changed   chan struct{} // not nil while somebody in a line waits for more than its turn
	emptied   chan struct{} // not nil while somebody waits for the queue to be empty
	queuers   *lineup       // who waits for room in it, with replies, items and notifications
	payers    *spots        // who waits for the peer's budget, with items; nil: nobody has
	notifiers *lineup       // who waits to notify
	starved   []*Stream     // handlers at rest that wait for budget
	account   *flow.Account // counts what is queued, too
}

// hold counts n bytes in, and free out, that wait for the socket.
func (o *outbox) hold(n int) {
	o.queued += n
	o.account.Force(n)
}

func (o *outbox) free(n int) {
	o.queued -= n
	o.account.Give(n)
}

// wake reports whether the writer must be told, and notes that it is.
func (o *outbox) wake() bool {
	if o.woken || o.queue.len == 0 && o.credits == 0 && !o.prompt {
		return false
	}
	o.woken = true
	return true
}

// closedBy returns a channel that shut closes.
func closedBy(ch *chan struct{}) <-chan struct{} {
	if *ch == nil {
		*ch = make(chan struct{})
	}
	return *ch
}

func shut(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

// freedLocked has those look again who wait for room.
func (c *Conn) freedLocked() {
	c.payLocked()
	c.queuers.stir()
	c.notifiers.stir()
	shut(&c.emptied)
	if len(c.starved) > 0 {
		c.feedLocked()
	}
}

// gaveWayLocked is freedLocked where somebody has left a line, and queued nothing.
func (c *Conn) gaveWayLocked() {
	c.freedLocked()
	c.unparkLocked()
}

// movedLocked is freedLocked where something else may have changed that they wait for.
func (c *Conn) movedLocked() {
	c.freedLocked()
	shut(&c.changed)
}

// pushAnswer queues an answer that the reader gives itself.
func (o *outbox) pushAnswer(f wire.Frame) *item {
	cost := len(f.Message) + answerOverhead
	o.hold(cost)
	it := new(parcel).pack(f, nil, cost)
	o.queue.push(it)
	return it
}

// answerOverhead is what an answer of the reader's takes beside its text: the
// record of a frame.
const answerOverhead = 384

// overflow ends the link of a peer that makes us answer and does not read the
// answers: the reader cannot wait for it, so it has to go. Where the account has
// no more than a share, that bounds them too.
func (o *outbox) overflow(most int) error {
	if o.queued <= 2*most && (o.queued <= fragment || o.account.Has(0)) {
		return nil
	}
	return &link.CloseError{Code: session.CloseFlood, Reason: "answers are not being read"}
}
