package hub

import (
	"slices"

	"github.com/typedrpc/typedrpc/internal/status"
)

// Members are the subjects that subscribe to a key at this hub, in order, and what it
// says of them.
func (h *Hub) Members(t *Topic, key string) ([]Told, error) {
	r, err := h.lookup(t, key)
	if r == nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Told, 0, r.here.subjects())
	for _, s := range slices.Sorted(r.here.all()) {
		all = append(all, Told{Subject: s, About: r.said[s].Text})
	}
	return all, nil
}

// Remove ends the streams of a subject at this hub, its subscriptions to a key and
// those of presence, with reason. It returns how many they are.
func (h *Hub) Remove(t *Topic, key, subject string, reason *status.Error) (n int, err error) {
	r, err := h.lookup(t, key)
	if r == nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		if s.peer.local == nil && s.peer.Subject == subject && s.end(reason) {
			n++
		}
	}
	for w := range r.onlookers {
		if w.subject == subject && !w.over {
			w.over = true
			w.x.Fail(reason)
			n++
		}
	}
	return n, nil
}

// lookup finds a room, nil if there is none.
func (h *Hub) lookup(t *Topic, key string) (*room, error) {
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errHubClosed()
	}
	return h.rooms.of(t, key), nil
}
