package engine

import (
	"errors"
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Opened begins a session: what was held goes out as soon as it has a link.
func (c *Conn) Opened(sess *session.Session, limits wire.Limits, f Features, cache string) {
	c.mu.Lock()
	if old := c.sess; old != nil { // somebody is just about to say that it is lost
		c.mu.Unlock()
		c.Lost(old, old.Err())
		c.mu.Lock()
	}
	// What a peer allows is not all used: we keep accounts of it.
	limits.Window = min(limits.Window, mostPeerWindow)
	limits.Budget = min(limits.Budget, uint64(max(mostPeerBudget, c.config.Limits.MaxBuffered)))
	c.sess = sess
	c.setPeerLocked(peer{limits: limits, Features: f, cache: cache})
	c.notify = flow.Sender{Window: int(min(limits.Window, math.MaxInt32)), Used: c.notify.Used}
	if c.lane == nil { // else it has what an earlier one's peer left behind, which comes first
		c.lane = new(lane)
	}
	c.lastIn, c.credits, c.forgotten, c.offences = 0, 0, 0, flow.Offences{}
	refused, unread := c.refusedLocked(), c.dropUnreadLocked()
	c.admitLocked()
	c.outbox.wake() // the session looks when it gets its link
	closing, err := c.closing, c.err
	c.movedLocked()
	c.mu.Unlock()
	refused.settleEach()
	for _, name := range unread {
		c.config.Logger.Warn("typedrpc: notification dropped: it waited for a peer that cannot take it", "method", name)
	}
	if closing {
		sess.End(&link.CloseError{Code: session.CloseDone, Reason: "closed", Err: err})
	}
}

// LinkUp is called when sess got a link, its first or a new one.
func (c *Conn) LinkUp(sess *session.Session) {
	c.mu.Lock()
	if c.sess == sess && (c.drained != nil || c.life.away) {
		sess.GoAway(c.bye)
	}
	linked := c.linkedLocked()
	c.linkLocked(linked)
	if linked {
		c.outage.backLocked()
	}
	tell := c.config.Recorder != nil && linked && c.sess == sess
	var was linkage
	if tell {
		was = c.outage.told.setLocked(true)
		c.outage.told.begun = true
	}
	c.checkIdleLocked()
	c.mu.Unlock()
	if tell {
		c.recordUp(was)
	}
}

// LinkDown is called when the session goes on without a link: what would rather
// fail than wait for one, and has not left, does. cause is what the link ended with.
func (c *Conn) LinkDown(cause error) {
	c.mu.Lock()
	if c.linkedLocked() {
		c.mu.Unlock()
		return // another one is here already
	}
	c.linkLocked(false)
	c.gatherLocked()
	var failed taken
	for it := c.queue.head; it != nil; {
		next := it.next
		if it.call != nil && it.call.id == 0 && it.call.FailFast {
			c.unqueueLocked(it)
			c.vacateLocked(it.call.place())
			failed.notSent = append(failed.notSent, it.call)
		}
		it = next
	}
	for cl := range c.waiting.all() {
		if cl.FailFast {
			c.waiting.remove(&cl.item)
			failed.notSent = append(failed.notSent, cl)
		}
	}
	c.admitLocked()
	c.outLocked(cause)
	none := c.noLinkLocked()
	was := c.outage.told.setLocked(false)
	c.checkIdleLocked()
	c.mu.Unlock()
	if c.config.Recorder != nil {
		c.recordDown(was, cause, false)
	}
	failed.settle(none)
}

// linkedLocked reports whether there is a session, and a link that carries it.
func (c *Conn) linkedLocked() bool { return c.carrierLocked() != nil }

// carrierLocked is the link that there is, nil: none. It is asked once for all that is done
// with it: a session loses its link without c.mu.
func (c *Conn) carrierLocked() *session.Carrier {
	if c.sess == nil {
		return nil
	}
	return c.sess.Carrier()
}

// Holds is what a session without a link keeps for its peer.
func (c *Conn) Holds() session.Held {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == nil {
		return session.Held{}
	}
	h := session.Held{Busy: len(c.inbound)+len(c.pending)+c.queue.len > 0 || c.sess.Logged() > 0}
	rest := min(c.atRest, len(c.inbound)) // those of a lost session may be ending
	h.Bytes = c.queued + c.unsent + c.inBytes + c.unread + c.sess.Logged() + (1+len(c.inbound)-rest)*handlerOverhead + rest*streamOverhead
	return h
}

// handlerOverhead is what a running handler is taken to hold beside its request,
// and a connection beside all that: some 7 kB each were measured.
const handlerOverhead = 8 << 10

// streamOverhead is what a stream takes beside its items, and its handler.
const streamOverhead = 576

// What of a peer's grants is used at most.
const (
	mostPeerWindow = 16 << 20
	mostPeerBudget = 64 << 20
)

// Lost ends sess, unless that has been done: handlers' contexts end, calls in
// flight fail or wait for the next session, and so does what never left.
func (c *Conn) Lost(sess *session.Session, cause error) {
	c.mu.Lock()
	if c.sess != sess {
		c.mu.Unlock()
		return
	}
	c.passedLocked(sess)
	c.sess, c.woken, c.peer.away = nil, false, false
	c.polite = c.leftLocked(cause)
	runsOn := c.polite && c.leaveLocked()
	handlers := c.losersLocked()
	c.endingLocked()
	defer c.ended()
	c.loseInboundLocked()
	for key := range c.partial {
		c.dropPartLocked(key)
	}
	c.linkLocked(false)
	c.pace.stop()
	c.creditors, c.prompt = nil, false
	if !runsOn {
		c.dropLaneLocked()
	}
	failed := c.interruptLocked(c.config.Heals && !c.closing)
	var why *status.Error
	if !c.outage.since.IsZero() { // since before: no other link has come
		why = c.outage.why
	}
	c.outLocked(cause)
	c.movedLocked()
	was := c.outage.told.setLocked(false)
	c.outage.told.begun = false
	c.checkIdleLocked()
	c.unlockAndTell()
	if c.config.Recorder != nil {
		c.recordDown(was, cause, true)
	}
	// Before the handlers' contexts end, whose calls are told of the loss too.
	failed.settle(status.Lost(cause, why))
	if !c.config.Heals && !runsOn {
		c.over(cause)
	}
	var ce *link.CloseError
	revoked := errors.As(cause, &ce) && ce.Code == session.CloseUnauthed && !ce.Remote
	for _, in := range handlers {
		if revoked {
			in.cancel()
		} else {
			in.lose()
		}
	}
}

// loseInboundLocked detaches all that came, since its session is over.
func (c *Conn) loseInboundLocked() {
	for _, in := range c.inbound {
		if !in.begun {
			c.endedLocked(in, int64(status.Unavailable), true)
		}
		in.detachLocked()
		if in.array != nil {
			in.array.tellLocked(c, true)
		}
	}
	clear(c.inbound)
	c.inflow = 0
	c.dropParkedLocked()
}

// engine is the Conn as its session sees it.
type engine struct{ c *Conn }

func (e *engine) Take(b *session.Batch) { e.c.take(b) }

func (e *engine) GoAway(b wire.GoAwayBody) { e.c.goingAway(b) }

func (e *engine) Malformed(err error) error { return e.c.malformed(err) }

func (e *engine) Odd(list []wire.Oddity) { e.c.odd(list) }

func (e *engine) Ours(id uint64) bool { return e.c.ours(id) }

func (e *engine) ReceiveArray(fs []wire.Frame, msg *buf.Buf) error {
	return e.c.receiveArray(fs, msg)
}

func (e *engine) Auth(c *session.Carrier, b wire.AuthBody) { e.c.keeper.Auth(c, b) }
func (e *engine) AuthOK(b wire.AuthOKBody) error           { return e.c.keeper.AuthOK(b) }

// Of is the connection whose session e is the engine of.
func Of(e session.Engine) *Conn { return e.(*engine).c }

func (e *engine) Receive(f *wire.Frame, msg *buf.Buf) error {
	var body *buf.Buf
	switch {
	case f.Flags&wire.More != 0 || f.Type == wire.Chunk:
		var err error
		if f, body, err = e.c.assemble(f); f == nil {
			return err
		}
	case f.Type == wire.Call || f.Type == wire.Notify || f.Type == wire.Item || f.Type == wire.Result:
		body = msg.Claim(f.Payload)
	}
	return e.c.receive(f, body)
}

// receive takes a frame that is whole. body is the buffer that its payload lives
// in, nil if it has none of its own.
func (c *Conn) receive(f *wire.Frame, body *buf.Buf) error {
	switch f.Type {
	case wire.Call:
		return c.called(f, body, nil, 0)
	case wire.Result, wire.Fail:
		return c.answered(f, body)
	case wire.Cancel:
		return c.cancelled(f)
	case wire.Notify:
		return c.notified(f, body)
	case wire.Item:
		return c.received(f, body)
	case wire.Head:
		return c.headed(f)
	case wire.End:
		return c.endReceived(f)
	case wire.Credit:
		return c.credited(f)
	case wire.Invalid:
		return c.invalid(f)
	}
	return nil
}

// goingAway takes a GOAWAY: calls that have not left wait for the next session.
func (c *Conn) goingAway(b wire.GoAwayBody) {
	if b.Error != nil { // it closes now: to leave by ourselves would be another end
		c.keeper.Said(b.Error)
		return
	}
	c.mu.Lock()
	c.peer.away, c.outage.away = true, time.Now()
	c.keeper.GoingAway(flow.Hint(b.Min), flow.Hint(b.Max))
	c.gatherLocked()
	var held items
	for it := c.queue.head; it != nil; {
		next := it.next
		if it.call != nil && it.call.id == 0 && it.call.waits() {
			c.queue.remove(it)
			c.vacateLocked(it.call.place())
			held.push(it)
		}
		it = next
	}
	c.waiting.merge(&held)
	var failed taken
	if !c.config.Heals {
		failed.notSent = c.waiting.drain()
	}
	c.checkIdleLocked()
	c.mu.Unlock()
	failed.settle(status.Errorf(status.Unavailable, "the peer is shutting down"))
}

// NewSession makes a session for the connection.
func (c *Conn) NewSession(f Features) *session.Session {
	log := 0
	if f.Resume {
		log = c.config.Limits.MaxUnacked
	}
	return session.New(&engine{c}, c.dialect, c.config.Heals, log, &c.account)
}

// NewCarrier makes a carrier over t with a connection's limits.
func NewCarrier(t link.Transport, cfg *Config, d session.Dialect, o session.Opener, client bool) *session.Carrier {
	l := cfg.Limits
	return session.NewCarrier(t, o, session.Options{
		Dialect: d, Client: client, Message: l.MaxMessage, MaxDepth: l.MaxDepth,
		Intern: cfg.Intern, WriteTimeout: l.WriteTimeout, MinRate: l.MinRate, Handshake: l.HandshakeTimeout,
	})
}
