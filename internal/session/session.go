// Package session is the one place where frames are counted. A session opens
// with HELLO and WELCOME, says how far it has read, and knows how far its peer
// has; the link below it moves bytes and the engine above it knows calls.
//
// A session lives exactly as long as its link in this version. The counting,
// the tokens and the opening follow PROTOCOL.md sections 1 and 2, so that a
// session can learn to outlive its link without a change of the wire.
package session

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

// maxControl bounds the answers that a peer can make us queue outside of the
// engine's budget.
const maxControl = 64

// ErrHandshakeTimeout is the cause of a link that never completed its opening.
var ErrHandshakeTimeout = errors.New("the peer did not complete the handshake in time")

// Engine is the layer above: it has frames to send and takes those received.
// Received frames are valid only until the call returns. Receive,
// ReceiveArray and Malformed are called by the reader and must not wait; an
// error ends the link.
type Engine interface {
	// Take adds the frames that are ready to b, in the order in which they
	// are to be sent, until b is full. Called by the writer.
	Take(b *Batch)
	Receive(f *wire.Frame) error
	// ReceiveArray takes a plain peer's array: its answers go back together.
	ReceiveArray(fs []wire.Frame) error
	// Malformed answers a plain peer's message that could not be read.
	Malformed(err error) error
	// Hello is called once on the server; Accept or Refuse follows.
	Hello(h wire.HelloBody)
	// Opened is called once on the client with the server's WELCOME.
	Opened(w wire.WelcomeBody) error
	// Refused is called instead of Opened, before the link ends.
	Refused(e *wire.ErrorBody)
	GoAway(b wire.GoAwayBody)
}

// Options of a session.
type Options struct {
	Dialect      Dialect
	Client       bool
	Message      int // our own limit of one message received
	MaxDepth     int // nesting of JSON; 0: wire.MaxDepth
	Intern       func([]byte) string
	WriteTimeout time.Duration
	Handshake    time.Duration // bound of the opening; 0: none
}

type phase uint8

const (
	waitHello      phase = iota // server: the first frame must be HELLO
	authenticating              // server: nothing may come before WELCOME
	waitWelcome                 // client: the first frame must be WELCOME
	open
)

// Session is one session over one link. Its methods may be called from any
// goroutine.
type Session struct {
	o      Options
	engine Engine
	link   *link.Link
	opener *time.Timer // the opening's deadline

	// reader and writer state, each touched by its own goroutine
	reader wire.Reader
	frame  wire.Frame

	phase atomic.Uint32 // a phase; changed under mu

	mu       sync.Mutex
	control  []wire.Frame // uncounted frames, before all others
	pinging  bool         // a PING waits in control
	ackDue   bool
	sent     uint64 // counted frames taken into batches
	acked    uint64 // of those, acknowledged
	received uint64 // counted frames received
	newly    int    // of those, not yet acknowledged: frames …
	newBytes int    // … and bytes
	ackTimer *time.Timer
	ackArmed bool
	taking   bool          // the engine is being asked; sent grows in a moment
	taken    chan struct{} // closed when it has; nil when nobody waits
	moved    chan struct{} // closed when acked grows; nil when nobody waits
	probe    probe
	goodbye  error // ends the link when everything was written
	ended    bool
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

// Probe asks for a measurement of the round trip, with the next frames that are
// sent.
func (s *Session) Probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Dialect != Plain && !s.probe.wanted && s.probe.from.IsZero() {
		s.probe.wanted = true
		s.pingLocked()
	}
}

// RTT returns the shortest round trip that was measured, 0 if none was. What
// waits in buffers makes others longer.
func (s *Session) RTT() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probe.rtt
}

// New makes a session over t. Run starts it.
func New(t link.Transport, e Engine, o Options) *Session {
	s := &Session{o: o, engine: e}
	s.reader = wire.Reader{Hello: o.Dialect == JSON, MaxDepth: o.MaxDepth, Intern: o.Intern}
	switch {
	case o.Dialect == Plain:
		s.phase.Store(uint32(open))
	case o.Client:
		s.phase.Store(uint32(waitWelcome))
	}
	s.link = link.New(t, s, link.Options{Text: o.Dialect != Binary, WriteTimeout: o.WriteTimeout})
	if s.is(open) {
		s.link.SetReadLimit(s.readLimit())
	} else {
		s.link.SetReadLimit(wire.MaxBuffered)
	}
	return s
}

func (s *Session) is(p phase) bool { return phase(s.phase.Load()) == p }

