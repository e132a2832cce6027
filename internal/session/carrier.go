package session

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// ErrHandshakeTimeout is the cause of a link that never completed its opening.
var ErrHandshakeTimeout = errors.New("the peer did not complete the handshake in time")

// errFenced ends the reader of a link whose session has another one.
var errFenced = &link.CloseError{Code: CloseSuperseded, Reason: "superseded by a newer link"}

// maxControl bounds the answers that a peer can make us queue outside of the
// engine's budget.
const maxControl = 64

// Opener is who decides about a link's opening. Its methods are called by the
// reader and must not wait; an error ends the link.
type Opener interface {
	// Hello is called once on the server; Session.Attach, Registry.Resume or
	// Refuse follows.
	Hello(c *Carrier, h wire.HelloBody)
	// Opened is called once on the client with the server's WELCOME. It
	// attaches the carrier to a session.
	Opened(c *Carrier, w wire.WelcomeBody) error
	// Refused is called instead of Opened, before the link ends.
	Refused(e *wire.ErrorBody)
}

// Options of a carrier.
type Options struct {
	Dialect      Dialect
	Client       bool
	Message      int // our own limit of one message received
	MaxDepth     int // nesting of JSON; 0: wire.MaxDepth
	Intern       func([]byte) string
	WriteTimeout time.Duration
	MinRate      int           // of a message being received, bytes per second
	Handshake    time.Duration // bound of the opening; 0: none
}

type phase uint8

const (
	waitHello      phase = iota // server: the first frame must be HELLO
	authenticating              // server: nothing may come before WELCOME
	waitWelcome                 // client: the first frame must be WELCOME
	open
)

// Carrier is one link: first in its opening, and then as what carries a
// session, until the link ends or the session gets another one. Its methods
// may be called from any goroutine.
type Carrier struct {
	o      Options
	opener Opener
	link   *link.Link
	timer  *time.Timer // the opening's deadline

	// reader state
	reader *wire.Reader // of text
	frame  wire.Frame   // of what is binary
	pinged bool         // a PING is to be answered
	idle   int32        // frames that said nothing new …
	idleAt time.Time

	answers atomic.Int64 // ACKs received

	asked atomic.Pointer[Question] // the latest PING that somebody waits for; changed under mu

	sess atomic.Pointer[Session] // set once, when the opening is over

	mu      sync.Mutex
	phase   phase
	pinging bool         // a PING waits in control
	control []wire.Frame // uncounted frames, before all others
	goodbye error        // of an opening that failed, or of leave: ends the link when all was written
	hailed  time.Time    // when HELLO was sent
}

// NewCarrier makes a carrier over t. Run starts it.
func NewCarrier(t link.Transport, opener Opener, o Options) *Carrier {
	c := &Carrier{o: o, opener: opener}
	if o.Dialect != Binary {
		c.reader = &wire.Reader{Hello: o.Dialect == JSON, MaxDepth: o.MaxDepth, Intern: o.Intern}
	}
	if o.Client {
		c.phase = waitWelcome
	}
	c.link = link.New(t, c, link.Options{
		Text: o.Dialect != Binary, WriteTimeout: o.WriteTimeout, MinRate: o.MinRate,
		Codes: link.Codes{Slow: CloseTimeout, Full: CloseBudget, Flood: CloseFlood},
	})
	c.link.SetReadLimit(wire.MaxBuffered)
	return c
}

// readLimit is what one message of the transport may have: the largest payload
// and its envelope. The envelope is mostly metadata and an error's text, which
// JSON can write six times as long.
func (c *Carrier) readLimit() int64 { return int64(c.o.Message) + 64<<10 + 6*wire.MaxMeta }

// Run serves the link until it ends and returns why. When it returns every
// goroutine of the link has ended; Session.Detach says what that means for the
// session. See link.Link.Run for the case in which it does not return.
func (c *Carrier) Run() error {
	c.mu.Lock()
	if c.o.Handshake > 0 && c.phase != open {
		c.timer = time.AfterFunc(c.o.Handshake, func() {
			c.Fail(&link.CloseError{Code: CloseTimeout, Reason: "no handshake in time", Err: ErrHandshakeTimeout})
		})
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stopTimerLocked()
	}()
	return c.link.Run()
}

// Err is why the link has ended, nil while it has not.
func (c *Carrier) Err() error { return c.link.Err() }

