package engine

import (
	"cmp"
	"iter"
	"math"
	"slices"
)

// waiting are calls without a place, or held for the next session, in the order in
// which they were made. What lacks something is not in front of what does not: so
// there is a line for each thing that may be lacking. Under Conn.mu.
type waiting struct {
	lines [3]waitingLine
}

const (
	callLine = iota
	streamLine
	orderedLine // those of Serial methods, which do not pass each other
)

// waitingLine is one of them.
type waitingLine struct {
	items
	least int // none of them takes less of the peer's budget, 0: not known
}

func (w *waiting) of(it *item) *waitingLine {
	switch {
	case it.ordered:
		return &w.lines[orderedLine]
	case it.call.stream != nil:
		return &w.lines[streamLine]
	}
	return &w.lines[callLine]
}

func (w *waiting) has(it *item) bool { return it.list != nil && it.list == &w.of(it).items }

func (w *waiting) len() (n int) {
	for i := range w.lines {
		n += w.lines[i].len
	}
	return n
}

// push adds the latest.
func (w *waiting) push(it *item) {
	l := w.of(it)
	l.least = min(l.least, it.cost)
	l.push(it)
}

// insert adds one that was made before.
func (w *waiting) insert(it *item) {
	l := w.of(it)
	l.least = min(l.least, it.cost)
	at := l.head
	for at != nil && at.call.rank < it.call.rank {
		at = at.next
	}
	l.insert(it, at)
}

func (w *waiting) remove(it *item) { w.of(it).remove(it) }

// merge adds those of o, each where it was.
func (w *waiting) merge(o *items) {
	for it := o.pop(); it != nil; it = o.pop() {
		w.push(it)
	}
	for i := range w.lines {
		w.lines[i].sort()
	}
}

// all ranges over them. The one that it is at may be removed.
func (w *waiting) all() iter.Seq[*Call] {
	return func(yield func(*Call) bool) {
		for i := range w.lines {
			for it := w.lines[i].head; it != nil; {
				next := it.next
				if !yield(it.call) {
					return
				}
				it = next
			}
		}
	}
}

// drain takes them all, in their order.
func (w *waiting) drain() (all []*Call) {
	for cl := range w.all() {
		all = append(all, cl)
	}
	for _, cl := range all {
		w.remove(&cl.item)
	}
	slices.SortFunc(all, func(a, b *Call) int { return cmp.Compare(a.rank, b.rank) })
	return all
}

// within is the oldest that takes at most so many bytes, or the very oldest if that
// does; nil: there is none.
func (l *waitingLine) within(most int, oldest bool) *Call {
	if most < l.least {
		return nil
	}
	least := math.MaxInt
	for it := l.head; it != nil; it = it.next {
		switch {
		case it.cost <= most:
			return it.call
		case oldest:
			return nil
		}
		least = min(least, it.cost)
	}
	l.least = least
	return nil
}
