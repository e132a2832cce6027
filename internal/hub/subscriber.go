package hub

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Peer is what a subscriber's connection is, and takes.
type Peer struct {
	Subject string // of its identity; "": it has none
	Codec   string
	Text    bool  // the JSON-RPC dialect, whose messages …
	Depth   int16 // … nest at most so deep
	Limit   int32 // bytes of one message
	*Coder
	local *Listener // it is no connection's; nil: it is
}

// Coder encodes for the peers of one topic.
type Coder struct {
	// Recode encodes a message of the topic, which is in the hub's codec, in the
	// connection's. It is user code, and called with a room's lock.
	Recode func(c *engine.Conn, msg []byte) ([]byte, error)
	// Name appends the text of presence, encoded in the connection's codec. Watch
	// alone needs it.
	Name func(c *engine.Conn, dst []byte, name string) ([]byte, error)
}

// subscriber is one subscription. Whoever delivers a message offers it to the
// stream right away, while nothing waits; otherwise it goes into the queue,
// which the stream's handler empties. That has a goroutine only while there is
// something to send for which there is room.
type subscriber struct {
	// fixed
	x        *engine.Stream // nil: it is a listener's, see peer
	room     *room
	peer     *Peer
	account  *account
	observed bool // interceptors see the items: on the handler's goroutine only
	marks    bool // it is told the items' places

	direct bool  // under mu: the handler rests, and queue is empty or to be replaced
	over   bool  // under mu
	about  uint8 // fixed: bytes that its account pays for, of what is said of it
	place  int32 // under room.mu: in room.subs; -1: it is not there
	tried  int32 // under mu: what the message cost that the stream had no room for
	mu     sync.Mutex

	*backlog        // never nil; as what follows, under mu
	missed   uint64 // lost before the next message
	past     *past  // the history that was not sent yet; nil: there is none; the handler's alone
}

// backlog is what waits for a subscriber.
type backlog struct {
	queue flow.Ring[queued]
	held  *holder // of queue, and of the item in the interceptors' hands
	bytes int     // of both
	fault error   // to be logged
	lag   *lag    // WaitAtMost
}

// nothing is the backlog of all for whom nothing has waited yet. It stays empty.
var nothing backlog

// backlogLocked is that of s, which something waits in from now on.
func (s *subscriber) backlogLocked() *backlog {
	if s.backlog == &nothing {
		s.backlog = &backlog{held: &holder{account: s.account}, lag: s.room.topic.lag()}
	}
	return s.backlog
}

// past is the history that a subscriber has not been sent.
type past struct {
	queue []queued
	held  *holder
}

// lag is how far a subscriber is behind that publishers wait for.
type lag struct {
	space chan struct{} // capacity 1: there is less in queue
	since time.Time     // it is behind since then; zero: it is not. Under subscriber.mu
}

// queued is a message that waits for a subscriber.
type queued struct {
	*encoding
	dropped uint64 // before it
}

// cost is what it counts for the subscriber and for its connection, which bound
// how far they are behind. What it costs the server is less: see holding.
func (q *queued) cost() int { return q.body.Len() + flow.MessageOverhead }

// subscriptionCost is what one takes: its record, its place in the room and among
// the members.
const subscriptionCost = 192

// costWith is what a subscription takes that brought n bytes to be said of it.
func costWith(n int) int {
	if n > 0 {
		n += aboutCost
	}
	return subscriptionCost + n
}

// Subscribe begins a subscription, on its handler's goroutine. What it returns
// goes on with it until the stream ends. about is what is said of its subject from
// now on; "": what is said already.
func (h *Hub) Subscribe(ctx context.Context, x *engine.Stream, t *Topic, key string, p Peer, about string) (engine.Resumer, error) {
	if err := CheckAbout(about); err != nil {
		return nil, err
	}
	r, err := h.admit(x, t, key, costWith(len(about)))
	if err != nil {
		return nil, err
	}
	s := &subscriber{x: x, room: r, backlog: &nothing, observed: x.Watched(), marks: x.Marks(), about: uint8(len(about)), place: -1}
	s.account, s.peer = h.accountOf(x.Conn(), p)
	begun := false
	defer func() {
		if !begun {
			s.close()
		}
	}()
	if err := r.items().open(ctx); err != nil {
		return nil, err
	}
	if err := r.openPresence(ctx); err != nil {
		return nil, err
	}
	if err := r.join(s, about); err != nil {
		return nil, err
	}
	begun = true
	r.settled(x)
	return s, nil
}

// close gives back all that the subscription holds.
func (s *subscriber) close() {
	s.room.leave(s)
	s.drop()
	s.room.hub.leaveAccount(s.x.Conn(), s.account)
	s.room.release(s.x, costWith(int(s.about)))
}

// policy and most are the topic's: what becomes of a slow subscriber, and how many
// bytes it may have in queue.
func (s *subscriber) policy() *Policy { return &s.room.topic.Policy }

func (s *subscriber) most() int { return cmp.Or(s.policy().Bytes, slowBytes) }

// Resume sends the history and then what is in the queue, as far as the stream
// takes it.
func (s *subscriber) Resume(ctx context.Context) (err error) {
	defer func() {
		if err != engine.ErrRests {
			s.close()
		}
	}()
	if err := cmp.Or(ctx.Err(), s.x.ContextErr()); err != nil {
		return err
	}
	s.logFault()
	if s.past != nil {
		if gone, err := s.sendPast(); err != nil {
			return err
		} else if !gone {
			return engine.ErrRests
		}
	}
	if err := s.drain(); err != nil {
		return err
	}
	return engine.ErrRests
}

