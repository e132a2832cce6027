// Package session is the one place where frames are counted. A carrier is one
// link: it opens with HELLO and WELCOME. A session is what it carries: it says
// how far it has read, knows how far its peer has, keeps what the peer may lack,
// and so outlives its links. The engine above knows calls, the link below moves
// bytes.
package session

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Dialect is how a connection's frames are written.
type Dialect uint8

const (
	Binary Dialect = iota // typedrpc.v1.<codec>
	JSON                  // typedrpc.jsonrpc: JSON-RPC 2.0 with hello
	Plain                 // JSON-RPC 2.0 as everybody speaks it
)

// Close codes (PROTOCOL.md section 8).
const (
	CloseDone       = 1000
	CloseGoingAway  = 1001
	CloseTooBig     = 1009
	CloseRestart    = 1012
	CloseOverload   = 1013
	CloseProtocol   = 4400
	CloseUnauthed   = 4401
	CloseForbidden  = 4403
	CloseTimeout    = 4408
	CloseSuperseded = 4409
	CloseFlood      = 4429
)

// An ACK is sent at the latest after so many frames, so many bytes, or so
// long since the first frame that is not acknowledged (PROTOCOL.md section 2).
const (
	ackFrames = 64
	ackBytes  = 64 << 10
	ackDelay  = time.Second
)

// ErrEnded is returned for a session that is over.
var ErrEnded = errors.New("the session is over")

// Engine is the layer above: it has frames to send and takes those received.
// Received frames are valid only until the call returns. Receive, ReceiveArray
// and Malformed are called by the reader and must not wait; an error ends the
// session, and so it must have a close code that does.
type Engine interface {
	// Take adds the frames that are ready to b, in the order in which they
	// are to be sent, until b is full. Called by the writer.
	Take(b *Batch)
	Receive(f *wire.Frame) error
	// ReceiveArray takes a plain peer's array: its answers go back together.
	ReceiveArray(fs []wire.Frame) error
	// Malformed answers a plain peer's message that could not be read.
	Malformed(err error) error
	GoAway(b wire.GoAwayBody)
	// Auth takes new credentials; Carrier.AuthOK follows.
	Auth(c *Carrier, b wire.AuthBody)
	// AuthOK takes the answer to Carrier.Auth.
	AuthOK(b wire.AuthOKBody) error
}

// Session is what outlives links. Its methods may be called from any
// goroutine.
//
// Locks: reading and writing are held while a message is taken from a link and
// made for one; Attach holds both, so that a link is swapped between messages.
// Then comes whatever lock the engine has, and then mu.
type Session struct {
	engine  Engine
	dialect Dialect
	client  bool
	done    chan struct{} // closed when the session is over

	current atomic.Pointer[Carrier] // nil while there is no link; set under all locks, cleared under mu
	logged  atomic.Int64            // bytes in log

	reading sync.Mutex
	writing sync.Mutex

	mu       sync.Mutex
	sent     uint64 // counted frames taken into batches …
	next     uint64 // … of those, on this link: less than sent while it replays
	acked    uint64 // … and acknowledged
	log      replay
	asked    bool   // a PING went out because the log is half full
	tight    bool   // the log bounds what is taken: an ACK is waited for
	received uint64 // counted frames received
	newly    int    // of those, not yet acknowledged: frames …
	newBytes int    // … and bytes
	ackDue   bool
	ackTimer *time.Timer
	ackArmed bool
	heard    bool          // something has come over this link since WELCOME
	taking   bool          // the engine is being asked; sent grows in a moment
	taken    chan struct{} // closed when it has; nil when nobody waits
	moved    chan struct{} // closed when acked grows; nil when nobody waits
	probe    probe
	goodbye  error // ends the session when everything was written
	ended    bool
	cause    error // why
}

// probe measures the round trip: of the opening, and then from the writing of a
// PING with counted frames behind it to the ACK that has seen them.
type probe struct {
	wanted bool
	from   time.Time // zero: none is on its way
	at     uint64    // the position that answers it
	rtt    time.Duration
}

// measure takes a round trip that has just been completed.
func (p *probe) measure() {
	if rtt := max(time.Since(p.from), 1); p.rtt == 0 || rtt < p.rtt {
		p.rtt = rtt
	}
	p.from = time.Time{}
}

// New makes a session that has no link yet. log is how many bytes of what was
// sent are kept until they are acknowledged; with 0 the session ends with its
// link.
func New(e Engine, d Dialect, client bool, log int) *Session {
	return &Session{engine: e, dialect: d, client: client, log: replay{max: log}, done: make(chan struct{})}
}

