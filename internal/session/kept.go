package session

import (
	"container/heap"
	"time"
)

// Sessions without a link are kept by worth. A confirmed one outlives one whose
// client may not know of it or has left, one with calls or answers in flight an idle one, that
// of an authenticated principal anybody's, and among equals the one that lost its
// link last. An owner who has more than half of all pays first: what has to go is
// the least of theirs. So whoever only begins sessions, and drops them, pushes out
// their own.

// kept is the part of the registry that has those sessions.
type kept struct {
	away   worths // all of them
	owners map[string]*holder
	heavy  map[*holder]struct{} // those who have more than half
	bytes  int64                // that all of them hold, when they were last asked
	sweep  *time.Timer
	sweeps int    // chains of them that were begun
	turns  uint64 // sessions that were left without a link
	gone   Gone
}

// Gone counts sessions without a link that were given up, by the reason.
type Gone struct{ Grace, Room int64 }

// holder is what an owner has.
type holder struct {
	name  string
	away  worths
	bytes int64
}

func newHolder(name string) *holder { return &holder{name: name, away: worths{place: ownPlace}} }

// worths is a heap of sessions, that of the least worth on top.
type worths struct {
	all   []*entry
	place int // which of an entry's places it keeps
}

// The heaps in which a session is.
const (
	anyPlace = iota // Registry.away
	ownPlace        // holder.away
	places
)

func (w *worths) Len() int { return len(w.all) }

func (w *worths) Less(i, j int) bool {
	a, b := w.all[i], w.all[j]
	return a.worth < b.worth || a.worth == b.worth && a.turn < b.turn
}

func (w *worths) Swap(i, j int) {
	w.all[i], w.all[j] = w.all[j], w.all[i]
	w.all[i].places[w.place], w.all[j].places[w.place] = i, j
}

// Push and Pop are for package heap.
func (w *worths) Push(e any) {
	e.(*entry).places[w.place] = len(w.all)
	w.all = append(w.all, e.(*entry))
}

func (w *worths) Pop() any {
	last := len(w.all) - 1
	e := w.all[last]
	w.all[last] = nil
	w.all = w.all[:last]
	return e
}

func (w *worths) remove(e *entry) { heap.Remove(w, e.places[w.place]) }

// stay is a session's part of it.
type stay struct {
	holder *holder // nil: it has a link
	places [places]int
	worth  int
	since  *time.Timer
	turn   uint64 // when that began, by turns
	held   func() Held
	times  int32 // that it was without a link
	busy   bool
	left   bool // its client said so
	bytes  int64
	lost   func(error)
}

// Held is what is kept with a session.
type Held struct {
	Bytes int
	Busy  bool // calls are in flight, or something has not been delivered
}

// Keep keeps a session whose link ended for grace, or for the time of a
// handshake if its client may not know of it or has left. held tells what is kept with it.
// When it is over for lack of time or room lost is called with the reason, on a
// goroutine of its own.
func (r *Registry) Keep(s *Session, grace, handshake time.Duration, held func() Held, lost func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[s]
	if e == nil || e.holder != nil || s.Carrier() != nil {
		return // ended, or resumed, meanwhile
	}
	r.settleLocked(e)
	if e.left = s.left.Load(); e.left || e.confirmed == "" {
		grace = min(grace, handshake)
	}
	e.held, e.lost = held, lost
	if e.doomed != nil {
		r.endLocked(e, e.doomed)
		return
	}
	h := held()
	e.busy = h.Busy
	r.turns++
	e.turn = r.turns
	e.times++
	times := e.times
	e.since = time.AfterFunc(max(grace, 1), func() { r.expire(e, times) })
	r.enterLocked(e)
	r.weighLocked(e, int64(h.Bytes))
	r.evictLocked()
	if r.sweep == nil && r.away.Len() > 0 {
		r.sweeps++
		r.sweepLaterLocked(r.sweeps)
	}
}

// enterLocked puts a session without a link into its places.
func (r *Registry) enterLocked(e *entry) {
	h := r.owners[e.claim.Owner]
	if h == nil {
		h = newHolder(e.claim.Owner)
		if r.owners == nil {
			r.owners, r.heavy = map[string]*holder{}, map[*holder]struct{}{}
		}
		r.owners[h.name] = h
	}
	e.holder = h
	e.worth = e.worthNow()
	heap.Push(&r.away, e)
	heap.Push(&h.away, e)
	r.shareLocked(h)
}

// worthNow is what a session is worth by all but the time.
func (e *entry) worthNow() (worth int) {
	for _, is := range [...]bool{e.confirmed != "" && !e.left, e.busy, e.claim.Principal != ""} {
		worth *= 2
		if is {
			worth++
		}
	}
	return worth
}

