package hub

import (
	"context"
	"sync"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// Listener is a subscription of this process: a loop takes what other subscribers'
// streams would. It is no member of the room, and nobody's account pays for it.
type Listener struct {
	sub   *subscriber
	peer  Peer          // its own
	ready chan struct{} // capacity 1: there is something to take
	gone  chan struct{} // closed when it is over
	end   sync.Once
	err   *status.Error // why it is over; before gone is closed
}

// Item is a message as a listener takes it, in the hub's codec.
type Item struct {
	Body    []byte // read-only
	Dropped uint64
	History bool
}

// Listen begins a subscription, which lasts until Close.
func (h *Hub) Listen(ctx context.Context, t *Topic, key string) (*Listener, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	r, err := h.enter(t, key)
	if err != nil {
		return nil, err
	}
	l := &Listener{
		ready: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	l.peer = Peer{Codec: h.options.Codec, Limit: flow.MaxMessageCeiling, local: l}
	l.sub = &subscriber{
		room: r, peer: &l.peer, account: &account{}, backlog: &nothing, observed: true, place: -1,
	}
	if err := r.items().open(ctx); err != nil {
		l.Close()
		return nil, err
	}
	if err := r.join(l.sub, ""); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Next waits for the next message. One goroutine at a time calls it.
func (l *Listener) Next(ctx context.Context) (Item, error) {
	for {
		if item, ok := l.take(); ok {
			return item, nil
		}
		select {
		case <-l.ready:
		case <-ctx.Done():
			return Item{}, status.Ended(ctx, status.MayHaveRun)
		case <-l.gone:
			if item, ok := l.take(); ok { // which came before the end
				return item, nil
			}
			if ctx.Err() != nil { // before whatever else has ended
				return Item{}, status.Ended(ctx, status.MayHaveRun)
			}
			return Item{}, l.err
		}
	}
}

// take takes what waits: the history first.
func (l *Listener) take() (item Item, ok bool) {
	s := l.sub
	if p := s.past; p != nil && len(p.queue) > 0 {
		q := p.queue[0]
		p.queue[0] = queued{}
		p.queue = p.queue[1:]
		s.account.give(q.cost())
		q.letGo(p.held)
		return Item{q.body.B, q.dropped, true}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.Len() == 0 {
		return Item{}, false
	}
	q := s.queue.Pop()
	s.freeLocked(q)
	return Item{q.body.B, q.dropped, false}, true
}

// Close ends the subscription.
func (l *Listener) Close() {
	l.fail(status.Errorf(status.Canceled, "the loop was left"))
	l.sub.room.leave(l.sub)
	l.sub.drop()
	l.sub.room.hub.exit(l.sub.room)
}

func (l *Listener) fail(e *status.Error) {
	l.end.Do(func() {
		l.err = e
		close(l.gone)
	})
}

func (l *Listener) wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}
