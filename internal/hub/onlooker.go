package hub

import (
	"container/list"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// member is somebody who subscribes to a key, or does so no more.
type member struct {
	subject string
	left    bool
	history bool // was there when the onlooker came
}

// onlooker is one who looks at a room's presence. What it has not been told yet
// is at most one change for each subject: a second one takes the first back.
type onlooker struct {
	x    *engine.Stream
	name func(dst []byte, name string) ([]byte, error)
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending list.List // of member, in order
	of      map[string]*list.Element
}

func newOnlooker(x *engine.Stream, p Peer) *onlooker {
	return &onlooker{x: x, name: p.Name, wake: make(chan struct{}, 1), of: map[string]*list.Element{}}
}

func (w *onlooker) change(m member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.of[m.subject]; e != nil {
		w.pending.Remove(e)
		delete(w.of, m.subject)
		return
	}
	w.of[m.subject] = w.pending.PushBack(m)
	signal(w.wake)
}

func (w *onlooker) next() (member, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.pending.Front()
	if e == nil {
		return member{}, false
	}
	m := w.pending.Remove(e).(member)
	delete(w.of, m.subject)
	return m, true
}

// Watch is the handler of a topic's presence. It returns when the stream ends.
func (h *Hub) Watch(ctx context.Context, x *engine.Stream, t *Topic, key string, p Peer) error {
	r, err := h.enter(t, key)
	if err != nil {
		return err
	}
	defer h.exit(r)
	if err := r.openPresence(ctx); err != nil {
		return err
	}
	w := newOnlooker(x, p)
	if err := r.look(w); err != nil {
		return err
	}
	defer r.lookAway(w)
	for {
		m, ok := w.next()
		if ok {
			if err := w.send(m); err != nil {
				return err
			}
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-x.Gone():
			return x.ContextErr()
		}
	}
}

func (w *onlooker) send(m member) error {
	text := "+" + m.subject
	if m.left {
		text = "-" + m.subject
	}
	var flags wire.Flags
	if m.history {
		flags = wire.History
	}
	body := buf.Get()
	defer body.Release()
	var err error
	if body.B, err = w.name(body.B, text); err != nil {
		return err
	}
	return w.x.Send(body, flags, 0)
}

// look gives w all members as far as they are known, and then the changes.
func (r *room) look(w *onlooker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errHubClosed()
	}
	all := maps.Clone(r.here)
	for _, n := range r.nodes {
		for s := range n.members {
			all[s] = 1
		}
	}
	for _, s := range slices.Sorted(maps.Keys(all)) {
		w.change(member{subject: s, history: true})
	}
	if r.onlookers == nil {
		r.onlookers = map[*onlooker]struct{}{}
	}
	r.onlookers[w] = struct{}{}
	if r.hub.shared && len(r.onlookers) == 1 {
		r.nodes = map[string]*node{}
		r.watchLocked()
		r.askLocked()
	}
	return nil
}

func (r *room) lookAway(w *onlooker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.onlookers, w)
	if len(r.onlookers) == 0 {
		r.nodes = nil
		if r.hub.shared {
			r.unwatchLocked()
		}
	}
}
