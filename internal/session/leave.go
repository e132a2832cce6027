package session

import (
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Leave is End that says b before it, unless the peer takes too long to read.
func (s *Session) Leave(b wire.GoAwayBody, err error) (alone bool) {
	s.mu.Lock()
	c := s.current.Load()
	if s.ended || c == nil || s.dialect == Plain {
		s.mu.Unlock()
		return s.End(err)
	}
	s.ended, s.cause = true, err
	close(s.done)
	s.mu.Unlock()
	c.leave(b, err)
	return false
}

// leave ends the link when b was written, and nothing else but what goes before all others.
func (c *Carrier) leave(b wire.GoAwayBody, err error) {
	c.mu.Lock()
	c.control = append(c.control, wire.Frame{Type: wire.GoAway, Payload: b.Append(nil)})
	c.goodbye = err
	c.mu.Unlock()
	time.AfterFunc(leaveTime, func() { c.Fail(err) })
	c.link.Wake()
}

// leaveTime is how long a peer has to take what was said to it last.
const leaveTime = time.Second

// left is what the link ends with when the control frames have been written; nil: it goes on.
func (c *Carrier) left() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goodbye
}

// leaveLocked makes the message of the control frames that are left, and then ends c with bye.
// It gives up mu.
func (s *Session) leaveLocked(c *Carrier, b *Batch, scratch *buf.Buf, bye error) *buf.Buf {
	defer s.mu.Unlock()
	if b.Len() == 0 {
		c.Fail(bye)
		return nil
	}
	out := c.encode(s.leaves(b), scratch)
	if out != nil {
		s.writesLocked(out, scratch)
	}
	return out
}
