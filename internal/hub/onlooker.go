package hub

import (
	"cmp"
	"context"
	"slices"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// member is somebody who subscribes to a key, or does so no more.
type member struct {
	subject string
	about   string // what is said of it
	left    bool
	changed bool // it was there, and something else is said of it now
	history bool // was there when the onlooker came
}

// onlooker is one who looks at a room's presence. What it has been told is its
// place: members and changes are kept once, by the room, for all who look on.
// It has none before its stream has room for an item. All under room.mu.
type onlooker struct {
	x     *engine.Stream
	room  *room
	coder *Coder
	// subject is whose stream it is.
	subject string

	unsent   *member // what the stream had no room for; the handler's alone
	waits    int     // its place in room.waiting, from 1; 0: it does not wait for news
	begun    bool
	over     bool   // it was too far behind
	scanning bool   // it is not through with the set …
	some     bool   // … but has been given some of it, …
	cursor   string // … up to this subject
	from     uint64 // the number of the first change after it began
	at       uint64 // … and of the next one that it has not looked at
	// skip are changes ahead that are not to be told, because they take back
	// others that were not told.
	skip []uint64
}

// skipMost bounds what an onlooker remembers. One that is behind further is told
// of some who came and left meanwhile.
const skipMost = 32

// onlookerCost is what one takes: its record, its place among the others, and what it may
// have to skip.
const onlookerCost = 256

// Watch begins to tell a topic's presence, on its handler's goroutine. What it
// returns goes on with that until the stream ends.
func (h *Hub) Watch(ctx context.Context, x *engine.Stream, t *Topic, key string, p Peer) (engine.Resumer, error) {
	r, err := h.admit(x, t, key, onlookerCost)
	if err != nil {
		return nil, err
	}
	w := &onlooker{x: x, room: r, coder: p.Coder, subject: p.Subject}
	begun := false
	defer func() {
		if !begun {
			r.release(x, onlookerCost)
		}
	}()
	if err := r.openPresence(ctx); err != nil {
		return nil, err
	}
	if err := r.look(w); err != nil {
		return nil, err
	}
	begun = true
	r.settled(x)
	return w, nil
}

// Resume tells w what there is, while its stream takes it. What is not asked for
// is not looked up.
func (w *onlooker) Resume(ctx context.Context) (err error) {
	defer func() {
		if err != engine.ErrRests {
			w.room.lookAway(w)
			w.room.release(w.x, onlookerCost)
		}
	}()
	if err := cmp.Or(ctx.Err(), w.x.ContextErr()); err != nil {
		return err
	}
	for w.unsent != nil || !w.x.Blocked(0) {
		m, ok := w.next()
		if !ok {
			break
		}
		if gone, err := w.send(m); err != nil {
			return err
		} else if !gone {
			w.unsent = &m
			break
		}
	}
	return engine.ErrRests
}

// next is what w is to be told next.
func (w *onlooker) next() (m member, ok bool) {
	if w.unsent == nil {
		return w.room.next(w)
	}
	m, w.unsent = *w.unsent, nil
	return m, true
}

// send reports whether the stream had room for m.
func (w *onlooker) send(m member) (gone bool, err error) {
	var flags wire.Flags
	if m.history {
		flags = wire.History
	}
	body := buf.Get()
	defer body.Release()
	if body.B, err = w.coder.Name(w.x.Conn(), body.B, m.text()); err != nil {
		return false, err
	}
	if w.x.Watched() { // interceptors see the items
		err = w.x.Send(body, flags, 0)
		return err == nil, err
	}
	return w.x.Offer(body, flags, 0)
}

// look puts w among those who look on.
func (r *room) look(w *onlooker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errHubClosed()
	}
	if len(r.onlookers) > 0 {
		r.onlookers[w] = struct{}{}
		return nil
	}
	r.watched = &watched{onlookers: map[*onlooker]struct{}{w: {}}}
	r.count = r.here.subjects()
	if r.hub.shared {
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
	r.awaitLocked(w, false)
	r.endLocked(w)
	if len(r.onlookers) == 0 {
		r.watched = &unwatched
		if r.hub.shared {
			r.unwatchLocked()
		}
	}
}

// next returns what w is to be told next. If there is nothing, w is woken when
// there is.
func (r *room) next(w *onlooker) (m member, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.over {
		return member{}, false // its stream has failed
	}
	if !w.begun {
		r.beginLocked(w)
	}
	was := w.scanning
	if was && len(r.log)-r.findLocked(r.setAt) > len(r.set)/8 {
		r.set, r.setAt = r.mergedLocked(), r.end // it need not be told who left
	}
	m, ok = r.stepLocked(w)
	if was && !w.scanning {
		r.scannedLocked()
	}
	r.awaitLocked(w, !ok)
	return m, ok
}

// stepLocked goes on to the next that w is to be told. It changes nothing but w.
//
// While w is in the set it has been told exactly those up to its cursor, as they
// were before the change that is next for it. So it may take the rest of the set
// that there is when it comes to it, once it has looked at all changes before
// that.
func (r *room) stepLocked(w *onlooker) (member, bool) {
	if w.scanning {
		if m, ok := r.followLocked(w, r.setAt); ok {
			return m, true
		}
		i, found := 0, false
		if w.some {
			if i, found = slices.BinarySearchFunc(r.set, w.cursor, known.compare); found {
				i++
			}
		}
		if i < len(r.set) {
			k := r.set[i]
			w.cursor, w.some = k.subject, true
			return r.cameLocked(w, k.subject, k.since < w.from), true
		}
		w.scanning, w.cursor = false, ""
	}
	return r.followLocked(w, r.end)
}

// followLocked goes on in the log, up to the change of number until. A change that
// a later one takes back is skipped, and so is that one.
func (r *room) followLocked(w *onlooker, until uint64) (member, bool) {
	for i := r.findLocked(w.at); i < len(r.log) && r.log[i].at < until; i++ {
		c := &r.log[i]
		w.at = c.at + 1
		if w.scanning && (!w.some || c.subject > w.cursor) {
			continue // the set tells
		}
		if k := slices.Index(w.skip, c.at); k >= 0 {
			w.skip = slices.Delete(w.skip, k, k+1)
			continue
		}
		if c.again {
			if !r.tellsLocked(c) {
				continue
			}
			return member{subject: c.subject, about: r.saidLocked(c.subject).Text, changed: true}, true
		}
		if c.next != 0 && len(w.skip) < skipMost {
			w.skip = append(w.skip, c.next)
			continue
		}
		if !c.left {
			return r.cameLocked(w, c.subject, false), true
		}
		return member{subject: c.subject, left: true}, true
	}
	w.at = until
	return member{}, false
}

// cameLocked is a member that w is told of, with what is said now: so a change of
// that ahead need not be told.
func (r *room) cameLocked(w *onlooker, subject string, history bool) member {
	if at := r.again[subject]; at >= w.at && len(w.skip) < skipMost {
		w.skip = append(w.skip, at)
	}
	return member{subject: subject, about: r.saidLocked(subject).Text, history: history}
}