// Engine returns the layer above.
func (s *Session) Engine() Engine { return s.engine }

// Resumable reports whether the session can outlive its link.
func (s *Session) Resumable() bool { return s.log.max > 0 }

// Attach makes c what carries the session. The link that there was is fenced
// off: nothing more is taken from it, and it is closed. position is what the
// peer has received: what it lacks is sent again. On the server welcome is given
// our own position, and makes the WELCOME that goes first.
//
// It fails with ErrEnded, or with what c is to be closed with when the position
// cannot be.
func (s *Session) Attach(c *Carrier, position uint64, welcome func(received uint64) wire.WelcomeBody) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return ErrEnded
	}
	if position > s.sent || position < s.acked {
		return protocolError(fmt.Sprintf("position %d is outside %d to %d", position, s.acked, s.sent), nil)
	}
	if old := s.current.Load(); old != nil {
		old.Fail(errFenced)
	}
	s.ackedLocked(position)
	s.next = position
	if s.log.max == 0 {
		s.next = s.sent
	}
	// Our position was stated, in HELLO or in what welcome makes.
	s.newly, s.newBytes, s.ackDue = 0, 0, false
	s.asked, s.heard = false, false
	s.probe = probe{}
	var w *wire.WelcomeBody
	switch {
	case s.dialect == Plain:
	case s.client:
		s.ackDue = true // at once: it confirms the token
		c.mu.Lock()
		s.probe.from = c.hailed // WELCOME answered it, though not at once
		c.mu.Unlock()
		s.probe.measure()
	default:
		body := welcome(s.received)
		w = &body
		s.probe.from, s.probe.at = time.Now(), position // the client's ACK answers WELCOME at once
	}
	s.current.Store(c)
	c.opened(s, w)
	c.link.Wake()
	return nil
}

// Detach is called when c's link has ended, with its cause. lost reports that c
// carried the session, which has no link now; over that this was its end.
func (s *Session) Detach(c *Carrier, cause error) (lost, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() != c {
		return false, false
	}
	s.current.Store(nil)
	if s.ended || !s.outlives(cause) {
		s.endLocked(cause)
		return true, true
	}
	return true, false
}

// outlives reports whether the session goes on after its link ended with cause
// (PROTOCOL.md section 8).
func (s *Session) outlives(cause error) bool {
	if s.log.max == 0 {
		return false
	}
	var ce *link.CloseError
	if !errors.As(cause, &ce) {
		return true
	}
	switch ce.Code {
	case CloseDone, CloseTooBig, CloseRestart, CloseProtocol, CloseUnauthed, CloseForbidden, CloseFlood:
		return false
	case CloseGoingAway:
		return s.client // a page that was left does not come back
	}
	return true
}

// End ends the session, and its link with err. The first cause wins. It reports
// true if there is no link whose end would tell: then its caller has to see to
// what the end means. It does not wait.
func (s *Session) End(err error) (alone bool) {
	s.mu.Lock()
	c := s.current.Load()
	first := !s.ended
	if first && c == nil {
		s.endLocked(err)
	} else if first {
		s.ended, s.cause = true, err
		close(s.done)
	}
	s.mu.Unlock()
	if c != nil {
		c.Fail(err)
	}
	return first && c == nil
}

// endIfLinked is End for a session that has a link. One that has none is left to
// whoever has taken the last one away, or is about to bring one: that ends as
// soon as what is ready was written. It reports whether there is a link.
func (s *Session) endIfLinked(err error) (linked bool) {
	s.mu.Lock()
	c := s.current.Load()
	switch {
	case s.ended:
	case c != nil:
		s.ended, s.cause = true, err
		close(s.done)
	case s.goodbye == nil:
		s.goodbye = err
	}
	s.mu.Unlock()
	if c != nil {
		c.Fail(err)
	}
	return c != nil
}

// endLocked ends a session that has no link.
func (s *Session) endLocked(cause error) {
	if !s.ended {
		s.ended, s.cause = true, cause
		close(s.done)
	}
	if s.ackTimer != nil {
		s.ackTimer.Stop()
	}
	s.log.drop(math.MaxUint64)
	s.logged.Store(0)
}

// Done is closed when the session begins to end.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session ended, nil while it lives.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// Carrier returns what carries the session, nil while there is no link.
func (s *Session) Carrier() *Carrier { return s.current.Load() }