// sendPast sends what the stream takes of the history, and reports whether that
// was all.
func (s *subscriber) sendPast() (all bool, _ error) {
	for p := s.past; len(p.queue) > 0; {
		q := p.queue[0]
		if s.observed {
			if err := s.x.SendAt(q.body, wire.History|engine.Shared, q.dropped, s.at(q.encoding)); err != nil {
				return false, err
			}
		} else if gone, err := s.x.OfferAt(q.body, wire.History|engine.Shared, q.dropped, s.at(q.encoding)); !gone {
			return false, err
		}
		p.queue[0] = queued{}
		p.queue = p.queue[1:]
		s.account.give(q.cost())
		q.letGo(p.held)
	}
	s.past = nil
	return true, nil
}

// fail notes why a message cannot be given to subscribers of s's codec. It is
// logged on the goroutine of s: a logger may publish.
func (s *subscriber) fail(err error) {
	s.mu.Lock()
	s.backlogLocked().fault = err
	s.mu.Unlock()
	s.x.Wake()
}

func (s *subscriber) logFault() {
	s.mu.Lock()
	err := s.fault
	if err != nil {
		s.fault = nil
	}
	s.mu.Unlock()
	if err != nil {
		s.x.Conn().Logger().Error("typedrpc: a message cannot be given to subscribers of another codec",
			"topic", logs.Known(s.room.topic.Decl.Name), "codec", s.peer.Codec, "error", err)
	}
}

// drain sends what the stream takes now.
func (s *subscriber) drain() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queue.Len() > 0 {
		q := *s.queue.Front()
		if s.observed {
			if s.x.Blocked(q.body.Len()) { // here it can still be dropped
				break
			}
			s.queue.Pop()
			s.mu.Unlock()
			err := s.x.SendAt(q.body, engine.Shared, q.dropped, s.at(q.encoding))
			s.mu.Lock()
			if err != nil {
				s.freeLocked(q)
				return err
			}
		} else {
			if gone, err := s.offerLocked(q.encoding, &s.queue.Front().dropped); !gone {
				return err
			}
			s.queue.Pop()
		}
		s.freeLocked(q)
	}
	s.direct = !s.observed
	return nil
}

// give hands a message over without waiting: to the stream, to the queue, or
// to the policy. It reports false if the publisher is to wait. A nil e is a
// message that the subscriber cannot be given.
func (s *subscriber) give(e *encoding) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return true
	case e == nil:
		s.missed = flow.Missed(s.missed, 1)
		s.room.dropped.n.Add(1)
		return true
	case s.direct:
		s.emptyLocked() // LatestOnly alone has one there
		gone, err := s.offerLocked(e, &s.missed)
		switch {
		case err != nil:
			s.over = true // and the handler learns the reason itself
			return true
		case gone:
			s.missed = 0
			return true
		}
	}
	return s.queueLocked(e)
}

// offerLocked offers a message to the stream. Where only the newest counts it takes
// the place of those that have not left. missed are lost before it, those included.
func (s *subscriber) offerLocked(e *encoding, missed *uint64) (gone bool, _ error) {
	for {
		gone, err := s.x.OfferAt(e.body, engine.Shared, *missed, s.at(e))
		if gone || err != nil {
			return gone, err
		}
		dropped, ok := uint64(0), false
		if s.policy().Do == LatestOnly {
			dropped, ok = s.x.Recall()
		}
		if !ok {
			s.tried = int32((&queued{encoding: e}).cost())
			return false, nil
		}
		*missed = flow.Missed(*missed, flow.Missed(dropped, 1))
		s.room.dropped.n.Add(1)
	}
}

// freeLocked gives back what was taken for q, which is not in the queue any more.
func (s *subscriber) freeLocked(q queued) {
	s.bytes -= q.cost()
	s.account.give(q.cost())
	q.letGo(s.held)
	if l := s.lag; l != nil {
		if s.bytes <= s.most()/2 {
			l.since = time.Time{}
		}
		select {
		case l.space <- struct{}{}:
		default:
		}
	}
}

// end ends the subscription with e, and reports whether it had not ended yet.
func (s *subscriber) end(e *status.Error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endLocked(e)
}

func (s *subscriber) endLocked(e *status.Error) bool {
	if s.over {
		return false
	}
	s.over = true
	if s.peer.local != nil {
		s.peer.local.fail(e)
	} else {
		s.x.Fail(e)
	}
	return true
}

// wake has whoever sends or takes what is in the queue look at it.
func (s *subscriber) wake() {
	if s.peer.local != nil {
		s.peer.local.wake()
	} else {
		s.x.Wake()
	}
}

// gone is closed when nobody receives any more.
func (s *subscriber) gone() <-chan struct{} {
	if s.peer.local != nil {
		return s.peer.local.gone
	}
	return s.x.Gone()
}

// drop gives back what the subscriber holds, when it is over.
func (s *subscriber) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.direct = true, false
	if s.backlog != &nothing {
		s.held.leave()
		for s.queue.Len() > 0 {
			s.freeLocked(s.queue.Pop())
		}
		s.held.left()
	}
	if p := s.past; p != nil {
		p.held.leave()
		for _, q := range p.queue {
			s.account.give(q.cost())
			q.letGo(p.held)
		}
		p.held.left()
	}
	s.backlog, s.past = &nothing, nil
}