func (c *Carrier) stopTimerLocked() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// Charge has a pay for messages while they are being received. It is called
// before Run.
func (c *Carrier) Charge(a link.Account) { c.link.Charge(a) }

// Fail ends the link; the first cause wins. It does not wait.
func (c *Carrier) Fail(err error) { c.link.Fail(err) }

// Kill ends the link without a goodbye, also one that is being said.
func (c *Carrier) Kill(err error) { c.link.Kill(err) }

// Silence is how long nothing was received.
func (c *Carrier) Silence() time.Duration { return c.link.Silence() }

// Stalled is how long the write under way has made no progress; 0: there is none.
func (c *Carrier) Stalled() time.Duration { return c.link.Stalled() }

// Received is how many bytes of messages have come.
func (c *Carrier) Received() int64 { return c.link.Received() }

// Partway reports whether a part of a message has come.
func (c *Carrier) Partway() bool { return c.link.Partway() }

// Answers is how many acknowledgements have come, which PINGs are answered with.
func (c *Carrier) Answers() int64 { return c.answers.Load() }

// Opening reports that the link carries no session yet.
func (c *Carrier) Opening() bool { return c.sess.Load() == nil }

// Done is closed when the link begins to end.
func (c *Carrier) Done() <-chan struct{} { return c.link.Done() }

// KeepAlive begins to watch the peer.
func (c *Carrier) KeepAlive(interval time.Duration) { c.link.KeepAlive(interval, CloseTimeout) }

// Hello sends the client's first frame.
func (c *Carrier) Hello(h wire.HelloBody) {
	c.mu.Lock()
	c.hailed = time.Now()
	c.mu.Unlock()
	c.send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)})
}

// Refuse answers a HELLO with an error and closes the link with code after it.
func (c *Carrier) Refuse(e wire.ErrorBody, code int, reason string) {
	body := wire.AuthOKBody{Error: &e}
	c.mu.Lock()
	c.control = append(c.control, wire.Frame{Type: wire.AuthOK, Payload: body.Append(nil)})
	c.goodbye = &link.CloseError{Code: code, Reason: reason}
	c.mu.Unlock()
	c.link.Wake()
}

// Auth sends new credentials.
func (c *Carrier) Auth(b wire.AuthBody) {
	c.send(wire.Frame{Type: wire.Auth, Payload: b.Append(nil)})
}

// AuthOK answers an AUTH that came on this link.
func (c *Carrier) AuthOK(b wire.AuthOKBody) {
	c.send(wire.Frame{Type: wire.AuthOK, Payload: b.Append(nil)})
}

func (c *Carrier) send(f wire.Frame) {
	c.mu.Lock()
	c.control = append(c.control, f)
	c.mu.Unlock()
	c.link.Wake()
}

// flooded reports that the peer does not read what it made us answer.
func (c *Carrier) flooded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.control) >= maxControl
}

// Idle is the link's: nothing was received for an interval.
func (c *Carrier) Idle() {
	switch {
	case c.o.Dialect == Plain:
		c.link.Ping(nil)
	case c.sess.Load() != nil:
		c.Ping()
	}
}

// Rest is the link's: its writer has had nothing to do for a while.
func (c *Carrier) Rest() {
	if s := c.sess.Load(); s != nil {
		s.rest()
	}
}

// opened makes c the carrier of s. welcome, on the server, goes first of all,
// also before a GOAWAY that came in between.
func (c *Carrier) opened(s *Session, welcome *wire.WelcomeBody) {
	c.mu.Lock()
	if welcome != nil {
		f := wire.Frame{Type: wire.Welcome, Payload: welcome.Append(nil)}
		c.control = append([]wire.Frame{f}, c.control...)
	}
	if c.o.Dialect == Plain {
		c.reader.Ours = s.engine.Ours
	}
	c.sess.Store(s)
	c.phase = open
	c.stopTimerLocked()
	c.mu.Unlock()
	c.link.SetReadLimit(c.readLimit())
}

// Fill is the link's: the next message.
func (c *Carrier) Fill(scratch *buf.Buf) *buf.Buf {
	if s := c.sess.Load(); s != nil {
		return s.fill(c, scratch)
	}
	b := getBatch(c.o.Dialect)
	defer b.free()
	c.mu.Lock()
	if c.phase == open { // since a moment ago
		c.mu.Unlock()
		return c.sess.Load().fill(c, scratch)
	}
	c.takeControlLocked(b, 0)
	goodbye := c.goodbye
	c.mu.Unlock()
	if b.Len() > 0 {
		return c.encode(b, scratch)
	}
	if goodbye != nil {
		c.Fail(goodbye)
	}
	return nil
}

