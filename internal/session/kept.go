package session

import (
	"container/list"
	"time"
)

// Sessions without a link are kept by worth. A confirmed one outlives one whose
// client may not know of it, one with calls or answers in flight an idle one, that
// of an authenticated principal anybody's, and among equals the one that lost its
// link last. An owner who has more than half of all pays first: what has to go is
// the least of theirs. So whoever only begins sessions, and drops them, pushes out
// their own.

// kept is the part of the registry that has those sessions.
type kept struct {
	away   [worths]list.List // of *entry, the longest away first
	owners map[string]*holder
	heavy  map[*holder]struct{} // those who have more than half
	bytes  int64                // that all of them hold, when they were last asked
	sweep  *time.Timer
	sweeps int    // chains of them that were begun
	turns  uint64 // sessions that were left without a link
}

// worths is how many degrees of worth there are.
const worths = 5

// holder is what an owner has.
type holder struct {
	name  string
	away  [worths]list.List // of *entry, the longest away first
	n     int
	bytes int64
}

// stay is a session's part of it.
type stay struct {
	holder *holder // nil: it has a link
	worth  int
	among  *list.Element // in Registry.away
	own    *list.Element // in holder.away
	since  *time.Timer
	times  int    // that it was without a link
	turn   uint64 // when that began, by turns
	held   func() Held
	busy   bool
	bytes  int64
	lost   func(error)
}

// Held is what is kept with a session.
type Held struct {
	Bytes int
	Busy  bool // calls are in flight, or something has not been delivered
}

// Keep keeps a session whose link ended for grace, or for the time of a
// handshake if its client may not know of it. held tells what is kept with it.
// When it is over for lack of time or room lost is called with the reason, on a
// goroutine of its own.
func (r *Registry) Keep(s *Session, grace, handshake time.Duration, held func() Held, lost func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[s]
	if e == nil || e.holder != nil || s.Carrier() != nil {
		return // ended, or resumed, meanwhile
	}
	if r.settleLocked(e); e.confirmed == "" {
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
	if r.sweep == nil && r.keptLocked() > 0 {
		r.sweeps++
		r.sweepLaterLocked(r.sweeps)
	}
}

// enterLocked puts a session without a link into its places.
func (r *Registry) enterLocked(e *entry) {
	h := r.owners[e.claim.Owner]
	if h == nil {
		h = &holder{name: e.claim.Owner}
		if r.owners == nil {
			r.owners, r.heavy = map[string]*holder{}, map[*holder]struct{}{}
		}
		r.owners[h.name] = h
	}
	e.holder = h
	e.placeLocked(r)
	h.n++
	r.shareLocked(h)
}

// placeLocked finds its places by worth and time. It is the last that lost its
// link, but for one that is confirmed meanwhile.
func (e *entry) placeLocked(r *Registry) {
	e.worth = 0
	if e.confirmed != "" {
		e.worth = 1
		if e.claim.Principal != "" {
			e.worth++
		}
		if e.busy {
			e.worth += 2
		}
	}
	e.among, e.own = inTurn(&r.away[e.worth], e), inTurn(&e.holder.away[e.worth], e)
}

func inTurn(l *list.List, e *entry) *list.Element {
	for at := l.Back(); at != nil; at = at.Prev() {
		if at.Value.(*entry).turn < e.turn {
			return l.InsertAfter(e, at)
		}
	}
	return l.PushFront(e)
}

func (e *entry) unplaceLocked(r *Registry) {
	r.away[e.worth].Remove(e.among)
	e.holder.away[e.worth].Remove(e.own)
}

// gradeLocked finds the places of a session anew that was confirmed while it had
// no link: its client has shown its token and could not have it, with other terms
// for example.
func (r *Registry) gradeLocked(e *entry) {
	if e.holder != nil {
		e.unplaceLocked(r)
		e.placeLocked(r)
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
	if h.n > max(r.MaxSessions/2, 1) || h.bytes > r.MaxBytes/2 {
		r.heavy[h] = struct{}{}
	} else {
		delete(r.heavy, h)
	}
}

func (r *Registry) sweepLaterLocked(chain int) {
	r.sweep = time.AfterFunc(sweepEvery, func() { r.sweepNow(chain) })
}

// sweepEvery is how often the sessions without a link are asked what they hold:
// their handlers go on.
const sweepEvery = time.Second

func (r *Registry) sweepNow(chain int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sweep == nil || chain != r.sweeps {
		return // it had fired when it was stopped
	}
	for i := range r.away {
		for at := r.away[i].Front(); at != nil; at = at.Next() {
			e := at.Value.(*entry)
			r.weighLocked(e, int64(e.held().Bytes))
		}
	}
	r.evictLocked()
	r.sweep = nil
	if r.keptLocked() > 0 {
		r.sweepLaterLocked(chain)
	}
}

// keptLocked is how many sessions have no link.
func (r *Registry) keptLocked() (n int) {
	for i := range r.away {
		n += r.away[i].Len()
	}
	return n
}

// evictLocked gives up sessions while there are too many.
func (r *Registry) evictLocked() {
	for n := r.keptLocked(); n > 0 && (n > r.MaxSessions || r.bytes > r.MaxBytes); n = r.keptLocked() {
		from := &r.away
		var most *holder
		for h := range r.heavy { // a few: each has about half of what was too much
			if most == nil || h.n > most.n || h.n == most.n && h.bytes > most.bytes {
				most, from = h, &h.away
			}
		}
		r.endLocked(least(from), ErrEvicted)
	}
}

// least is the session of least worth.
func least(away *[worths]list.List) *entry {
	for i := range away {
		if first := away[i].Front(); first != nil {
			return first.Value.(*entry)
		}
	}
	return nil
}

func (r *Registry) expire(e *entry, times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// A timer that fired as the link came back has nothing to say.
	if e.holder != nil && e.times == times {
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
	e.unplaceLocked(r)
	e.since.Stop()
	r.weighLocked(e, 0)
	h.n--
	r.shareLocked(h)
	if h.n == 0 {
		delete(r.owners, h.name)
		delete(r.heavy, h)
	}
	e.stay = stay{times: e.times}
	if r.keptLocked() == 0 && r.sweep != nil {
		r.sweep.Stop()
		r.sweep = nil
	}
}

// Away returns how many sessions have no link, and the bytes that they hold.
func (r *Registry) Away() (sessions int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keptLocked(), r.bytes
}
