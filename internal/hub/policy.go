package hub

import (
	"fmt"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Topic is what a hub knows of a declaration. There is one pointer for each:
// rooms go by it and the key. It is not changed once it is used.
type Topic struct {
	Decl   *engine.Decl
	Policy Policy
	Last   int           // history: messages; 0: no such bound
	Recent time.Duration // history: age; 0: no such bound
	// Presence says that those who subscribe are told to those who ask, at other
	// hubs too.
	Presence bool
}

// Remembers reports whether it has a history.
func (t *Topic) Remembers() bool { return t.Last > 0 || t.Recent > 0 }

// lag is a subscriber's that something waits for, if publishers wait for those of the topic.
func (t *Topic) lag() *lag {
	if t.Policy.Do != WaitAtMost {
		return nil
	}
	return &lag{space: make(chan struct{}, 1)}
}

// Policy says what becomes of a subscriber that is slower than others publish.
type Policy struct {
	Do    Do
	Wait  time.Duration // of WaitAtMost
	Bytes int           // queued for one subscriber; 0: 256 KiB
}

// Do is the kind of a policy.
type Do uint8

// The kinds.
const (
	Disconnect Do = iota // the subscription ends
	DropOldest           // what has waited longest goes
	DropNewest           // what does not fit any more goes
	LatestOnly           // one message waits, the newest
	WaitAtMost           // the publisher waits
)

// slowBytes is the default of what is queued for one subscriber.
const slowBytes = 256 << 10

func (s *subscriber) queueLocked(e *encoding) bool {
	q := queued{encoding: e}
	policy, most := s.policy(), s.most()
	if policy.Do == LatestOnly {
		s.emptyLocked()
	}
	// One message may always wait, whatever else the connection has waiting, and
	// whatever is in the interceptors' hands: a subscription that keeps up pays for no
	// other, and the newest is not dropped for the oldest.
	for s.queue.Len() > 0 && (s.bytes+q.cost() > most || !s.account.take(q.cost())) {
		switch policy.Do {
		case Disconnect:
			if s.endLocked(s.tooSlow()) {
				s.room.slow.n.Add(1)
			}
			return true
		case WaitAtMost:
			if s.lag.since.IsZero() {
				s.lag.since = time.Now()
			}
			return false
		case DropOldest:
			s.dropFirstLocked()
			continue
		}
		s.missed = flow.Missed(s.missed, 1)
		s.room.dropped.n.Add(1)
		return true
	}
	if s.queue.Len() == 0 {
		s.account.force(q.cost())
	}
	q.dropped, s.missed = s.missed, 0
	s.direct = s.direct && policy.Do == LatestOnly // the others' waits until the handler has sent it
	s.backlogLocked().queue.Push(q)
	s.bytes += q.cost()
	e.hold(s.held)
	// Who waits for room for the first one is woken when there is, unless there is
	// a smaller one now.
	if s.observed || s.queue.Front().cost() < int(s.tried) {
		s.wake()
	}
	return true
}

// emptyLocked drops all of the queue.
func (s *subscriber) emptyLocked() {
	for s.queue.Len() > 0 {
		s.dropFirstLocked()
	}
}

// dropFirstLocked drops the oldest message of the queue; the next one tells.
func (s *subscriber) dropFirstLocked() {
	q := s.queue.Pop()
	s.freeLocked(q)
	next := &s.missed
	if s.queue.Len() > 0 {
		next = &s.queue.Front().dropped
	}
	*next = flow.Missed(*next, flow.Missed(q.dropped, 1))
	s.room.dropped.n.Add(1)
}

// await waits until e fits into the queue, and ends the subscription when that
// takes too long. Only one goroutine at a time delivers to a room, so nothing
// overtakes e.
func (s *subscriber) await(e *encoding) {
	s.mu.Lock()
	l := s.lag
	if l == nil { // it has been dropped since
		s.mu.Unlock()
		return
	}
	since := l.since
	s.mu.Unlock()
	if since.IsZero() { // it has caught up since
		since = time.Now()
	}
	timer := time.NewTimer(max(1, s.policy().Wait-time.Since(since)))
	defer timer.Stop()
	for !s.give(e) {
		select {
		case <-l.space:
		case <-timer.C:
			if s.end(s.tooSlow()) {
				s.room.slow.n.Add(1)
			}
			return
		case <-s.gone():
			return
		}
	}
}

func (s *subscriber) tooSlow() *status.Error {
	return status.Errorf(status.ResourceExhausted, "this subscriber of %q was too slow: more than %s were waiting for it, or more than its connection may have waiting; "+
		"receive in a loop that does nothing slow, subscribe again to go on, or declare the topic with another policy",
		s.room.topic.Decl.Name, byteCount(s.most()))
}

func byteCount(n int) string {
	if n >= 1<<10 && n%(1<<10) == 0 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
