package flow

import (
	"math/bits"
	"sync"
)

// Ring is a queue that grows as needed and keeps its memory only while it is
// in use. The zero value is empty.
type Ring[T any] struct {
	all  []T // its length is a power of two
	head int32
	n    int32    // there may be thousands of rings
	lent *loan[T] // what all was borrowed with; nil: it is the ring's own
}

const (
	// ringKept is how much room an empty ring keeps: half a kilobyte of items, for
	// as long as the stream lives that had them.
	ringKept = 1 << ringKeptBits
	// ringLent is how much is borrowed at most. Streams that are busy fill and empty
	// a ring again and again, with a batch of small items: they share what they need
	// meanwhile, and do not make it anew for each.
	ringLent = 1 << ringLentBits

	ringKeptBits = 4
	ringLentBits = 10
)

// loan is an array that rings share. While it is lent it keeps the ring's own.
type loan[T any] struct{ all []T }

// lender has the arrays of one type, by size.
type lender [ringLentBits - ringKeptBits]sync.Pool

// lenders are by a nil pointer to the type: a generic type has no variables.
var lenders sync.Map

func lenderOf[T any]() *lender {
	key := (*T)(nil)
	l, ok := lenders.Load(key)
	if !ok {
		l, _ = lenders.LoadOrStore(key, new(lender))
	}
	return l.(*lender)
}

// of is where arrays of n are, which is a power of two.
func (l *lender) of(n int) *sync.Pool { return &l[bits.Len(uint(n))-2-ringKeptBits] }

// Len is how many there are.
func (r *Ring[T]) Len() int { return int(r.n) }

// Cap is how many it has memory for.
func (r *Ring[T]) Cap() int { return len(r.all) }

// Push appends v.
func (r *Ring[T]) Push(v T) {
	if int(r.n) == len(r.all) {
		r.grow()
	}
	r.all[int(r.head+r.n)&(len(r.all)-1)] = v
	r.n++
}

// grow moves a full ring into an array of twice the size.
func (r *Ring[T]) grow() {
	next := Ring[T]{n: r.n}
	if size := max(8, 2*int(r.n)); size <= ringKept || size > ringLent {
		next.all = make([]T, size)
	} else {
		next.lent, _ = lenderOf[T]().of(size).Get().(*loan[T])
		if next.lent == nil {
			next.lent = &loan[T]{make([]T, size)}
		}
		next.all = next.lent.all
	}
	k := copy(next.all, r.all[r.head:])
	copy(next.all[k:], r.all[:r.head])
	clear(r.all)
	own := r.own()
	if next.lent != nil {
		next.lent.all = own
	}
	*r = next
}

// own gives back what was borrowed, which is empty, and returns the ring's own
// array.
func (r *Ring[T]) own() []T {
	if r.lent == nil {
		return r.all
	}
	own := r.lent.all
	r.lent.all = r.all
	lenderOf[T]().of(len(r.all)).Put(r.lent)
	return own
}

// Front is the oldest, which must be there.
func (r *Ring[T]) Front() *T { return &r.all[r.head] }

// Pop takes the oldest, which must be there.
func (r *Ring[T]) Pop() T {
	var none T
	v := r.all[r.head]
	r.all[r.head] = none
	r.head = (r.head + 1) & int32(len(r.all)-1)
	if r.n--; r.n == 0 && len(r.all) > ringKept {
		r.rest()
	}
	return v
}

// PopLast takes the newest, which must be there.
func (r *Ring[T]) PopLast() T {
	var none T
	last := r.At(int(r.n) - 1)
	v := *last
	*last = none
	if r.n--; r.n == 0 && len(r.all) > ringKept {
		r.rest()
	}
	return v
}

// rest gives up the memory of a burst.
func (r *Ring[T]) rest() {
	if len(r.all) > ringLent {
		*r = Ring[T]{}
		return
	}
	*r = Ring[T]{all: r.own()}
}

// At is the i-th oldest, which must be there.
func (r *Ring[T]) At(i int) *T { return &r.all[(int(r.head)+i)&(len(r.all)-1)] }
