package session

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// errHole ends a session of which a frame was counted and cannot be written.
var errHole = &link.CloseError{Code: CloseProtocol, Reason: "frame cannot be encoded"}

var errReaderEnded = errors.New("code of the program ended the goroutine that reads, by runtime.Goexit")

// deliver takes a message that arrived over c.
func (s *Session) deliver(c *Carrier, msg *buf.Buf) error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.current.Load() != c {
		return errFenced
	}
	defer c.forget()
	returned := false
	defer func() {
		if !returned { // the program's code ended this goroutine: the rest of the message is not read
			s.End(&link.CloseError{Code: CloseRestart, Reason: "the goroutine that reads was ended", Err: errReaderEnded})
		}
	}()
	counted, size, err := 0, msg.Len(), error(nil)
	switch s.dialect {
	case Binary:
		counted, err = s.deliverBinary(c, msg)
	case JSON:
		counted, err = s.deliverJSON(c, msg)
	case Plain:
		err = s.deliverPlain(c, msg)
	}
	returned = true
	if s.dialect == Plain {
		return err
	}
	s.countReceived(c, counted, size)
	return err
}

func (s *Session) deliverBinary(c *Carrier, msg *buf.Buf) (counted int, err error) {
	if msg.Len() == 0 {
		return 0, protocolError("empty message", nil)
	}
	for rest := msg.B; len(rest) > 0; {
		n, err := wire.DecodeBinary(rest, &c.frame, c.o.Intern)
		if err != nil {
			return counted, protocolError("malformed frame", err)
		}
		rest = rest[n:]
		k, err := s.frameIn(c, &c.frame, msg)
		counted += k
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

func (s *Session) deliverJSON(c *Carrier, msg *buf.Buf) (counted int, err error) {
	frames, _, err := c.reader.Read(msg.B)
	if err != nil {
		return 0, protocolError("malformed message", err)
	}
	for i := range frames {
		k, err := s.frameIn(c, &frames[i], msg)
		counted += k
		if err != nil {
			return counted, err
		}
	}
	return counted, nil
}

func (s *Session) deliverPlain(c *Carrier, msg *buf.Buf) error {
	s.mu.Lock()
	s.cameLocked(msg.Len())
	s.mu.Unlock()
	frames, array, err := c.reader.Read(msg.B)
	for i := range frames {
		s.came(&frames[i])
	}
	if len(c.reader.Odd) > 0 {
		s.engine.Odd(c.reader.Odd)
	}
	switch {
	case err != nil:
		return s.engine.Malformed(err)
	case array:
		return s.engine.ReceiveArray(frames, msg)
	}
	for i := range frames {
		if err := s.engine.Receive(&frames[i], msg); err != nil {
			return err
		}
	}
	return nil
}

// frameIn takes one frame and returns 1 if it counts.
func (s *Session) frameIn(c *Carrier, f *wire.Frame, msg *buf.Buf) (int, error) {
	s.came(f)
	switch f.Type {
	case wire.Ping:
		// Answered when the whole message was counted: see countReceived.
		c.pinged = true
		return 0, s.acknowledged(c, f.Position)
	case wire.Ack:
		c.answers.Add(1)
		if c.asked.Load() != nil {
			c.answered()
		}
		return 0, s.acknowledged(c, f.Position)
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
		return 0, c.idled()
	}
	c.idle = max(c.idle-1, 0)
	return 1, s.engine.Receive(f, msg)
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
func (s *Session) acknowledged(c *Carrier, pos uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos > s.sent || pos < s.acked {
		return protocolError(fmt.Sprintf("position %d is outside %d to %d", pos, s.acked, s.sent), nil)
	}
	if pos == s.acked {
		if err := c.idled(); err != nil {
			return err
		}
	}
	s.ackedLocked(pos)
	if !s.probe.from.IsZero() && pos >= s.probe.at {
		s.probe.measure()
	}
	return nil
}

const (
	// Frames that are not counted and say nothing new: so many at once, and so
	// many per second. An honest peer sends one beside many that are counted,
	// which make up for it, or none.
	idleBurst = 2048
	idleRate  = 1000
)

// idled counts a frame that says nothing new.
func (c *Carrier) idled() error {
	if c.idle++; c.idle <= idleBurst {
		return nil
	}
	now := time.Now()
	if forgiven := int32(min(now.Sub(c.idleAt).Seconds()*idleRate, idleBurst)); forgiven > 0 {
		c.idle, c.idleAt = c.idle-forgiven, now
		return nil
	}
	return &link.CloseError{Code: CloseFlood, Reason: "too many frames that say nothing new"}
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
	if s.log.room() < s.log.max/2 {
		s.asked = true
		c.Ping()
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
	s.cameLocked(bytes)
	s.ackDue = s.ackDue || c.pinged
	c.pinged = false
	wake := s.ackDue
	if frames > 0 {
		s.received += uint64(frames)
		s.newly += int32(frames)
		s.newBytes = int32(min(int(s.newBytes)+bytes, math.MaxInt32))
		switch {
		case s.newly >= ackFrames || s.newBytes >= ackBytes:
			wake, s.ackDue = true, true
		case s.ackTimer == nil && !s.ended:
			s.ackTimer = time.AfterFunc(ackDelay, s.ackLate)
		}
	}
	s.mu.Unlock()
	if wake {
		c.link.Wake()
	}
}

func (s *Session) ackLate() {
	s.mu.Lock()
	s.ackTimer = nil
	s.ackDue = s.ackDue || s.newly > 0
	due := s.ackDue
	s.mu.Unlock()
	if due {
		s.Wake()
	}
}