// Wake tells the session that Take has something.
func (s *Session) Wake() {
	if c := s.current.Load(); c != nil {
		c.link.Wake()
	}
}

// Logged is how many bytes were sent and not acknowledged.
func (s *Session) Logged() int { return int(s.logged.Load()) }

// Positions returns the numbers of counted frames sent, acknowledged by the
// peer, and received.
func (s *Session) Positions() (sent, acked, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.acked, s.received
}

// Heard reports whether something has come over the latest link: the client
// has the token of its WELCOME.
func (s *Session) Heard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// Probe asks for a measurement of the round trip, with the next frames that are
// sent.
func (s *Session) Probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.current.Load(); c != nil && s.dialect != Plain && !s.probe.wanted && s.probe.from.IsZero() {
		s.probe.wanted = true
		c.ping()
	}
}

// RTT returns the shortest round trip that was measured, 0 if none was. What
// waits in buffers makes others longer.
func (s *Session) RTT() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probe.rtt
}

// GoAway tells the peer to begin nothing new. Without a link it does nothing.
func (s *Session) GoAway(b wire.GoAwayBody) {
	if c := s.current.Load(); c != nil && s.dialect != Plain {
		c.send(wire.Frame{Type: wire.GoAway, Payload: b.Append(nil)})
	}
}

// CloseAfterFlush ends the session with err as soon as all that is ready was
// written. Without a link it does so at once, and reports it as End does.
func (s *Session) CloseAfterFlush(err error) (alone bool) {
	s.mu.Lock()
	if s.goodbye == nil {
		s.goodbye = err
	}
	away := s.current.Load() == nil
	s.mu.Unlock()
	if away {
		return s.End(err)
	}
	s.Wake()
	return false
}

// Sync waits until everything that was counted so far is acknowledged, until
// done is closed, or until the session ends. Plain peers acknowledge nothing, so
// for them it returns at once.
func (s *Session) Sync(done <-chan struct{}) {
	if s.dialect == Plain {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taking && !s.waitLocked(&s.taken, done) {
		return // what was being taken would have counted
	}
	for target := s.sent; s.acked < target; {
		if c := s.current.Load(); c != nil {
			c.ping()
		}
		if !s.waitLocked(&s.moved, done) {
			return
		}
	}
}

// waitLocked waits until signalLocked is called for ch. It reports false when
// done was closed or the session ended.
func (s *Session) waitLocked(ch *chan struct{}, done <-chan struct{}) bool {
	if s.ended {
		return false
	}
	if *ch == nil {
		*ch = make(chan struct{})
	}
	signal := *ch
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-signal:
		return true
	case <-done:
	case <-s.done:
	}
	return false
}

