package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/matryer/is"
)

// TestHeadcount compares it with a map.
func TestHeadcount(t *testing.T) {
	is := is.New(t)
	rng := rand.New(rand.NewPCG(1, 2))
	var h headcount
	here := map[string]int{}
	for range 10_000 {
		who := []string{"", "a", "b"}[rng.IntN(3)] // one may have no name
		by := 1
		if here[who] > 0 && rng.IntN(5) < 3 {
			by = -1
		}
		h.add(who, by)
		if here[who] += by; here[who] == 0 {
			delete(here, who)
		}
		is.Equal(h.subjects(), len(here))
		is.Equal(slices.Sorted(h.all()), slices.Sorted(maps.Keys(here)))
		for _, who := range []string{"", "a", "b", "c"} {
			is.Equal(h.of(who), here[who])
		}
		for range h.all() {
			break
		}
	}
}

// TestRoom_emptyIsShared checks that rooms at which nobody looks write nothing to the
// record that they share.
func TestRoom_emptyIsShared(t *testing.T) {
	is := is.New(t)
	c := newCrowd()
	w := c.join(is)
	c.change("a")
	c.caughtUp(is, w)
	is.True(c.watched != &unwatched)
	c.lookAway(w)
	is.True(c.watched == &unwatched) // the last one left
	for i := range 100 {
		c.change(fmt.Sprint(i % 7))
		c.mu.Lock()
		c.sayLocked(fmt.Sprint(i%7), fmt.Sprint(i))
		c.mu.Unlock()
	}
	c.mu.Lock()
	c.beatLocked(time.Now())
	c.mu.Unlock()
	c.lookAway(w)
	u := &unwatched
	is.True(u.nodes == nil && u.onlookers == nil && u.log == nil && u.last == nil && u.again == nil && u.set == nil && u.waiting == nil)
	is.True(u.count == 0 && u.begun == 0 && u.end == 0 && u.scanning == 0)
}
