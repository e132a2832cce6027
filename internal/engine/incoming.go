package engine

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// incoming are the peer's calls, their bytes and ids, and those that wait for
// replies to be read. It never runs one. Under Conn.mu.
type incoming struct {
	inbound  map[uint64]*Inbound
	inflow   int        // of them, the streams
	inBytes  int        // of their payloads
	parked   []*Inbound // of them, those that wait for room for their replies
	unparks  bool       // a goroutine begins some of them
	running  int        // handlers, whatever became of their calls …
	atRest   int        // … and those of them that have no goroutine
	bought   purchases  // room for what those will answer
	burst    burst      // of the handlers that begin
	inlined  int        // calls in a row that the reader has run, up to a crowd
	lastIn   uint64
	salt     uint64 // of subscriptions' ids; 0: there was none
	offences flow.Offences
}

// vacateInLocked gives back the place of a call.
func (i *incoming) vacateInLocked(in *Inbound) {
	if i.inbound[in.id] != in {
		return
	}
	delete(i.inbound, in.id)
	if in.Kind.Streams() {
		i.inflow--
	}
}

// dropParkedLocked gives up calls that have not begun and never will.
func (i *incoming) dropParkedLocked() {
	for _, in := range i.parked {
		in.body.Release()
	}
	i.parked = nil
}

// handlersLocked returns what is being handled.
func (c *Conn) handlersLocked() []*Inbound {
	handlers := slices.Collect(maps.Values(c.inbound))
	if c.lane != nil && c.lane.current != nil {
		handlers = append(handlers, c.lane.current)
	}
	return handlers
}

// losersLocked returns what of it loses its session now.
func (c *Conn) losersLocked() []*Inbound {
	if c.lane != nil && c.lane.leaver.current {
		return slices.Collect(maps.Values(c.inbound))
	}
	return c.handlersLocked()
}

// offendedLocked counts an offence of the peer and returns what ends the link
// when there were too many.
func (i *incoming) offendedLocked() error {
	if !i.offences.Add(time.Now()) {
		return nil
	}
	return &link.CloseError{Code: session.CloseFlood, Reason: "too many refused calls or frames for calls that never were"}
}

// kinds translates what a CALL says of itself.
var kinds = [...]Kind{
	wire.Unary: KindCall, wire.ServerStream: KindServerStream,
	wire.ClientStream: KindClientStream, wire.BidiStream: KindBidiStream,
}

// called takes a CALL: start it, put it on the lane, or refuse it; with MORE,
// wait for the rest of its request. body is the buffer that the payload lives
// in, nil if there is none. array is where a plain peer's answer goes, nil for
// one of its own.
func (c *Conn) called(f *wire.Frame, body *buf.Buf, array *arrayReply, index int) error {
	sub, malformed := c.subscribes(f, array != nil)
	if sub != nil {
		body.Release() // what is needed of the params was copied
		body = nil
		if sub.verb.Ends {
			return c.unsubscribed(f, sub.verb, array, index)
		}
	}
	in, unknown := c.owner.Find(f.Method, kinds[f.Kind], f.Meta)
	if malformed != nil {
		unknown = malformed
	}
	in.conn, in.Kind = c, kinds[f.Kind]
	in.askedBy(array, index)
	return c.enter(in, f, body, sub, unknown)
}

// askedBy notes what a plain peer's request has besides.
func (in *Inbound) askedBy(array *arrayReply, index int) {
	switch {
	case in.conn.dialect != session.Plain:
		in.asked = &unasked
		return
	case in.Answer != nil:
		in.asked = &in.Answer.asked
	default:
		in.asked = new(asked)
	}
	in.array, in.index = array, int32(index)
}

// enter is called with the record of a CALL, and why nobody takes it, nil: somebody does.
func (c *Conn) enter(in *Inbound, f *wire.Frame, body *buf.Buf, sub *subscription, unknown *status.Error) error {
	if f.TimeLeft > 0 {
		in.deadline = clock() + time.Duration(min(f.TimeLeft, flow.MaxTimeLeft))*time.Millisecond
	}
	in.arrived(f.Meta)
	d := in.Record.Decl()
	in.serial = d != nil && d.Serial
	in.ordered = in.serial || f.Flags&wire.Lane != 0

	c.mu.Lock()
	if err := c.identifyLocked(in, f); err != nil {
		c.mu.Unlock()
		body.Release()
		return err
	}
	in.cost = int32(len(f.Payload) + flow.MetaSize(f.Meta)) // a frame is bounded
	in.held = int32(sizeOf(body, f.Payload) + flow.MetaCost(f.Meta) + handlerOverhead)
	if in.Kind.Streams() {
		in.held += streamOverhead
	}
	if sub != nil {
		in.held += int32(len(sub.from)) // bounded by wire.MaxPlace
	}
	refusal, offence := c.refusalLocked(in, f, unknown, sub != nil)
	if refusal == nil && !c.account.Take(int(in.held)) {
		refusal = status.Busy("a request")
	}
	if refusal != nil {
		err := c.refuseLocked(in, refusal)
		if err == nil && offence {
			err = c.offendedLocked()
		}
		c.unlockAndWake()
		body.Release()
		return err
	}
	c.inbound[in.id] = in
	c.inBytes += int(in.cost)
	if in.Kind.Streams() {
		c.inflow++
		c.attachLocked(in, f, sub)
	}
	if f.Flags&wire.More != 0 {
		c.addPartLocked(partOf(f), c.requestOf(in, f))
		in.partial = true
		c.mu.Unlock()
		return nil
	}
	if body == nil {
		body = buf.Copy(f.Payload)
	}
	c.admitted(in, body)
	return nil
}

