package hub

import (
	"context"
	"slices"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/status"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// member is somebody who subscribes to a key, or does so no more.
type member struct {
	subject string
	left    bool
	history bool // was there when the onlooker came
}

// onlooker is one who looks at a room's presence. What it has been told is its
// place: members and changes are kept once, by the room, for all who look on.
// It has none before its stream has room for an item. All under room.mu.
type onlooker struct {
	x    *engine.Stream
	name func(dst []byte, name string) ([]byte, error)

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

// onlookerCost is what one takes: its record, its place among the others, and
// what it may have to skip.
const onlookerCost = 448

// roomCost is what a key takes, beside its names. Everybody in the room pays for
// it, because each may be the one who stays.
const roomCost = 1 << 10

// Watch is the handler of a topic's presence. It returns when the stream ends.
func (h *Hub) Watch(ctx context.Context, x *engine.Stream, t *Topic, key string, p Peer) error {
	cost := onlookerCost + roomCost + 3*len(key)
	a := x.Conn().Account()
	if !a.Take(cost) {
		return status.Busy("a stream of presence")
	}
	defer a.Give(cost)
	r, err := h.enter(t, key)
	if err != nil {
		return err
	}
	defer h.exit(r)
	if err := r.openPresence(ctx); err != nil {
		return err
	}
	w := &onlooker{x: x, name: p.Name}
	if err := r.look(w); err != nil {
		return err
	}
	defer r.lookAway(w)
	return r.watch(ctx, w)
}

// watch tells w what there is, while its stream takes it. What is not asked for
// is not looked up.
func (r *room) watch(ctx context.Context, w *onlooker) error {
	for {
		wait := w.x.Blocked()
		if wait == nil {
			m, ok, news := r.next(w)
			if ok {
				if err := w.send(m); err != nil {
					return err
				}
				continue
			}
			wait = news
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		case <-w.x.Gone():
			return w.x.ContextErr()
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

// look puts w among those who look on.
func (r *room) look(w *onlooker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errHubClosed()
	}
	if r.onlookers == nil {
		r.onlookers = map[*onlooker]struct{}{}
	}
	r.onlookers[w] = struct{}{}
	if len(r.onlookers) > 1 {
		return nil
	}
	r.count = len(r.here)
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
	r.endLocked(w)
	if len(r.onlookers) == 0 {
		r.nodes = nil
		if r.hub.shared {
			r.unwatchLocked()
		}
	}
}

// next returns what w is to be told next. If there is nothing, news is closed
// when there is.
func (r *room) next(w *onlooker) (m member, ok bool, news <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.over {
		return member{}, false, nil // its stream has failed
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
	if !ok && r.news == nil {
		r.news = make(chan struct{})
	}
	return m, ok, r.news
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
			return member{subject: k.subject, history: k.since < w.from}, true
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
		if c.next != 0 && len(w.skip) < skipMost {
			w.skip = append(w.skip, c.next)
			continue
		}
		return member{subject: c.subject, left: c.left}, true
	}
	w.at = until
	return member{}, false
}
