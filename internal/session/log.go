package session

import (
	"sort"
	"strconv"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// segment is a message that was written: some counted frames, one after
// another in the count.
type segment struct {
	msg    *buf.Buf
	end    uint64    // the position after its last frame
	frames int       // counted ones
	pure   bool      // it has no others …
	at     time.Time // … or none that tells a time: zero. Else when it was encoded
}

// segmentOverhead is what a segment takes beside its buffer's bytes.
const segmentOverhead = 96

// cost is what the segment takes in memory.
func (s *segment) cost() int { return cap(s.msg.B) + segmentOverhead }

// replay is the log of what was sent and has not been acknowledged, in the
// order of the count. The messages are kept as they were written.
type replay struct {
	max   int // bytes; 0: nothing is kept
	bytes int
	cost  int       // in memory: of small messages it is many times their bytes
	all   []segment // from head
	head  int
	idle  bool // nothing has been added for a while

	account *flow.Account // counts the segments, too
}

// room is how many bytes more may be written before something is acknowledged.
// In memory the log takes at most twice its bound, and one message.
func (l *replay) room() int { return min(l.max-l.bytes, 2*l.max-l.cost) }

func (l *replay) add(s segment) {
	if l.head > len(l.all)/2 { // mostly gone: move the rest instead of growing
		n := copy(l.all, l.all[l.head:])
		clear(l.all[n:])
		l.all, l.head = l.all[:n], 0
	}
	l.all = append(l.all, s)
	l.bytes += s.msg.Len()
	l.cost += s.cost()
	l.account.Force(s.cost())
	l.idle = false
}

// rest is called when nothing has been added for a while.
func (l *replay) rest() {
	l.idle = true
	l.trim()
}

// trim gives up the memory that is kept for being busy.
func (l *replay) trim() {
	if l.head < len(l.all) {
		return
	}
	l.all, l.head = l.all[:0], 0
	if l.idle || cap(l.all) > 2*ackFrames {
		l.all = nil
	}
}

// drop gives up what was acknowledged up to pos.
func (l *replay) drop(pos uint64) {
	for l.head < len(l.all) && l.all[l.head].end <= pos {
		s := &l.all[l.head]
		l.bytes -= s.msg.Len()
		l.cost -= s.cost()
		l.account.Give(s.cost())
		s.msg.Release()
		*s = segment{}
		l.head++
	}
	l.trim()
}

// after returns the segment that the frame after pos is in, which must be there.
func (l *replay) after(pos uint64) *segment {
	live := l.all[l.head:]
	return &live[sort.Search(len(live), func(i int) bool { return live[i].end > pos })]
}

// again adds a segment's frames after pos to b, as they are to be sent now: the
// time that they have left has become shorter, and keyed calls are older. Called
// by the writer.
func (s *segment) again(b *Batch, pos uint64) error {
	skip := s.frames - int(s.end-pos)
	late := uint64(0)
	if !s.at.IsZero() {
		late = uint64(time.Since(s.at) / time.Millisecond)
	}
	add := func(f *wire.Frame) {
		if !f.Type.Counted() {
			return
		}
		if skip > 0 {
			skip--
			return
		}
		if f.TimeLeft > 0 {
			f.TimeLeft = max(f.TimeLeft, late+1) - late
		}
		if age, err := strconv.ParseUint(f.Meta[wire.MetaAge], 10, 53); err == nil {
			f.Meta[wire.MetaAge] = strconv.FormatUint(age+late, 10)
		}
		b.Add(f, s.msg.Retain())
	}
	if b.dialect == Binary {
		var f wire.Frame
		for msg := s.msg.B; len(msg) > 0; {
			n, err := wire.DecodeBinary(msg, &f, nil)
			if err != nil {
				return err
			}
			msg = msg[n:]
			add(&f)
		}
		return nil
	}
	// Depth was checked when the payload was encoded.
	r := wire.Reader{Hello: true, MaxDepth: 1 << 20}
	frames, _, err := r.Read(s.msg.B)
	for i := range frames {
		add(&frames[i])
	}
	return err
}
