package engine

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Subscriptions are how plain peers, who know no streams, are sent the items of one
// (PROTOCOL.md section 7.4): the stream is an ordinary one to its handler, and what is
// other is how it is begun and ended, and what its frames look like. Nobody credits the
// items: those that the socket has taken are.

// Verb is what a plain peer does by calling a name.
type Verb struct {
	Ends   bool   // it ends a subscription; else it begins one
	Tells  string // the notification that its items come by
	Prefix string // what the names of its streams begin with, which the peer leaves out
	Get    bool   // it is what a GET asks for, over a connection of its own
	Feeds  bool   // it begins a client stream, over a connection of its own, whose items come by Conn.Feed
	Number int64  // JSON-RPC's, of the error for a subscription that there is not; 0: the code's
}

// subscription is what there is of one beside its stream. Under Conn.mu, but for verb and
// id, which are fixed.
type subscription struct {
	verb     *Verb
	id       []byte // as JSON
	marks    bool   // its items say their places; fixed
	from     string // the place that it goes on behind; fixed
	accepted bool   // the peer was told the id, and how it ends is told by a notification …
	left     bool   // … unless it has unsubscribed
}

// subscribes makes a CALL by a verb that begins a subscription one of its stream. nil: it
// is an ordinary call. refusal is what is wrong with it.
func (c *Conn) subscribes(f *wire.Frame, batch bool) (*subscription, *status.Error) {
	if c.dialect != session.Plain || f.Kind != wire.Unary {
		return nil, nil
	}
	v := c.config.Verbs[f.Method]
	if v == nil || c.config.Intern([]byte(f.Method)) != "" {
		return nil, nil
	}
	if v.Ends {
		return &subscription{verb: v}, nil
	}
	s, bad := wire.ReadSubscribe(f.Payload)
	switch {
	case bad != "":
		return nil, status.Errorf(status.InvalidArgument, "%s: %s", f.Method, bad)
	case len(v.Prefix)+len(s.Name) > wire.MaxMethod:
		return nil, status.Errorf(status.InvalidArgument, "%s: the stream's name is too long", f.Method)
	case c.config.Posted && !v.Get && !v.Feeds:
		return nil, status.Errorf(status.FailedPrecondition, "%s: over HTTP POST nobody is there to be sent items; connect with a WebSocket", f.Method)
	case batch:
		return nil, status.Errorf(status.FailedPrecondition, "%s: a subscription cannot begin in a batch; send the request alone", f.Method)
	}
	f.Method, f.Payload, f.Kind = v.Prefix+s.Name, s.Params, wire.ServerStream
	if v.Feeds {
		f.Kind = wire.ClientStream
		return &subscription{verb: v}, nil
	}
	f.Flags |= wire.NoItems
	return &subscription{verb: v, marks: s.Marks, from: s.From}, nil
}

// subscribeLocked makes a stream one of a subscription, which has its id from now on.
func (x *Stream) subscribeLocked(s *subscription) {
	c := x.conn
	if c.salt == 0 {
		var b [8]byte
		rand.Read(b[:])
		c.salt = binary.BigEndian.Uint64(b[:]) | 1
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], c.salt)
	binary.BigEndian.PutUint64(b[8:], x.in.id)
	s.id = append(hex.AppendEncode([]byte(`"0x`), b[:]), '"')
	x.in.sub = s
	x.grantLocked(c.config.Limits.Window)
}

// sub is the subscription whose the stream is; nil: it is none's.
func (x *Stream) sub() *subscription {
	if x == nil || x.in == nil {
		return nil
	}
	return x.in.sub
}

// subscribedLocked reports whether a call is a subscription whose id its peer was told.
func (in *Inbound) subscribedLocked() bool {
	return in.sub != nil && in.sub.accepted
}

// Accept says that a stream's handler has begun: interceptors and whoever else may refuse
// it have not. A plain peer's request for a subscription is answered then, others are not
// concerned. It may be called again, and where there is no stream.
func (x *Stream) Accept() {
	if x.sub() == nil {
		return
	}
	c := x.conn
	c.mu.Lock()
	if x.brokenLocked() == nil {
		x.acceptLocked()
	}
	c.unlockAndWake()
}

// acceptLocked answers the request for the subscription, in front of its first item.
func (x *Stream) acceptLocked() {
	s, c := x.sub(), x.conn
	if s.accepted {
		return
	}
	s.accepted = true
	c.pushResult(wire.Frame{Type: wire.Result, ID: x.in.id, RawID: x.in.rawID}, s.id)
}

// Marks reports whether the items are to say their places, which SendAt and OfferAt are
// told: whoever has had one may go on behind it, in another subscription.
func (x *Stream) Marks() bool {
	s := x.sub()
	return s != nil && s.marks
}

// From is the place that the stream is to go on behind; "": from its beginning.
func (x *Stream) From() string {
	if !x.Marks() {
		return ""
	}
	return x.sub().from
}

// marked is an item with its place.
func marked(body *buf.Buf, at string) *buf.Buf {
	b := buf.Sized(body.Len() + len(at) + len(`,"at":""`))
	b.B = wire.AppendMark(append(b.B, body.Bytes()...), at)
	return b
}