// admitted begins an admitted call, whose request is whole. mu is held, and given up.
func (c *Conn) admitted(in *Inbound, body *buf.Buf) {
	here := c.beginLocked(in, body)
	crowded := c.crowdedLocked(in)
	c.unlockAndWake()
	if here {
		in.begin()
	}
	if crowded {
		c.burst.giveWay()
	}
}

// crowdedLocked reports whether the reader, which has begun the handler of in, is
// to give way. A stream's may come to its rest then: those of a thousand that come
// at once need few goroutines.
func (c *Conn) crowdedLocked(in *Inbound) bool {
	return in.Kind.Streams() || c.running-c.atRest > c.burst.most() || c.inlined >= crowd
}

// sizeOf is what a payload takes: body, or nil, and then a copy.
func sizeOf(body *buf.Buf, payload []byte) int {
	if body != nil {
		return body.Size()
	}
	return buf.SizeOf(len(payload))
}

// attachLocked gives an admitted call its stream.
func (c *Conn) attachLocked(in *Inbound, f *wire.Frame, sub *subscription) {
	d := in.Record.Decl()
	if d == nil { // a fallback's
		d = &Decl{Name: f.Method, Kind: in.Kind, Foreign: true}
	}
	x := newStream(c, d, in.Kind, false)
	x.in = in
	x.over = x.over || f.Flags&wire.NoItems != 0
	x.beginLocked(in.id)
	switch {
	case sub == nil:
	case sub.verb.Feeds:
		x.fed = make(chan struct{}, 1)
	default:
		x.subscribeLocked(sub)
	}
	in.stream = x
}

// beginLocked starts an admitted call, whose request is whole, or lets it wait for
// the lane or for room for its reply. One whose method answers little does not
// wait behind those that answer much. here says that its caller, the reader, is to
// begin it.
func (c *Conn) beginLocked(in *Inbound, body *buf.Buf) (here bool) {
	if in.orphanedLocked() {
		body.Release() // the connection ended meanwhile
		return false
	}
	in.partial = false
	in.body = body
	switch {
	case in.serial:
		c.laneLocked(waiter{in: in})
	case !c.affordsLocked(in), len(c.parked) > 0 && c.priceLocked(in) >= promiseFrom:
		c.parked = append(c.parked, in)
		c.unparkLocked() // it may be for nothing
	default:
		c.startLocked(in)
		if here = c.inlineLocked(in); !here {
			go in.begin()
		}
	}
	return here
}

// inlineLocked reports whether the reader is to run the handler of in: if it has said
// that it never blocks, and nothing around it would. What is large is encoded, or
// decoded, by turns; a key may be somebody else's to answer; and a reply waits for room.
func (c *Conn) inlineLocked(in *Inbound) bool {
	d := in.Record.Decl()
	if d == nil || !d.Inline || in.Keyed() || in.Heavy() || in.body.Len() > flow.HeavyFrom || c.queued+int(in.price) > c.outgoingLocked() {
		c.inlined = 0
		return false
	}
	c.inlined = c.inlined%crowd + 1
	in.mu.Lock()
	in.ended |= onReader
	in.mu.Unlock()
	return true
}

// orphanedLocked reports that the session which the call came in is over.
func (in *Inbound) orphanedLocked() bool { return in.sess == nil || in.sess != in.conn.sess }

// lostLocked says why a call's session is over.
func (in *Inbound) lostLocked() *status.Error {
	if in.sess == nil {
		return status.Errorf(status.Unavailable, "the connection was closed by this side").With(status.MayHaveRun)
	}
	return status.SessionLost(nil)
}