// readLimit is what one message of the transport may have: the largest payload
// and its envelope. The envelope is mostly metadata and an error's text, which
// JSON can write six times as long.
func (s *Session) readLimit() int64 { return int64(s.o.Message) + 64<<10 + 6*wire.MaxMeta }

// Run serves the session until its link ends and returns why. When it returns
// every goroutine of the link has ended.
func (s *Session) Run() error {
	if s.o.Handshake > 0 && !s.is(open) {
		s.opener = time.AfterFunc(s.o.Handshake, func() {
			s.Fail(&link.CloseError{Code: CloseTimeout, Reason: "no handshake in time", Err: ErrHandshakeTimeout})
		})
	}
	err := s.link.Run()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.opener != nil {
		s.opener.Stop()
	}
	if s.ackTimer != nil {
		s.ackTimer.Stop()
	}
	return err
}

// Fail ends the link; the first cause wins. It does not wait.
func (s *Session) Fail(err error) { s.link.Fail(err) }

// Done is closed when the link begins to end.
func (s *Session) Done() <-chan struct{} { return s.link.Done() }

// Err says why the link ended, nil while it lives.
func (s *Session) Err() error { return s.link.Err() }

// Wake tells the session that Take has something.
func (s *Session) Wake() { s.link.Wake() }

// KeepAlive begins to watch the peer.
func (s *Session) KeepAlive(interval time.Duration) { s.link.KeepAlive(interval, CloseTimeout) }

// Positions returns the numbers of counted frames sent, acknowledged by the
// peer, and received.
func (s *Session) Positions() (sent, acked, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.acked, s.received
}

// Hello sends the client's first frame.
func (s *Session) Hello(h wire.HelloBody) {
	s.mu.Lock()
	s.probe.from = time.Now() // WELCOME answers it, though not at once
	s.mu.Unlock()
	s.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
}