// pushResult queues an answer with a payload that the engine gives itself.
func (o *outbox) pushResult(f wire.Frame, payload []byte) {
	cost := len(payload) + answerOverhead
	o.hold(cost)
	o.queue.push(new(parcel).pack(f, buf.Copy(payload), cost))
}

// writtenLocked takes an item that the writer has taken for one that was credited.
func (x *Stream) writtenLocked(cost int) {
	cost = min(cost, x.flow.Used) // 0 of a stream that has ended
	x.flow.Used -= cost
	x.conn.sentItems -= cost
	if x.pace != nil {
		x.pace.Credited(1, 0)
	}
	x.roomLocked()
}

// reading watches whether a subscription's peer reads, while a handler waits for it. C is nil where
// nobody has to.
type reading struct {
	*time.Timer
	C <-chan time.Time
}

func (r reading) stop() {
	if r.Timer != nil {
		r.Stop()
	}
}

// leastPatience is more than it takes to find out that a write makes progress.
const leastPatience = 2 * time.Second

// reading begins to watch, where nobody else decides what becomes of a peer that does not read: neither
// a topic's policy, nor who reads with a GET, whose connection has nothing but the stream.
func (x *Stream) reading() reading {
	if s := x.sub(); s == nil || s.verb.Get || x.rest.handler != nil || x.conn.config.Limits.WriteTimeout <= 0 {
		return reading{}
	}
	t := time.NewTimer(x.patience())
	return reading{t, t.C}
}

// patience is how long a handler may go on waiting for its peer, which has half of
// Limits.WriteTimeout to take something. Then the subscription is ended, whose handler goes on faster
// than the peer reads; the link, and what else it carries, has the other half.
func (x *Stream) patience() time.Duration {
	c := x.conn
	most := max(c.config.Limits.WriteTimeout/2, leastPatience)
	c.mu.Lock()
	carrier := c.carrierLocked()
	c.mu.Unlock()
	if carrier == nil {
		return most
	}
	stalled := carrier.Stalled()
	if stalled < most {
		return most - stalled
	}
	x.Fail(status.Errorf(status.ResourceExhausted, "the subscriber takes nothing: it has read nothing for %v, and the stream waits for it", most))
	return most
}

// concludeLocked makes the terminal frame of a subscription what its peer is told.
func (x *Stream) concludeLocked(it *item) {
	s := x.sub()
	switch {
	case s == nil:
		return
	case it.frame.Type == wire.Result: // perhaps of a handler that has sent nothing
		x.acceptLocked()
	}
	if s.accepted {
		it.frame.Method, it.frame.RawID = s.verb.Tells, s.id
	}
}

// partedLocked ends a subscription whose peer has unsubscribed: it is told no more. Then it
// reports true, and mu was given up.
func (c *Conn) partedLocked(in *Inbound) bool {
	if !in.subscribedLocked() || !in.sub.left {
		return false
	}
	c.returnedLocked(in, 0)
	in.detachLocked()
	c.vacateInLocked(in)
	c.unparkLocked()
	c.checkIdleLocked()
	c.unlockAndWake()
	return true
}

// unsubscribed ends a subscription, whose items that have not left are dropped, and
// answers.
func (c *Conn) unsubscribed(f *wire.Frame, v *Verb, array *arrayReply, index int) error {
	id, ok := wire.ReadUnsubscribe(f.Payload)
	c.mu.Lock()
	answer := wire.Frame{Type: wire.Result, ID: f.ID, RawID: append([]byte(nil), f.RawID...), Payload: []byte("true")}
	in := c.subscriptionLocked(id, v)
	switch {
	case !ok:
		answer = wire.Frame{Type: wire.Fail, ID: f.ID, RawID: answer.RawID, Code: int64(status.InvalidArgument), Message: f.Method + ": params are no list of a subscription's id, nor an object with the member subscription"}
	case in == nil:
		answer = wire.Frame{Type: wire.Fail, ID: f.ID, RawID: answer.RawID, Code: int64(status.NotFound), Message: "subscription not found", Number: v.Number}
	default:
		in.sub.left = true
		in.stream.callerLeftLocked()
	}
	payload := answer.Payload
	switch {
	case array != nil:
		c.arrayPartLocked(array, index, &answer)
	case payload != nil:
		answer.Payload = nil
		c.pushResult(answer, payload)
	default:
		c.pushAnswer(answer)
	}
	err := c.overflow(c.config.Limits.MaxBuffered)
	c.unlockAndWake()
	if in != nil {
		in.giveUp()
	}
	return err
}

// subscriptionLocked finds a subscription by its id, among those that were begun by v's
// sibling; nil: there is none.
func (c *Conn) subscriptionLocked(id string, v *Verb) *Inbound {
	const digits = len("0x") + 32
	if len(id) != digits {
		return nil
	}
	key, err := strconv.ParseUint(id[digits-16:], 16, 64)
	in := c.inbound[key]
	if err != nil || in == nil || !in.subscribedLocked() {
		return nil
	}
	if s := in.sub; s.left || s.verb.Tells != v.Tells || string(s.id[1:len(s.id)-1]) != id {
		return nil
	}
	return in
}
