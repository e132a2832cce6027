package session

import (
	"context"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Tap is somebody who looks at the frames of a session as they come and leave. It never
// makes the session wait: what is not taken in time is forgotten, the oldest first, and
// counted. While nobody looks a frame costs a session the look at a nil pointer.
//
// What a Tap has belongs to whoever made it; its methods may be called by any goroutine.
type Tap struct {
	s       *Session
	payload int // bytes that are kept of each payload; 0: of none, and no values of metadata

	mu      sync.Mutex
	seen    []Seen
	bytes   int // of seen
	dropped uint64
	more    chan struct{} // capacity 1: there is something in seen
}

// Seen is a frame that passed.
type Seen struct {
	At   time.Time
	Sent bool // by this side
	// Again are the frames of one message that were sent before, over an earlier link;
	// 0: it is the one frame that follows.
	Again int
	// Frame is a copy: of its payload, its text and its metadata no more than the Tap is
	// to have. The bodies of handshakes, which have tokens and credentials, are left out.
	// Type is wire.Invalid for answers to a plain peer's array, which are one message.
	Frame wire.Frame
	// Size is the payload's, or the message's.
	Size int
}

const (
	tapFrames = 256       // that wait for whoever looks …
	tapBytes  = 256 << 10 // … and what they take
	tapText   = 512       // bytes of an error's text, and of all metadata
)

// Tap begins to look on. payload is how many bytes of each payload are kept; with 0 none
// are, and of metadata the keys alone. Stop ends it.
func (s *Session) Tap(payload int) *Tap {
	t := &Tap{s: s, payload: payload, more: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []*Tap{t}
	if old := s.taps.Load(); old != nil {
		all = append(all, *old...)
	}
	s.taps.Store(&all)
	return t
}

// Stop ends it, and what nobody has taken is forgotten.
func (t *Tap) Stop() {
	t.s.mu.Lock()
	if old := t.s.taps.Load(); old != nil {
		var rest []*Tap
		for _, other := range *old {
			if other != t {
				rest = append(rest, other)
			}
		}
		t.s.taps.Store(nil)
		if rest != nil {
			t.s.taps.Store(&rest)
		}
	}
	t.s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen, t.bytes = nil, 0
}

// Next waits for frames, and returns those that have passed since it was called last,
// with how many were forgotten before them. It returns ErrEnded when the session is over
// and all that there is was taken, and the context's error.
func (t *Tap) Next(ctx context.Context) (seen []Seen, dropped uint64, err error) {
	for {
		over := t.s.isOver()
		if seen, dropped = t.take(); len(seen) > 0 {
			return seen, dropped, nil
		}
		if over {
			return nil, 0, ErrEnded
		}
		select {
		case <-t.more:
		case <-t.s.done:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// isOver reports whether the session is over, or about to be.
func (s *Session) isOver() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (t *Tap) take() (seen []Seen, dropped uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen, dropped = t.seen, t.dropped
	t.seen, t.bytes, t.dropped = nil, 0, 0
	return seen, dropped
}

// add notes what passed. It does not wait for whoever looks.
func (t *Tap) add(s Seen) {
	t.mu.Lock()
	t.seen = append(t.seen, s)
	t.bytes += s.cost()
	drop := 0
	for drop < len(t.seen)-1 && (len(t.seen)-drop > tapFrames || t.bytes > tapBytes) {
		t.bytes -= t.seen[drop].cost()
		drop++
	}
	clear(t.seen[:drop])
	t.seen, t.dropped = t.seen[drop:], t.dropped+uint64(drop)
	t.mu.Unlock()
	select {
	case t.more <- struct{}{}:
	default:
	}
}

func (s *Seen) cost() int {
	n := 256 + len(s.Frame.Payload) + len(s.Frame.Message) + len(s.Frame.RawID)
	for k, v := range s.Frame.Meta {
		n += 64 + len(k) + len(v)
	}
	return n
}

// copyOf is what the tap has of f.
func (t *Tap) copyOf(f *wire.Frame) wire.Frame {
	c := *f
	c.RawID = clipped(f.RawID, wire.MaxRawID)
	c.Message = string(clipped([]byte(f.Message), tapText))
	c.Payload, c.Meta = nil, nil
	switch f.Type {
	case wire.Hello, wire.Welcome, wire.Auth, wire.AuthOK:
		return c
	}
	c.Payload = clipped(f.Payload, t.payload)
	room := tapText
	for k, v := range f.Meta {
		if room -= len(k) + len(v); room < 0 {
			break
		}
		if c.Meta == nil {
			c.Meta = map[string]string{}
		}
		if t.payload == 0 {
			v = ""
		}
		c.Meta[k] = v
	}
	return c
}

// clipped copies at most n bytes of b.
func clipped(b []byte, n int) []byte {
	if n = min(n, len(b)); n == 0 {
		return nil
	}
	return append([]byte(nil), b[:n]...)
}

// came shows a frame that has come.
func (s *Session) came(f *wire.Frame) {
	if taps := s.taps.Load(); taps != nil {
		tell(*taps, f, false)
	}
}

func tell(taps []*Tap, f *wire.Frame, sent bool) {
	now := time.Now()
	for _, t := range taps {
		t.add(Seen{At: now, Sent: sent, Frame: t.copyOf(f), Size: len(f.Payload)})
	}
}

// leaves shows what leaves, and returns it.
func (s *Session) leaves(b *Batch) *Batch {
	taps := s.taps.Load()
	if taps == nil {
		return b
	}
	for i := range b.frames {
		tell(*taps, &b.frames[i], true)
	}
	if b.whole != nil {
		tell(*taps, &wire.Frame{Payload: b.whole.B}, true)
	}
	return b
}

// leavesAgain shows a message that was sent before.
func (s *Session) leavesAgain(frames, bytes int) {
	if taps := s.taps.Load(); taps != nil {
		now := time.Now()
		for _, t := range *taps {
			t.add(Seen{At: now, Sent: true, Again: frames, Size: bytes})
		}
	}
}
