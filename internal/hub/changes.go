package hub

import (
	"cmp"
	"maps"
	"slices"

	"github.com/typedrpc/typedrpc/internal/status"
)

// changes are what those who look at a room's presence have to be told: one set
// of members and one log of changes for all of them. There is a set only while
// somebody is not through with it, and a log only as long as somebody is behind.
// All under room.mu.
type changes struct {
	count int // members, while somebody looks on
	begun int // onlookers that have a place
	end   uint64
	log   []change          // by number, with gaps where changes were taken back
	last  map[string]uint64 // by subject, its last change in log
	again map[string]uint64 // by subject, the last change of what is said of it; nil: none
	fold  int               // the length at which log is folded
	peak  int               // the largest count while somebody was behind
	// waiting are those who have been told everything.
	waiting []*onlooker

	set      []known // members by subject …
	setAt    uint64  // … as they were before this change
	scanning int     // onlookers that are not through with it
}

// change is one who came or left, or of whom something else is said.
type change struct {
	at      uint64 // its number: they rise
	next    uint64 // the next time that the subject comes or leaves; 0: there is none
	subject string
	left    bool
	again   bool // it neither came nor left: what is said of it changed
}

// known is a member in a set.
type known struct {
	subject string
	since   uint64 // the change that it came with; 0: one before all onlookers of the set
}

func (k known) compare(subject string) int { return cmp.Compare(k.subject, subject) }

const (
	foldLeast = 16
	// logLeast is how many changes, or else twice as many as there were members,
	// the log keeps for those who are behind. It holds twice as many before they
	// are counted.
	logLeast = 512
)

func (c *changes) findLocked(at uint64) int {
	i, _ := slices.BinarySearchFunc(c.log, at, func(c change, at uint64) int { return cmp.Compare(c.at, at) })
	return i
}

// tellLocked notes a change for all who look on.
func (r *room) tellLocked(subject string, came bool) {
	if len(r.onlookers) == 0 {
		return
	}
	r.count--
	if came {
		r.count += 2
	}
	if r.scanning == 0 {
		r.set = nil
	}
	r.logLocked(change{subject: subject, left: !came})
}

// logLocked appends a change, and wakes those who wait for one.
func (r *room) logLocked(c change) {
	if r.begun == 0 {
		return
	}
	c.at = r.end
	r.end++
	r.log = append(r.log, c)
	r.linkLocked(len(r.log) - 1)
	r.peak = max(r.peak, r.count)
	for _, w := range r.waiting {
		w.waits = 0
		w.x.Wake()
	}
	clear(r.waiting)
	r.waiting = r.waiting[:0]
	if len(r.log) >= max(r.fold, foldLeast) {
		r.foldLocked()
		r.boundLocked()
		r.fold = 2 * len(r.log)
	}
}

// linkLocked notes where the change with index i of log is, and of the subject's
// changes before it that it is the next.
func (r *room) linkLocked(i int) {
	c := &r.log[i]
	before, said := r.last[c.subject], r.again[c.subject]
	if c.again {
		if r.again == nil {
			r.again = map[string]uint64{}
		}
		r.again[c.subject] = c.at
		return
	}
	if before != 0 {
		r.log[r.findLocked(before)].next = c.at
	}
	if said > before {
		r.log[r.findLocked(said)].next = c.at
	}
	if r.last == nil {
		r.last = map[string]uint64{}
	}
	r.last[c.subject] = c.at
}

// beginLocked gives w its place: before the set as it is now, which is made if
// there is none and else brought up to date.
func (r *room) beginLocked(w *onlooker) {
	r.begun++
	r.scanning++
	r.end = max(r.end, 1) // 0 is none
	switch {
	case r.set == nil:
		r.set = r.allLocked()
	case r.setAt < r.end:
		r.set = r.mergedLocked()
	}
	r.setAt = r.end
	w.begun, w.scanning, w.from, w.at = true, true, r.end, r.end
}

// awaitLocked puts w among those who wait for the next change, or takes it away.
func (r *room) awaitLocked(w *onlooker, waits bool) {
	switch last := len(r.waiting) - 1; {
	case waits == (w.waits > 0):
	case waits:
		r.waiting = append(r.waiting, w)
		w.waits = len(r.waiting)
	default:
		moved := r.waiting[last]
		r.waiting[w.waits-1], moved.waits = moved, w.waits
		r.waiting[last] = nil
		r.waiting, w.waits = r.waiting[:last], 0
	}
}

