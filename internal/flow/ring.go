package flow

// Ring is a queue that grows as needed and keeps its memory only while it is
// in use. The zero value is empty.
type Ring[T any] struct {
	all  []T // its length is a power of two
	head int
	n    int
}

// ringKept is how much room an empty ring keeps: for a batch of small items, so
// that a stream that is busy does not make it anew for each.
const ringKept = 1 << 10

// Len is how many there are.
func (r *Ring[T]) Len() int { return r.n }

// Push appends v.
func (r *Ring[T]) Push(v T) {
	if r.n == len(r.all) {
		all := make([]T, max(8, 2*r.n))
		k := copy(all, r.all[r.head:])
		copy(all[k:], r.all[:r.head])
		r.all, r.head = all, 0
	}
	r.all[(r.head+r.n)&(len(r.all)-1)] = v
	r.n++
}

// Front is the oldest, which must be there.
func (r *Ring[T]) Front() *T { return &r.all[r.head] }

// Pop takes the oldest, which must be there.
func (r *Ring[T]) Pop() T {
	var none T
	v := r.all[r.head]
	r.all[r.head] = none
	r.head = (r.head + 1) & (len(r.all) - 1)
	if r.n--; r.n == 0 && len(r.all) > ringKept {
		*r = Ring[T]{} // the memory of a burst
	}
	return v
}

// At is the i-th oldest, which must be there.
func (r *Ring[T]) At(i int) *T { return &r.all[(r.head+i)&(len(r.all)-1)] }