func signalLocked(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

// fill makes the next message for c. Control frames go first; then what the peer
// lacks of what was sent before; then new frames, and a counted one is counted
// here, when it is taken.
func (s *Session) fill(c *Carrier, scratch *buf.Buf) *buf.Buf {
	s.writing.Lock()
	defer s.writing.Unlock()
	b := getBatch(s.dialect)
	defer b.free()
	s.mu.Lock()
	if s.current.Load() != c {
		s.mu.Unlock()
		return nil // fenced off
	}
	alone, pinged := s.takeControlLocked(c, b)
	if s.next < s.sent && b.Len() == 0 && !alone {
		return s.replayLocked(c, b, scratch)
	}
	ready := s.next == s.sent && !alone
	if ready && s.log.max > 0 {
		b.within(&s.log)
		ready = s.log.bytes < s.log.max
		s.tight = !ready
	}
	s.taking = ready
	s.mu.Unlock()

	if ready && !b.Full() {
		s.engine.Take(b)
	}
	if b.Len() == 0 {
		return s.nothing(c, b, ready)
	}
	counted, pure, timed := b.counted()
	msg := scratch
	if counted > 0 && s.log.max > 0 && b.size >= largeLog {
		msg = buf.Sized(b.size) // written and kept: not copied
	}
	out := c.encode(b, msg)
	if out == nil {
		defer s.End(errHole) // also if the link has ended for another reason
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if counted > 0 {
		s.sent += uint64(counted)
		s.next = s.sent
	}
	s.tight = s.tight || b.refused || b.limit < batchBytes
	if s.probe.wanted && pinged {
		s.probe.wanted = false // alone it would be answered by any ACK
		if counted > 0 {
			s.probe.from, s.probe.at = time.Now(), s.sent
		}
	}
	s.takenLocked()
	switch {
	case out == nil:
		if msg != scratch {
			msg.Release()
		}
	case counted > 0 && s.log.max > 0:
		kept := segment{msg: msg.Retain(), end: s.sent, frames: counted, pure: pure}
		if msg == scratch {
			msg.Release()
			kept.msg = buf.Copy(msg.B)
		}
		if timed {
			kept.at = time.Now()
		}
		s.log.add(kept)
		s.loggedLocked(c)
	}
	return out
}

// rest gives up the memory that a busy session keeps.
func (s *Session) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.rest()
}

// errHole ends a session of which a frame was counted and cannot be written.
var errHole = &link.CloseError{Code: CloseProtocol, Reason: "frame cannot be encoded"}

// largeLog is the size from which a message is encoded where it is kept.
const largeLog = 16 << 10

// takeControlLocked adds c's control frames, and the ACK that is due.
func (s *Session) takeControlLocked(c *Carrier, b *Batch) (alone, pinged bool) {
	c.mu.Lock()
	alone, pinged = c.takeControlLocked(b, s.received)
	c.mu.Unlock()
	if s.ackDue && !alone {
		b.Add(&wire.Frame{Type: wire.Ack, Position: s.received}, nil)
		s.ackDue, s.newly, s.newBytes = false, 0, 0
	}
	return alone, pinged
}

// replayLocked makes a message of what was sent on an earlier link. It gives up
// mu.
func (s *Session) replayLocked(c *Carrier, b *Batch, scratch *buf.Buf) *buf.Buf {
	seg := *s.log.after(s.next)
	pos := s.next
	if s.next = seg.end; s.next == s.sent {
		c.ping() // all that was missing is there: the log can be emptied
	}
	seg.msg.Retain() // an ACK could drop it
	s.mu.Unlock()
	if seg.pure && seg.at.IsZero() && seg.end-pos == uint64(seg.frames) {
		return seg.msg
	}
	defer seg.msg.Release()
	if err := seg.again(b, pos); err != nil {
		c.Fail(protocolError("what was sent cannot be sent again", err))
		return nil
	}
	return c.encode(b, scratch)
}

// nothing is called when there was nothing to write. asked says that the engine
// was asked; the log may have been too full for what it had. If it had nothing,
// a goodbye's time has come.
func (s *Session) nothing(c *Carrier, b *Batch, asked bool) *buf.Buf {
	s.mu.Lock()
	s.takenLocked()
	s.tight = s.tight || b.refused
	switch {
	case !b.refused:
	case s.log.room() > b.most: // an ACK came meanwhile, and found nobody who waits
		s.tight = false
		c.link.Wake()
	case !s.asked: // less than half full, and the peer would not hurry
		s.asked = true
		c.ping()
	}
	bye := s.goodbye
	s.mu.Unlock()
	if bye != nil && asked && !b.refused {
		s.End(bye)
	}
	return nil
}

func (s *Session) takenLocked() {
	if s.taking {
		s.taking = false
		signalLocked(&s.taken)
	}
}

// loggedLocked sees that a log that is half full becomes empty again: the peer
// would not hurry.
func (s *Session) loggedLocked(c *Carrier) {
	s.logged.Store(int64(s.log.bytes))
	if s.log.bytes > s.log.max/2 && !s.asked {
		s.asked = true
		c.ping()
	}
}

// deliver takes a message that arrived over c.
func (s *Session) deliver(c *Carrier, msg []byte) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.current.Load() != c {
		return errFenced
	}
	var counted int
	var err error
	switch s.dialect {
	case Binary:
		counted, err = s.deliverBinary(c, msg)
	case JSON:
		counted, err = s.deliverJSON(c, msg)
	case Plain:
		return s.deliverPlain(c, msg)
	}
	s.countReceived(c, counted, len(msg))
	return err
}