// gradeLocked finds the places of a session anew that was confirmed while it had
// no link: its client has shown its token and could not have it, with other terms
// for example.
func (r *Registry) gradeLocked(e *entry) {
	if e.holder != nil {
		e.worth = e.worthNow()
		heap.Fix(&r.away, e.places[anyPlace])
		heap.Fix(&e.holder.away, e.places[ownPlace])
	}
}

// weighLocked notes what is kept with a session.
func (r *Registry) weighLocked(e *entry, bytes int64) {
	r.bytes += bytes - e.bytes
	e.holder.bytes += bytes - e.bytes
	e.bytes = bytes
	r.shareLocked(e.holder)
}

// shareLocked notes whether an owner has more than half.
func (r *Registry) shareLocked(h *holder) {
	if h.away.Len() > r.sessionsShare() || h.bytes > r.bytesShare() {
		r.heavy[h] = struct{}{}
	} else {
		delete(r.heavy, h)
	}
}

// What one owner may have before it pays for what is too much. Of an odd number it
// is the larger half, so that no two owners can have more at once.
func (r *Registry) sessionsShare() int { return r.MaxSessions/2 + r.MaxSessions%2 }
func (r *Registry) bytesShare() int64  { return r.MaxBytes/2 + r.MaxBytes%2 }

func (r *Registry) sweepLaterLocked(chain int) {
	r.sweep = time.AfterFunc(sweepEvery, func() { r.sweepNow(chain) })
}

// sweepEvery is how often the sessions without a link are asked what they hold, and
// whether they are idle: their handlers go on.
const sweepEvery = time.Second

func (r *Registry) sweepNow(chain int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sweep == nil || chain != r.sweeps {
		return // it had fired when it was stopped
	}
	moved := false
	for _, e := range r.away.all {
		h := e.held()
		e.busy = h.Busy
		r.weighLocked(e, int64(h.Bytes))
		worth := e.worthNow()
		moved = moved || worth != e.worth
		e.worth = worth
	}
	if moved {
		heap.Init(&r.away)
		for _, h := range r.owners {
			heap.Init(&h.away)
		}
	}
	r.evictLocked()
	r.sweep = nil
	if r.away.Len() > 0 {
		r.sweepLaterLocked(chain)
	}
}

// evictLocked gives up sessions while there are too many.
func (r *Registry) evictLocked() {
	for r.away.Len() > 0 && (r.away.Len() > r.MaxSessions || r.bytes > r.MaxBytes) {
		from := &r.away
		if h := r.furthestLocked(); h != nil {
			from = &h.away
		}
		r.gone.Room++
		r.endLocked(from.all[0], ErrEvicted)
	}
}

// furthestLocked is the owner who is furthest over its share of what is too much,
// nil if nobody is. There are a few heavy ones at most: each has about half.
func (r *Registry) furthestLocked() (h *holder) {
	furthest := 1.0
	for one := range r.heavy {
		over := 0.0
		if r.away.Len() > r.MaxSessions {
			over = float64(one.away.Len()) / float64(max(r.sessionsShare(), 1))
		}
		if r.bytes > r.MaxBytes {
			over = max(over, float64(one.bytes)/float64(max(r.bytesShare(), 1)))
		}
		if over > furthest || over == furthest && h != nil && one.name < h.name {
			h, furthest = one, over
		}
	}
	return h
}

func (r *Registry) expire(e *entry, times int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A timer that fired as the link came back has nothing to say.
	if e.holder != nil && e.times == times {
		r.gone.Grace++
		r.endLocked(e, ErrGrace)
	}
}

// endLocked ends a session. If it has no link nobody else will tell.
func (r *Registry) endLocked(e *entry, why error) {
	lost := e.lost
	r.forgetLocked(e)
	switch {
	case lost == nil && !e.s.endIfLinked(why): // in between: Attach or Keep follows
		e.doomed = why
		r.entries[e.s] = e
	case lost != nil && e.s.End(why):
		go lost(why)
	}
}

// returnLocked notes that a session has a link again.
func (r *Registry) returnLocked(e *entry) {
	h := e.holder
	if h == nil {
		return
	}
	r.away.remove(e)
	h.away.remove(e)
	e.since.Stop()
	r.weighLocked(e, 0)
	if h.away.Len() == 0 {
		delete(r.owners, h.name)
		delete(r.heavy, h)
	}
	e.stay = stay{times: e.times}
	if r.away.Len() == 0 && r.sweep != nil {
		r.sweep.Stop()
		r.sweep = nil
	}
}

// Gone counts those that were given up since the beginning.
func (r *Registry) Gone() Gone {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

// Away returns how many sessions have no link, and the bytes that they hold.
func (r *Registry) Away() (sessions int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away.Len(), r.bytes
}
