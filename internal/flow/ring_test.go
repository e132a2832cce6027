package flow

import (
	"math/rand/v2"
	"testing"

	"github.com/matryer/is"
)

// Whatever is pushed comes out once, in order, and nothing of it stays behind: not
// in an empty ring, and not in what others borrow.
func TestRing_order(t *testing.T) {
	is := is.New(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var rings [4]Ring[*int]
	var pushed, popped [4]int
	for range 2_000 {
		i := rng.IntN(len(rings))
		r := &rings[i]
		for range rng.IntN(3 * ringLent >> rng.IntN(12)) {
			n := pushed[i]
			r.Push(&n)
			pushed[i]++
		}
		for k := rng.IntN(2*r.Len() + 1); k > 0 && r.Len() > 0; k-- {
			is.Equal(**r.Front(), popped[i])
			is.Equal(**r.At(r.Len() - 1), pushed[i]-1)
			is.Equal(*r.Pop(), popped[i])
			popped[i]++
		}
		if r.Len() > 0 && rng.IntN(4) == 0 { // the newest is taken back
			pushed[i]--
			is.Equal(*r.PopLast(), pushed[i])
		}
		is.Equal(r.Len(), pushed[i]-popped[i])
		held := 0
		for _, p := range r.all {
			if p != nil {
				held++
			}
		}
		is.Equal(held, r.Len())
		if r.Len() == 0 {
			is.True(len(r.all) <= ringKept)
			is.True(r.lent == nil)
		}
	}
}