// endLocked takes w's place away.
func (r *room) endLocked(w *onlooker) {
	if !w.begun {
		return
	}
	w.begun = false
	r.begun--
	if w.scanning {
		w.scanning = false
		r.scannedLocked()
	}
	if r.begun == 0 {
		r.log, r.last, r.again, r.fold, r.peak, r.set = nil, nil, nil, 0, 0, nil
	}
}

// scannedLocked is called when one who looks on needs the set no more.
func (r *room) scannedLocked() {
	if r.scanning--; r.scanning == 0 && r.setAt < r.end {
		r.set = nil
	}
}

// allLocked makes the set: this hub's members and all others'.
func (r *room) allLocked() []known {
	set := make([]known, 0, r.count)
	for s := range r.here.all() {
		set = append(set, known{subject: s})
	}
	for _, n := range r.nodes {
		for s := range n.members {
			set = append(set, known{subject: s})
		}
	}
	order := func(a, b known) int { return cmp.Compare(a.subject, b.subject) }
	slices.SortFunc(set, order)
	return slices.CompactFunc(set, func(a, b known) bool { return a.subject == b.subject })
}

// mergedLocked is the set with the changes since it was made.
func (r *room) mergedLocked() []known {
	lately := map[string]*change{}
	for i := r.findLocked(r.setAt); i < len(r.log); i++ {
		if c := &r.log[i]; !c.again {
			lately[c.subject] = c
		}
	}
	set, old := make([]known, 0, r.count), r.set
	for _, s := range slices.Sorted(maps.Keys(lately)) {
		i, found := slices.BinarySearchFunc(old, s, known.compare)
		set = append(set, old[:i]...)
		if old = old[i:]; found {
			old = old[1:]
		}
		if c := lately[s]; !c.left {
			set = append(set, known{subject: s, since: c.at})
		}
	}
	return append(set, old...)
}

// foldLocked drops the changes that everybody has been told, and two of a subject
// that nobody is between.
func (r *room) foldLocked() {
	places, pinned := r.placesLocked()
	type seen struct{ place, index int }
	before := map[string]seen{} // the subject's change that the next one may take back
	place := 0
	kept := r.log[:0]
	for _, c := range r.log {
		for place < len(places) && places[place] <= c.at {
			place++
		}
		if place == 0 {
			continue
		}
		if _, ok := pinned[c.at]; ok {
			if !c.again {
				delete(before, c.subject)
			}
		} else if c.again {
			if r.again[c.subject] != c.at {
				continue // what is said now is told later
			}
		} else if b, ok := before[c.subject]; ok && b.place == place {
			kept[b.index].at = 0
			delete(before, c.subject)
			continue
		} else {
			before[c.subject] = seen{place, len(kept)}
		}
		kept = append(kept, c)
	}
	kept = slices.DeleteFunc(kept, func(c change) bool { return c.at == 0 })
	clear(kept[len(kept):len(r.log)])
	r.relinkLocked(kept)
}

// relinkLocked makes log the changes there are.
func (r *room) relinkLocked(log []change) {
	if cap(log) > 4*max(len(log), foldLeast) {
		log = slices.Clone(log)
	}
	r.log, r.last, r.again = log, nil, nil
	if len(log) == 0 {
		r.peak = 0
		return
	}
	r.last = make(map[string]uint64, len(log))
	for i := range log {
		log[i].next = 0
		r.linkLocked(i)
	}
}

// placesLocked returns the places that somebody is at, in order, and the changes
// that somebody is to skip.
func (r *room) placesLocked() (places []uint64, pinned map[uint64]struct{}) {
	pinned = map[uint64]struct{}{}
	for w := range r.onlookers {
		if w.begun {
			places = append(places, w.at)
			for _, at := range w.skip {
				pinned[at] = struct{}{}
			}
		}
	}
	if r.set != nil {
		places = append(places, r.setAt)
	}
	slices.Sort(places)
	return slices.Compact(places), pinned
}

// boundLocked ends those who are so far behind that the log would have to be
// longer than it may be.
func (r *room) boundLocked() {
	most := max(logLeast, 2*r.peak)
	if len(r.log) <= most {
		return
	}
	from := r.log[len(r.log)-most].at
	for w := range r.onlookers {
		if w.begun && w.at < from {
			w.over = true
			w.x.Fail(status.Errorf(status.ResourceExhausted, "this reader of the presence of %q was too slow: more than %d changes were waiting for it; "+
				"receive in a loop that does nothing slow, and ask for the presence again to go on", r.topic.Decl.Name, most))
			r.endLocked(w)
		}
	}
	r.foldLocked()
}
