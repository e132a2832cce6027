package session

import (
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

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
	s.wroteLocked()
	alone, pinged := s.takeControlLocked(c, b)
	if bye := c.left(); bye != nil {
		return s.leaveLocked(c, b, scratch, bye)
	}
	if s.next < s.sent && b.Len() == 0 && !alone {
		return s.replayLocked(c, b, scratch)
	}
	ready := s.next == s.sent && !alone
	if ready && s.log.max > 0 {
		b.within(&s.log)
		ready = s.log.room() > 0
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
	out := c.encode(s.leaves(b), scratch)
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
	s.probedLocked(pinged, counted > 0)
	s.takenLocked()
	if out != nil && !b.welcome() {
		s.leftLocked(out.Len())
	}
	switch {
	case out == nil:
	case counted > 0 && s.log.max > 0:
		s.keepLocked(c, segment{msg: keptOf(out, scratch), end: s.sent, frames: counted, pure: pure}, timed)
	default:
		s.writesLocked(out, scratch)
	}
	s.lateLocked()
	return out
}

// encode writes a batch into scratch, or a large one into a buffer that is as large
// as it needs to be, since it is held for as long as the peer does not read. The
// engine checks every bound before it queues, so an error is a defect of ours; the
// peer must not go on with a hole in the count.
func (c *Carrier) encode(b *Batch, scratch *buf.Buf) *buf.Buf {
	if b.whole != nil {
		return b.whole.Retain()
	}
	msg := scratch
	if b.size > largeBatch {
		if b.size > flow.HeavyFrom {
			defer flow.Heavy()()
		} else {
			defer flow.Bulk()()
		}
		msg = buf.Sized(b.size)
	}
	var err error
	if msg.B, err = b.encode(msg.B); err != nil {
		c.Fail(&link.CloseError{Code: CloseProtocol, Reason: "frame cannot be encoded", Err: err})
		if msg != scratch {
			msg.Release()
		}
		return nil
	}
	return msg
}

// largeBatch is what a writer's scratch does not grow to.
const largeBatch = flow.BulkFrom

// writesLocked counts a message for as long as it is being written, where it is
// not counted as one that is kept. scratch is the writer's.
func (s *Session) writesLocked(msg, scratch *buf.Buf) {
	if msg != scratch {
		s.wire = msg.Size()
		s.log.account.Force(s.wire)
	}
}

func (s *Session) wroteLocked() {
	s.log.account.Give(s.wire)
	s.wire = 0
}

// keptOf is msg with a reference for the log: a copy where that is smaller.
func keptOf(msg, scratch *buf.Buf) *buf.Buf {
	if msg == scratch {
		return buf.Copy(msg.B)
	}
	return msg.Keep()
}

// keepLocked keeps a message in the log until it is acknowledged.
func (s *Session) keepLocked(c *Carrier, kept segment, timed bool) {
	if timed {
		kept.at = time.Now()
	}
	s.log.add(kept)
	s.loggedLocked(c)
}

// probedLocked notes that a ping for a measurement has left, with counted frames
// or alone.
func (s *Session) probedLocked(pinged, counted bool) {
	if !s.probe.wanted || !pinged {
		return
	}
	s.probe.wanted = false // alone it would be answered by any ACK
	if counted {
		s.probe.from, s.probe.at = time.Now(), s.sent
	}
}

// rest gives up the memory that a busy session keeps.
func (s *Session) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.rest()
}

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
		c.Ping() // all that was missing is there: the log can be emptied
	}
	seg.msg.Retain() // an ACK could drop it
	whole := seg.pure && seg.at.IsZero() && seg.end-pos == uint64(seg.frames)
	if whole {
		s.leftLocked(seg.msg.Len())
	}
	s.mu.Unlock()
	s.leavesAgain(seg.frames, seg.msg.Len())
	if whole {
		return seg.msg
	}
	defer seg.msg.Release()
	if err := seg.again(b, pos); err != nil {
		c.Fail(protocolError("what was sent cannot be sent again", err))
		return nil
	}
	msg := c.encode(b, scratch)
	if msg != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leftLocked(msg.Len())
		s.writesLocked(msg, scratch)
		s.lateLocked()
	}
	return msg
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
		c.Ping()
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
	if s.log.room() < s.log.max/2 && !s.asked {
		s.asked = true
		c.Ping()
	}
}

// dropLocked forgets what was sent, and what is being written.
func (s *Session) dropLocked() {
	s.wroteLocked()
	s.log.drop(math.MaxUint64)
	s.logged.Store(0)
}

// lateLocked is called when a message was made: its link may have gone meanwhile, or
// the session may have ended, and nobody else comes to forget it.
func (s *Session) lateLocked() {
	switch {
	case s.current.Load() != nil:
	case s.ended:
		s.dropLocked()
	default:
		s.wroteLocked()
	}
}
