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
	Text    bool // the JSON-RPC dialect, whose messages …
	Depth   int  // … nest at most so deep
	Limit   int  // bytes of one message
	// Recode encodes a message of the topic, which is in the hub's codec, in the
	// connection's. It is user code, and called with a room's lock.
	Recode func(msg []byte) ([]byte, error)
	// Name appends the text of presence, encoded in the connection's codec. Watch
	// alone needs it.
	Name func(dst []byte, name string) ([]byte, error)
}

// signal wakes one of those who wait on ch.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// subscriber is one subscription. Whoever delivers a message offers it to the
// stream right away, while nothing waits; otherwise it goes into the queue,
// which the goroutine of the stream's handler empties.
type subscriber struct {
	// fixed
	x        *engine.Stream
	topic    *Topic
	policy   Policy
	most     int // bytes in queue
	peer     Peer
	observed bool // interceptors see the items: on the handler's goroutine only
	account  *account
	wake     chan struct{} // capacity 1: there is something in queue
	space    chan struct{} // capacity 1: there is less in queue

	place    int      // under room.mu: in room.subs
	past     []queued // the history that was not sent yet; the handler's goroutine alone
	heldPast *holder  // of past

	mu     sync.Mutex
	direct bool // queue is empty and the goroutine waits
	over   bool
	queue  flow.Ring[queued]
	held   *holder   // of queue, and of the item in the interceptors' hands
	bytes  int       // of queue, and of the item in the interceptors' hands
	missed uint64    // lost before the next message
	since  time.Time // it is behind since then; zero: it is not
	fault  error     // to be logged
}

// queued is a message that waits for a subscriber.
type queued struct {
	*encoding
	dropped uint64 // before it
}

// cost is what it counts for the subscriber and for its connection, which bound
// how far they are behind. What it costs the server is less: see holding.
func (q *queued) cost() int { return q.body.Len() + flow.MessageOverhead }

// subscriptionCost is what one takes: its record and channels, its place in the
// room and among the members, and what is kept of a member for those who look on.
const subscriptionCost = 512

// Subscribe is the handler of a topic's stream. It returns when the stream ends.
func (h *Hub) Subscribe(ctx context.Context, x *engine.Stream, t *Topic, key string, p Peer) error {
	c := x.Conn()
	cost := subscriptionCost + roomCost + 3*len(key)
	if !c.Account().Take(cost) {
		return status.Busy("a subscription")
	}
	defer c.Account().Give(cost)
	r, err := h.enter(t, key)
	if err != nil {
		return err
	}
	defer h.exit(r)
	if err := r.items.open(ctx); err != nil {
		return err
	}
	if err := r.openPresence(ctx); err != nil {
		return err
	}
	sub := newSubscriber(t, p, h.accountOf(c))
	sub.x, sub.observed = x, x.Watched()
	defer h.leaveAccount(c, sub.account)
	defer sub.drop()
	if err := r.join(sub); err != nil {
		return err
	}
	defer r.leave(sub)
	return sub.run(ctx)
}

func newSubscriber(t *Topic, p Peer, a *account) *subscriber {
	s := &subscriber{
		topic: t, policy: t.Policy, most: cmp.Or(t.Policy.Bytes, slowBytes), peer: p,
		account: a, held: &holder{account: a}, wake: make(chan struct{}, 1),
	}
	if t.Policy.Do == WaitAtMost {
		s.space = make(chan struct{}, 1)
	}
	return s
}

// run sends the history and then what is in the queue, until the stream ends.
func (s *subscriber) run(ctx context.Context) error {
	for len(s.past) > 0 {
		q := s.past[0]
		if err := s.x.Send(q.body, wire.History|engine.Shared, q.dropped); err != nil {
			return err
		}
		s.past[0] = queued{}
		s.past = s.past[1:]
		s.account.give(q.cost())
		q.letGo(s.heldPast)
	}
	s.past, s.heldPast = nil, nil
	for {
		s.logFault()
		wait, err := s.drain()
		if err != nil {
			return err
		}
		select {
		case <-wait:
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.x.Gone():
			return s.x.ContextErr()
		}
	}
}

// fail notes why a message cannot be given to subscribers of s's codec. It is
// logged on the goroutine of s: a logger may publish.
func (s *subscriber) fail(err error) {
	s.mu.Lock()
	s.fault = err
	s.mu.Unlock()
	signal(s.wake)
}

func (s *subscriber) logFault() {
	s.mu.Lock()
	err := s.fault
	s.fault = nil
	s.mu.Unlock()
	if err != nil {
		s.x.Conn().Logger().Error("typedrpc: a message cannot be given to subscribers of another codec",
			"topic", logs.Known(s.topic.Decl.Name), "codec", s.peer.Codec, "error", err)
	}
}

// drain sends what the stream takes now. It returns what to wait for before it
// takes more, nil when the queue is empty.
func (s *subscriber) drain() (wait <-chan struct{}, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queue.Len() > 0 {
		q := *s.queue.Front()
		if s.observed {
			s.queue.Pop()
			s.mu.Unlock()
			err := s.x.Send(q.body, engine.Shared, q.dropped)
			s.mu.Lock()
			if err != nil {
				s.freeLocked(q)
				return nil, err
			}
		} else {
			wait, err := s.x.Offer(q.body, engine.Shared, q.dropped)
			if wait != nil || err != nil {
				return wait, err
			}
			s.queue.Pop()
		}
		s.freeLocked(q)
	}
	s.direct = !s.observed
	return nil, nil
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
		s.missed = Missed(s.missed, 1)
		return true
	case s.direct:
		wait, err := s.x.Offer(e.body, engine.Shared, s.missed)
		switch {
		case err != nil:
			s.over = true // and the goroutine learns the reason itself
			return true
		case wait == nil:
			s.missed = 0
			return true
		}
	}
	return s.queueLocked(e)
}

// freeLocked gives back what was taken for q, which is not in the queue any more.
func (s *subscriber) freeLocked(q queued) {
	s.bytes -= q.cost()
	s.account.give(q.cost())
	q.letGo(s.held)
	if s.bytes <= s.most/2 {
		s.since = time.Time{}
	}
	if s.policy.Do == WaitAtMost {
		signal(s.space)
	}
}

// end ends the subscription with e.
func (s *subscriber) end(e *status.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(e)
}

func (s *subscriber) endLocked(e *status.Error) {
	if !s.over {
		s.over = true
		s.x.Fail(e)
	}
}

// drop gives back what the subscriber holds, when it is over.
func (s *subscriber) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.direct = true, false
	s.held.leave()
	for s.queue.Len() > 0 {
		s.freeLocked(s.queue.Pop())
	}
	s.held.left()
	if s.heldPast != nil {
		s.heldPast.leave()
		for _, q := range s.past {
			s.account.give(q.cost())
			q.letGo(s.heldPast)
		}
		s.heldPast.left()
	}
	s.queue, s.past = flow.Ring[queued]{}, nil
}