// takeControlLocked adds the uncounted frames. A frame of the handshake goes
// alone, which the JSON dialect demands. pinged says that a PING is among them.
func (c *Carrier) takeControlLocked(b *Batch, received uint64) (alone, pinged bool) {
	for len(c.control) > 0 && !alone {
		f := &c.control[0]
		switch f.Type {
		case wire.Hello, wire.Welcome, wire.Auth, wire.AuthOK:
			if b.Len() > 0 {
				return true, pinged
			}
			alone = true
		default:
			if c.phase != open {
				return true, pinged // nothing but the handshake before it is done
			}
			if f.Type == wire.Ping {
				f.Position, c.pinging, pinged = received, false, true
				c.leavesLocked()
			}
		}
		b.Add(f, nil)
		c.control = c.control[1:]
	}
	if len(c.control) == 0 {
		c.control = nil
	}
	return alone, pinged
}

// Deliver is the link's: a message that arrived.
func (c *Carrier) Deliver(msg *buf.Buf, text bool) error {
	switch {
	case c.o.Dialect == Plain: // some send JSON in binary messages, and read nothing else
		c.link.Speak(text)
	case text != (c.o.Dialect == JSON):
		return protocolError("binary and text messages mixed up", nil)
	}
	if s := c.sess.Load(); s != nil {
		return s.deliver(c, msg)
	}
	return c.opening(msg)
}

// forget gives up what was read of a message: a large one would live as long as
// the next does not come.
func (c *Carrier) forget() {
	if c.reader != nil {
		c.reader.Forget()
	} else {
		c.frame = wire.Frame{}
	}
}

// opening takes the first message of a link.
func (c *Carrier) opening(msg *buf.Buf) error {
	c.mu.Lock()
	p := c.phase
	if p == waitHello {
		c.phase = authenticating // or it ends here
	}
	c.mu.Unlock()
	if p == open { // since Deliver looked
		return c.sess.Load().deliver(c, msg)
	}
	defer c.forget()
	f, alone, err := c.first(msg.B)
	if err != nil {
		return err
	}
	switch {
	case p == waitHello && f.Type == wire.Hello && alone:
		h, err := wire.ParseHello(f.Payload)
		if err != nil {
			return protocolError("malformed HELLO", err)
		}
		c.opener.Hello(c, h)
		return nil
	case p == waitHello && f.Type == wire.Hello, p == authenticating:
		return protocolError("the client sends HELLO and then nothing until WELCOME", nil)
	case p == waitWelcome && f.Type == wire.Welcome && alone:
		w, err := wire.ParseWelcome(f.Payload)
		if err != nil {
			return protocolError("malformed WELCOME", err)
		}
		return c.opener.Opened(c, w)
	case p == waitWelcome && f.Type == wire.AuthOK && alone:
		b, err := wire.ParseAuthOK(f.Payload)
		if err != nil || b.Error == nil {
			return protocolError("malformed answer to HELLO", err)
		}
		c.opener.Refused(b.Error)
		return nil
	}
	return protocolError("the first frame is not the handshake's", nil)
}

// first reads the first frame of a message, and whether it is alone in it.
func (c *Carrier) first(msg []byte) (f *wire.Frame, alone bool, err error) {
	if c.o.Dialect == Binary {
		if len(msg) == 0 {
			return nil, false, protocolError("empty message", nil)
		}
		n, err := wire.DecodeBinary(msg, &c.frame, c.o.Intern)
		if err != nil {
			return nil, false, protocolError("malformed frame", err)
		}
		return &c.frame, n == len(msg), nil
	}
	// What a payload nests in it is judged where that can be said.
	c.reader.MaxDepth = wire.BodyDepth
	frames, array, err := c.reader.Read(msg)
	c.reader.MaxDepth = c.o.MaxDepth
	if err != nil {
		return nil, false, protocolError("malformed message", err)
	}
	return &frames[0], !array, nil
}

func protocolError(reason string, err error) error {
	if err != nil {
		reason += ": " + err.Error()
	}
	return &link.CloseError{Code: CloseProtocol, Reason: reason, Err: err}
}
