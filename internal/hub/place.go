package hub

import (
	"strconv"
	"strings"

	"github.com/typedrpc/typedrpc/internal/flow"
)

// Places of messages, for subscribers that come back with the last one that they had: the
// life of the room, and the message's number in it.

// at is the place of a message, "" where the subscriber is not told.
func (s *subscriber) at(e *encoding) string {
	if !s.marks {
		return ""
	}
	b := strconv.AppendUint(nil, s.room.life, 16)
	return string(strconv.AppendUint(append(b, '-'), e.number, 10))
}

// hadLocked is the number of the last message that a subscriber had when it was here
// before; 0: it comes for the first time, or had what nobody here remembers. What it has
// missed since, and is not in the history, is told with the next message.
func (r *room) hadLocked(s *subscriber) uint64 {
	from := ""
	if s.x != nil {
		from = s.x.From()
	}
	if from == "" {
		return 0
	}
	life, number, _ := strings.Cut(from, "-")
	l, err := strconv.ParseUint(life, 16, 64)
	n, wrong := strconv.ParseUint(number, 10, 64)
	if err != nil || wrong != nil || l != r.life || n > r.numbered {
		s.missed = flow.MissedUnknown
		return 0
	}
	oldest := r.numbered + 1
	if r.history.Len() > 0 {
		oldest = r.history.Front().msg.number
	}
	if oldest > n+1 {
		s.missed = oldest - n - 1
	}
	return n
}

// all are the messages that are still to be sent.
func (p *past) all() []queued {
	if p == nil {
		return nil
	}
	return p.queue
}