// Accept answers a HELLO: the session is open. It reports false when the link
// has ended meanwhile.
func (s *Session) Accept(w wire.WelcomeBody) bool {
	s.mu.Lock()
	if s.ended || !s.is(authenticating) || s.link.Err() != nil {
		s.mu.Unlock()
		return false
	}
	w.Received = s.received
	s.phase.Store(uint32(open))
	s.probe.from = time.Now() // the client's ACK answers WELCOME at once
	// Before a GOAWAY that came in between.
	s.control = slices.Insert(s.control, 0, wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
	s.stopOpener()
	s.mu.Unlock()
	s.link.SetReadLimit(s.readLimit())
	s.link.Wake()
	return true
}

// Refuse answers a HELLO with an error and closes the link with code after it.
func (s *Session) Refuse(e wire.ErrorBody, code int, reason string) {
	body := wire.AuthOKBody{Error: &e}
	s.send(wire.Frame{Type: wire.AuthOK, Payload: body.Append(nil)})
	s.CloseAfterFlush(&link.CloseError{Code: code, Reason: reason})
}

// GoAway tells the peer to begin nothing new.
func (s *Session) GoAway(b wire.GoAwayBody) {
	if s.o.Dialect != Plain {
		s.send(wire.Frame{Type: wire.GoAway, Payload: b.Append(nil)})
	}
}

// CloseAfterFlush ends the link with err as soon as all that is ready was
// written.
func (s *Session) CloseAfterFlush(err error) {
	s.mu.Lock()
	if s.goodbye == nil {
		s.goodbye = err
	}
	s.mu.Unlock()
	s.link.Wake()
}

// Sync waits until everything that was counted so far is acknowledged, until
// done is closed, or until the link ends. Plain peers acknowledge nothing, so
// for them it returns at once.
func (s *Session) Sync(done <-chan struct{}) {
	if s.o.Dialect == Plain {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taking && !s.waitLocked(&s.taken, done) {
		return // what was being taken would have counted
	}
	for target := s.sent; s.acked < target; {
		s.pingLocked()
		if !s.waitLocked(&s.moved, done) {
			return
		}
	}
}

// waitLocked waits until signalLocked is called for ch. It reports false when
// done was closed or the link ended.
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
	s.link.Wake()
	select {
	case <-signal:
		return true
	case <-done:
	case <-s.link.Done():
	}
	return false
}

func signalLocked(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

func (s *Session) send(f wire.Frame) {
	s.mu.Lock()
	s.control = append(s.control, f)
	s.mu.Unlock()
	s.link.Wake()
}

func (s *Session) pingLocked() {
	if !s.pinging {
		s.pinging = true
		s.control = append(s.control, wire.Frame{Type: wire.Ping})
	}
}

func (s *Session) stopOpener() {
	if s.opener != nil {
		s.opener.Stop()
	}
}

// Idle is the link's: nothing was received for an interval.
func (s *Session) Idle() {
	if s.o.Dialect == Plain {
		s.link.Ping()
		return
	}
	s.mu.Lock()
	if s.is(open) {
		s.pingLocked()
	}
	s.mu.Unlock()
	s.link.Wake()
}

// Fill is the link's: the next message. Control frames go first, and a counted
// frame is counted here, when it is taken.
func (s *Session) Fill(dst []byte) []byte {
	b := getBatch(s.o.Dialect)
	defer b.free()
	s.mu.Lock()
	pinged := s.pinging
	alone := s.takeControlLocked(b)
	pinged = pinged && !s.pinging
	ready := s.is(open) && !alone
	s.taking = ready
	s.mu.Unlock()

	if ready && !b.Full() {
		s.engine.Take(b)
	}
	s.mu.Lock()
	before := s.sent
	for i := range b.frames {
		if b.frames[i].Type.Counted() {
			s.sent++
		}
	}
	if s.probe.wanted && pinged {
		s.probe.wanted = false // alone it would be answered by any ACK
		if s.sent > before {
			s.probe.from, s.probe.at = time.Now(), s.sent
		}
	}
	if s.taking {
		s.taking = false
		signalLocked(&s.taken)
	}
	s.mu.Unlock()
	if b.Len() == 0 {
		s.farewell()
		return dst
	}
	dst, err := b.encode(dst)
	if err != nil {
		// The engine checks every bound before it queues, so this is a
		// defect of ours; the peer must not go on with a hole in the count.
		s.Fail(&link.CloseError{Code: CloseProtocol, Reason: "frame cannot be encoded", Err: err})
		return dst[:0]
	}
	return dst
}

// takeControlLocked adds the uncounted frames. A frame of the handshake goes
// alone, which the JSON dialect demands.
func (s *Session) takeControlLocked(b *Batch) (alone bool) {
	for len(s.control) > 0 && !alone {
		f := &s.control[0]
		switch f.Type {
		case wire.Hello, wire.Welcome, wire.Auth, wire.AuthOK:
			if b.Len() > 0 {
				return true
			}
			alone = true
		default:
			if !s.is(open) {
				return true // nothing but the handshake before it is done
			}
			if f.Type == wire.Ping {
				f.Position, s.pinging = s.received, false
			}
		}
		b.Add(f, nil)
		s.control = s.control[1:]
	}
	if len(s.control) == 0 {
		s.control = nil
	}
	if s.ackDue && !alone {
		b.Add(&wire.Frame{Type: wire.Ack, Position: s.received}, nil)
		s.ackDue, s.newly, s.newBytes = false, 0, 0
	}
	return alone
}

// farewell ends the link when everything was written and that was asked for.
func (s *Session) farewell() {
	s.mu.Lock()
	err := s.goodbye
	s.mu.Unlock()
	if err != nil {
		s.Fail(err)
	}
}

// Deliver is the link's: a message that arrived.
func (s *Session) Deliver(msg []byte, text bool) error {
	if text != (s.o.Dialect != Binary) {
		return protocolError("binary and text messages mixed up", nil)
	}
	var counted int
	var err error
	switch s.o.Dialect {
	case Binary:
		counted, err = s.deliverBinary(msg)
	case JSON:
		counted, err = s.deliverJSON(msg)
	case Plain:
		return s.deliverPlain(msg)
	}
	s.countReceived(counted, len(msg))
	return err
}

func (s *Session) deliverBinary(msg []byte) (counted int, err error) {
	first := true
	for len(msg) > 0 {
		n, err := wire.DecodeBinary(msg, &s.frame, s.o.Intern)
		if err != nil {
			return counted, protocolError("malformed frame", err)
		}
		msg = msg[n:]
		c, err := s.frameIn(&s.frame, first && len(msg) == 0)
		counted += c
		if err != nil {
			return counted, err
		}
		first = false
	}
	if first {
		return 0, protocolError("empty message", nil)
	}
	return counted, nil
}

func (s *Session) deliverJSON(msg []byte) (counted int, err error) {
	frames, array, err := s.reader.Read(msg)
	if err != nil {
		return 0, protocolError("malformed message", err)
	}
	for i := range frames {
		c, err := s.frameIn(&frames[i], !array)
		counted += c
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

func (s *Session) deliverPlain(msg []byte) error {
	frames, array, err := s.reader.Read(msg)
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

// frameIn takes one frame and returns 1 if it counts. alone says that nothing
// else was in its message.
func (s *Session) frameIn(f *wire.Frame, alone bool) (int, error) {
	if p := phase(s.phase.Load()); p != open {
		return 0, s.opening(p, f, alone)
	}
	switch f.Type {
	case wire.Ping:
		// Answered when the whole message was counted: see Deliver.
		return 0, s.acknowledged(f.Position, true)
	case wire.Ack:
		return 0, s.acknowledged(f.Position, false)
	case wire.GoAway:
		b, err := wire.ParseGoAway(f.Payload)
		if err != nil {
			return 0, protocolError("malformed GOAWAY", err)
		}
		s.engine.GoAway(b)
		return 0, nil
	case wire.Auth:
		// Credentials are refreshed only where WELCOME announced it.
		s.mu.Lock()
		flood := len(s.control) >= maxControl
		s.mu.Unlock()
		if flood {
			return 0, &link.CloseError{Code: CloseFlood, Reason: "answers to AUTH are not being read"}
		}
		body := wire.AuthOKBody{Error: &wire.ErrorBody{Code: 12, Message: "this peer does not refresh credentials"}}
		s.send(wire.Frame{Type: wire.AuthOK, Payload: body.Append(nil)})
		return 0, nil
	case wire.Hello, wire.Welcome, wire.AuthOK:
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

// opening takes the first frame of a link.
func (s *Session) opening(p phase, f *wire.Frame, alone bool) error {
	switch {
	case p == waitHello && f.Type == wire.Hello:
		if !alone {
			return protocolError("the client sends HELLO and then nothing until WELCOME", nil)
		}
		h, err := wire.ParseHello(f.Payload)
		if err != nil {
			return protocolError("malformed HELLO", err)
		}
		s.mu.Lock()
		s.phase.Store(uint32(authenticating))
		s.mu.Unlock()
		s.engine.Hello(h)
		return nil
	case p == authenticating:
		return protocolError("the client sends HELLO and then nothing until WELCOME", nil)
	case p == waitWelcome && f.Type == wire.Welcome:
		w, err := wire.ParseWelcome(f.Payload)
		if err != nil {
			return protocolError("malformed WELCOME", err)
		}
		s.link.SetReadLimit(s.readLimit())
		if err := s.engine.Opened(w); err != nil {
			return err
		}
		// Not before the engine is ready: until the phase changes the writer,
		// which may still be awake from HELLO, takes nothing from it.
		s.mu.Lock()
		s.phase.Store(uint32(open))
		s.ackDue = true // at once: it confirms the token
		s.probe.measure()
		s.stopOpener()
		s.mu.Unlock()
		s.link.Wake()
		return nil
	case p == waitWelcome && f.Type == wire.AuthOK:
		b, err := wire.ParseAuthOK(f.Payload)
		if err != nil || b.Error == nil {
			return protocolError("malformed answer to HELLO", err)
		}
		s.engine.Refused(b.Error)
		return nil
	}
	return protocolError("the first frame is not the handshake's", nil)
}

// acknowledged takes the peer's position.
func (s *Session) acknowledged(pos uint64, ping bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos > s.sent || pos < s.acked {
		return protocolError(fmt.Sprintf("position %d is outside %d to %d", pos, s.acked, s.sent), nil)
	}
	if pos > s.acked {
		s.acked = pos
		signalLocked(&s.moved)
	}
	if !s.probe.from.IsZero() && pos >= s.probe.at {
		s.probe.measure()
	}
	s.ackDue = s.ackDue || ping
	return nil
}

// countReceived counts what a message held, and sees that an ACK goes out when
// one is due.
func (s *Session) countReceived(frames, bytes int) {
	s.mu.Lock()
	wake := s.ackDue // a PING was among them, or the writer knows already
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
		s.link.Wake()
	}
}

func (s *Session) ackLate() {
	s.mu.Lock()
	s.ackArmed = false
	s.ackDue = s.ackDue || s.newly > 0
	due := s.ackDue
	s.mu.Unlock()
	if due {
		s.link.Wake()
	}
}

func protocolError(reason string, err error) error {
	if err != nil {
		reason += ": " + err.Error()
	}
	return &link.CloseError{Code: CloseProtocol, Reason: reason, Err: err}
}
