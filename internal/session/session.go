// Package session is the one place where frames are counted. A carrier is one
// link: it opens with HELLO and WELCOME. A session is what it carries: it says
// how far it has read, knows how far its peer has, keeps what the peer may lack,
// and so outlives its links. It has the close codes, and the registry of those
// that have no link, which logs nothing: whoever kept one is told how it ended.
// The engine above knows calls, the link below moves bytes.
package session

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/stats"
)

// Dialect is how a connection's frames are written.
type Dialect uint8

const (
	Binary Dialect = iota // typedrpc.v1.<codec>
	JSON                  // typedrpc.jsonrpc: JSON-RPC 2.0 with hello
	Plain                 // JSON-RPC 2.0 as everybody speaks it
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
// Received frames are valid only until the call returns. Receive, ReceiveArray,
// Malformed, Odd and Ours are called by the reader and must not wait; an error ends the
// session, and so it must have a close code that does.
type Engine interface {
	// Take adds the frames that are ready to b, in the order in which they
	// are to be sent, until b is full. Called by the writer.
	Take(b *Batch)
	// Receive takes a frame, which points into msg. Of that a payload may be
	// claimed.
	Receive(f *wire.Frame, msg *buf.Buf) error
	// ReceiveArray takes a plain peer's array: its answers go back together.
	ReceiveArray(fs []wire.Frame, msg *buf.Buf) error
	// Malformed takes a plain peer's message that could not be read.
	Malformed(err error) error
	// Odd is told what is strange about a plain peer's answers, before it gets them.
	Odd(list []wire.Oddity)
	// Ours reports whether a call was made with id.
	Ours(id uint64) bool
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
	left    atomic.Bool   // at a server: its client, or a proxy, said that it goes away when the latest link ended
	done    chan struct{} // closed when the session is over

	current atomic.Pointer[Carrier] // nil while there is no link; set under all locks, cleared under mu
	logged  atomic.Int64            // bytes in log
	taps    atomic.Pointer[[]*Tap]  // who look on; nil: nobody. Set under mu, and then not changed

	reading sync.Mutex
	writing sync.Mutex

	mu       sync.Mutex
	sent     uint64 // counted frames taken into batches …
	next     uint64 // … of those, on this link: less than sent while it replays
	acked    uint64 // … and acknowledged
	log      replay
	wire     int           // bytes of the account for the message that is being written
	received uint64        // counted frames received
	newly    int32         // of those, not yet acknowledged: frames …
	newBytes int32         // … and bytes
	ackTimer *time.Timer   // nil: an ACK is not due by time
	taken    chan struct{} // closed when the engine has been asked; nil when nobody waits
	moved    chan struct{} // closed when acked grows; nil when nobody waits
	probe    probe
	goodbye  error // ends the session when everything was written
	cause    error // why it ended
	out, in  stats.Traffic
	links    uint32 // that it has had
	asked    bool   // a PING went out because the log is half full
	tight    bool   // the log bounds what is taken: an ACK is waited for
	ackDue   bool
	heard    bool // something has come over this link since WELCOME
	taking   bool // the engine is being asked; sent grows in a moment
	ended    bool
}

// New makes a session that has no link yet. log is how many bytes of what was
// sent are kept until they are acknowledged; with 0 the session ends with its
// link.
func New(e Engine, d Dialect, client bool, log int, a *flow.Account) *Session {
	return &Session{engine: e, dialect: d, client: client, log: replay{max: log, account: a}, done: make(chan struct{})}
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
	s.links++
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
	s.wroteLocked()
	s.left.Store(!s.client && goingAway(cause))
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
	case CloseDone, CloseTooBig, CloseRestart, CloseProtocol, CloseUnauthed, CloseForbidden, CloseBudget, CloseFlood:
		return false
	}
	return true
}

// goingAway reports whether the peer said that it goes away: a page that was left, which
// does not come back, or a proxy that begins anew and says so to both of its sides,
// and then the client comes at once.
func goingAway(cause error) bool {
	var ce *link.CloseError
	return errors.As(cause, &ce) && ce.Remote && ce.Code == CloseGoingAway
}

// Left reports whether there is no link, and whoever was at its other end said that it
// goes away.
func (s *Session) Left() bool { return s.left.Load() && s.current.Load() == nil }

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
	s.dropLocked()
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

// LogCost is what the log of those takes in memory, and what is being written.
func (s *Session) LogCost() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.cost + s.wire
}

// Positions returns the numbers of counted frames sent, acknowledged by the
// peer, and received.
func (s *Session) Positions() (sent, acked, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.acked, s.received
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
			c.Ping()
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