func (s *Session) deliverBinary(c *Carrier, msg []byte) (counted int, err error) {
	if len(msg) == 0 {
		return 0, protocolError("empty message", nil)
	}
	for len(msg) > 0 {
		n, err := wire.DecodeBinary(msg, &c.frame, c.o.Intern)
		if err != nil {
			return counted, protocolError("malformed frame", err)
		}
		msg = msg[n:]
		k, err := s.frameIn(c, &c.frame)
		counted += k
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

func (s *Session) deliverJSON(c *Carrier, msg []byte) (counted int, err error) {
	frames, _, err := c.reader.Read(msg)
	if err != nil {
		return 0, protocolError("malformed message", err)
	}
	for i := range frames {
		k, err := s.frameIn(c, &frames[i])
		counted += k
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

func (s *Session) deliverPlain(c *Carrier, msg []byte) error {
	frames, array, err := c.reader.Read(msg)
	switch {
	case err != nil:
		return s.engine.Malformed(err)
	case array:
		return s.engine.ReceiveArray(frames)
	}
	for i := range frames {
		if err := s.engine.Receive(&frames[i]); err != nil {
			return err
		}
	}
	return nil
}

// frameIn takes one frame and returns 1 if it counts.
func (s *Session) frameIn(c *Carrier, f *wire.Frame) (int, error) {
	switch f.Type {
	case wire.Ping:
		// Answered when the whole message was counted: see countReceived.
		c.pinged = true
		return 0, s.acknowledged(f.Position)
	case wire.Ack:
		return 0, s.acknowledged(f.Position)
	case wire.GoAway:
		b, err := wire.ParseGoAway(f.Payload)
		if err != nil {
			return 0, protocolError("malformed GOAWAY", err)
		}
		s.engine.GoAway(b)
		return 0, nil
	case wire.Auth, wire.AuthOK:
		return 0, s.authIn(c, f)
	case wire.Hello, wire.Welcome:
		return 0, protocolError("a second handshake on one link", nil)
	}
	if !f.Type.Counted() {
		if f.Flags&wire.CountedBit != 0 {
			return 1, nil // a later version's: skipped, but counted
		}
		return 0, nil
	}
	return 1, s.engine.Receive(f)
}

func (s *Session) authIn(c *Carrier, f *wire.Frame) error {
	switch {
	case (f.Type == wire.Auth) == s.client:
		return protocolError("credentials come from the client", nil)
	case f.Type == wire.AuthOK:
		b, err := wire.ParseAuthOK(f.Payload)
		if err != nil {
			return protocolError("malformed AUTH_OK", err)
		}
		return s.engine.AuthOK(b)
	case c.flooded():
		return &link.CloseError{Code: CloseFlood, Reason: "answers to AUTH are not being read"}
	}
	if len(f.Payload) > wire.MaxBuffered {
		return protocolError("AUTH is larger than an opening may be", nil)
	}
	b, err := wire.ParseAuth(f.Payload)
	if err != nil {
		return protocolError("malformed AUTH", err)
	}
	s.engine.Auth(c, b)
	return nil
}

// acknowledged takes the peer's position.
func (s *Session) acknowledged(pos uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos > s.sent || pos < s.acked {
		return protocolError(fmt.Sprintf("position %d is outside %d to %d", pos, s.acked, s.sent), nil)
	}
	s.ackedLocked(pos)
	if !s.probe.from.IsZero() && pos >= s.probe.at {
		s.probe.measure()
	}
	return nil
}

func (s *Session) ackedLocked(pos uint64) {
	if pos > s.acked {
		s.acked = pos
		s.next = max(s.next, pos)
		signalLocked(&s.moved)
		s.log.drop(pos)
		s.logged.Store(int64(s.log.bytes))
	}
	s.asked = false
	c := s.current.Load()
	if c == nil || s.log.max == 0 {
		return
	}
	if s.log.bytes > s.log.max/2 {
		s.asked = true
		c.ping()
	}
	if s.tight {
		s.tight = false
		c.link.Wake()
	}
}

// countReceived counts what a message held, and sees that an ACK goes out when
// one is due.
func (s *Session) countReceived(c *Carrier, frames, bytes int) {
	s.mu.Lock()
	s.heard = true
	s.ackDue = s.ackDue || c.pinged
	c.pinged = false
	wake := s.ackDue
	if frames > 0 {
		s.received += uint64(frames)
		s.newly += frames
		s.newBytes = min(s.newBytes+bytes, math.MaxInt32)
		switch {
		case s.newly >= ackFrames || s.newBytes >= ackBytes:
			wake, s.ackDue = true, true
		case s.ackArmed || s.ended:
		case s.ackTimer == nil:
			s.ackArmed = true
			s.ackTimer = time.AfterFunc(ackDelay, s.ackLate)
		default:
			s.ackArmed = true
			s.ackTimer.Reset(ackDelay)
		}
	}
	s.mu.Unlock()
	if wake {
		c.link.Wake()
	}
}

func (s *Session) ackLate() {
	s.mu.Lock()
	s.ackArmed = false
	s.ackDue = s.ackDue || s.newly > 0
	due := s.ackDue
	s.mu.Unlock()
	if due {
		s.Wake()
	}
}