// detachLocked gives back what an inbound call holds of the connection, when
// it or its session ends.
func (in *Inbound) detachLocked() {
	c := in.conn
	c.inBytes -= int(in.cost)
	if !in.begun { // else its handler may go on, and hold the request
		c.account.Give(int(in.held))
		in.held = 0
	}
	in.cost = 0
	if x := in.stream; x != nil {
		if x.failed == nil {
			x.failed = x.lostLocked()
		}
		c.dropPartLocked(partID{in.id, true})
		x.dropSendLocked()
		x.finishLocked()
	}
}

// startLocked notes that the handler of a call or notification runs.
func (c *Conn) startLocked(in *Inbound) {
	in.begun = true
	c.running++
	c.decodesLocked(in)
	c.account.Serve(int(in.held))
	c.buyLocked(in)
}

// decodesLocked counts what a handler has of its request beside the bytes, which
// is as much again. What is small is in the handler's overhead.
func (c *Conn) decodesLocked(in *Inbound) {
	if n := in.body.Len(); n > handlerOverhead/2 && in.Record.Decl() != nil {
		in.held += int32(n)
		c.account.Force(n)
	}
}

// returnedLocked notes that it has returned, and gives back what it held, but for
// the bytes of its reply, which wait to be read now. The account of a connection
// that has ended is closed with the last of them.
func (c *Conn) returnedLocked(in *Inbound, reply int) {
	c.unbuyLocked(in)
	c.account.Served(int(in.held), reply)
	in.held = 0
	if c.running--; c.running == 0 {
		if f := c.futures; f != nil {
			f.forget()
			c.futures = nil
		}
	}
	c.settleAccountLocked()
}

// settleAccountLocked closes the account when nobody can need it any more.
func (c *Conn) settleAccountLocked() {
	if c.finished && c.running == 0 {
		c.account.Close()
	}
}

// identifyLocked gives an inbound call its key.
func (c *Conn) identifyLocked(in *Inbound, f *wire.Frame) error {
	in.sess = c.sess
	if c.dialect == session.Plain {
		c.lastIn++
		in.id = c.lastIn
		in.rawID = append([]byte(nil), f.RawID...)
		return nil
	}
	in.id = f.ID
	if f.ID <= c.lastIn {
		return protocolError(fmt.Sprintf("CALL %d after CALL %d: ids rise", f.ID, c.lastIn))
	}
	c.lastIn = f.ID
	return nil
}

// refusalLocked says why a call cannot run, nil if it can. No handler sees a
// refused call, so it is safe to make again. offence is a call that a peer
// which keeps to the announced limits does not make.
func (c *Conn) refusalLocked(in *Inbound, f *wire.Frame, unknown *status.Error, subscribes bool) (e *status.Error, offence bool) {
	limits := &c.config.Limits
	hello := c.dialect != session.Plain
	switch {
	case c.drained != nil || c.closing:
		c.awayLocked()
		return status.Errorf(status.Unavailable, "shutting down"), false
	case f.Kind != wire.Unary && !c.peer.Streams && !subscribes:
		return status.Errorf(status.Unimplemented, "streams were not announced"), true
	case unknown != nil:
		return unknown, false
	case !Fits(f.Payload, limits.MaxMessage):
		return status.Errorf(status.ResourceExhausted, "the request has %d bytes, at most %d are taken", len(f.Payload), limits.MaxMessage), false
	case len(c.inbound) >= limits.MaxCalls:
		return status.Errorf(status.ResourceExhausted, "all %d places are taken, %d of them by streams; see Limits.MaxCalls", limits.MaxCalls, c.inflow), hello
	case in.Kind.Streams() && uint64(c.inflow) >= flow.StreamPlaces(uint64(limits.MaxCalls)):
		return status.Errorf(status.ResourceExhausted, "all %d places that streams may have are taken, the others of %d are for calls; see Limits.MaxCalls", c.inflow, limits.MaxCalls), hello
	case c.inBytes > 0 && c.inBytes+int(in.cost) > limits.MaxBuffered:
		return status.Errorf(status.ResourceExhausted, "%d bytes of requests are being handled, at most %d are taken", c.inBytes, limits.MaxBuffered), hello
	case in.serial && f.Flags&wire.Lane != 0 && c.lane.busy():
		return status.Errorf(status.FailedPrecondition, "%q is Serial and the lane is busy; a call from an ordered handler must not wait for it, because that could deadlock", f.Method), false
	}
	return nil, false
}

// awayLocked says GOAWAY before the first call that is refused because this side
// closes: so the caller knows that it may go to the next session. It is not said
// sooner, since a client that is told to go leaves, and may not have read all yet.
func (c *Conn) awayLocked() {
	if c.drained == nil && !c.life.away && c.sess != nil {
		c.life.away = true
		c.bye = wire.GoAwayBody{Reason: "closing"}
		c.sess.GoAway(c.bye)
	}
}
