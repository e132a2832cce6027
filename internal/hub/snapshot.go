package hub

import "slices"

// Snapshot is what tests see of a hub: a copy that was made at one moment.
type Snapshot struct {
	Rooms      int
	Idle       int // of them, those that are kept for their history alone
	Accounts   []Account
	Watched    int  // rooms whose presence is asked for again and again
	Announcing bool // something is to be announced
}

// Account is what the subscriptions of one connection have queued.
type Account struct{ Used, Max int64 }

// Snapshot returns what the hub holds.
func (h *Hub) Snapshot() Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Snapshot{Rooms: h.rooms.n, Idle: h.idle.Len()}
	for _, a := range h.accounts {
		s.Accounts = append(s.Accounts, Account{Used: a.own.Used(), Max: a.most})
	}
	h.amu.Lock()
	s.Watched, s.Announcing = len(h.watched), h.running
	h.amu.Unlock()
	return s
}

// RoomSnapshot is what tests see of a room.
type RoomSnapshot struct {
	Held    []int // by subscription: bytes queued, or sent and not credited
	Pending int   // changes of presence that wait for those who look on
}

// Room returns what the room of a key holds, nothing if there is none.
func (h *Hub) Room(topic, key string) RoomSnapshot {
	var s RoomSnapshot
	r := h.find(topic, key)
	if r == nil {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.onlookers {
		s.Pending += r.pendingLocked(w)
	}
	for _, sub := range r.subs {
		sub.mu.Lock()
		held := sub.bytes
		if sub.peer.local == nil {
			held += sub.x.Uncredited()
		}
		s.Held = append(s.Held, held)
		sub.mu.Unlock()
	}
	return s
}

// pendingLocked is how many changes w has not been told, or members if it has been
// told nothing.
func (r *room) pendingLocked(w *onlooker) (n int) {
	if !w.begun {
		return r.count
	}
	v := *w
	v.skip = slices.Clone(w.skip)
	for {
		if _, ok := r.stepLocked(&v); !ok {
			return n
		}
		n++
	}
}

// Present counts a subscription of each subject in (1) or out (-1) of a room,
// which there must be, as if there were one; all at one moment. It is for tests.
func (h *Hub) Present(topic, key string, by int, subjects ...string) {
	r := h.find(topic, key)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range subjects {
		r.presentLocked(s, by)
	}
}

// Deliver gives a room, which there must be, a message as its broker does; nil:
// some may be lost. It is for tests.
func (h *Hub) Deliver(topic, key string, msg []byte) { h.find(topic, key).deliver(msg) }

// find returns the room of a key, nil if there is none.
func (h *Hub) find(topic, key string) *room {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.rooms.twins(topic, key) {
		return r
	}
	return nil
}
