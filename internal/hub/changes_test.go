package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// crowd is a room that some look at, each with what it was told.
type crowd struct {
	*room
	now  map[string]bool
	told map[*onlooker]map[string]bool
}

func newCrowd() *crowd {
	h := New(Options{})
	r, _ := h.enter(topic("chat", 0), "k")
	return &crowd{r, map[string]bool{}, map[*onlooker]map[string]bool{}}
}

func (c *crowd) change(who string) {
	c.now[who] = !c.now[who]
	by := 1
	if !c.now[who] {
		by = -1
	}
	c.mu.Lock()
	c.presentLocked(who, by)
	c.mu.Unlock()
}

func (c *crowd) join(is *is.I) *onlooker {
	w := &onlooker{x: new(engine.Stream)}
	is.NoErr(c.look(w))
	c.told[w] = map[string]bool{}
	return w
}

// step tells w one thing more. What it is told alternates.
func (c *crowd) step(is *is.I, w *onlooker) bool {
	m, ok := c.next(w)
	if ok {
		is.Equal(c.told[w][m.subject], m.left) // told what it knows
		c.told[w][m.subject] = !m.left
	}
	return ok
}

func (c *crowd) caughtUp(is *is.I, w *onlooker) {
	for c.step(is, w) {
	}
	for who, here := range c.now {
		is.Equal(c.told[w][who], here) // knows who is here
	}
	for who := range c.told[w] {
		is.Equal(c.told[w][who], c.now[who])
	}
	c.mu.Lock()
	is.Equal(c.pendingLocked(w), 0)
	c.mu.Unlock()
}

// Whatever comes and goes, and however far behind each is: everybody is told who
// is there, nobody twice.
func TestChanges_random(t *testing.T) {
	for seed := range uint64(testkit.Size(300, 40)) {
		is := is.New(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newCrowd()
		names := 1 + rng.IntN(100)
		var all []*onlooker
		for range 3000 {
			switch n := rng.IntN(100); {
			case n < 50:
				c.change(fmt.Sprint(rng.IntN(names)))
			case n < 52:
				all = append(all, c.join(is))
			case n < 53 && len(all) > 0:
				i := rng.IntN(len(all))
				c.lookAway(all[i])
				all = slices.Delete(all, i, i+1)
			case len(all) > 0:
				i := rng.IntN(len(all))
				c.step(is, all[min(i, rng.IntN(len(all)))])
			}
			if most := 2 * max(logLeast, 2*c.peak); len(c.log) > most {
				t.Fatalf("seed %d: the log has %d changes", seed, len(c.log))
			}
		}
		for _, w := range all {
			is.True(!w.over)
			c.caughtUp(is, w)
		}
		c.mu.Lock()
		c.foldLocked()
		is.Equal(len(c.log), 0) // nobody is behind
		is.Equal(c.scanning, 0) // nobody is in the set
		is.Equal(c.begun <= len(all), true)
		c.mu.Unlock()
		for _, w := range all {
			c.lookAway(w)
		}
		is.True(c.set == nil && c.log == nil && c.last == nil)
	}
}

// The set is made once for all that come while it is true, and is gone when
// nobody is in it and it is not.
func TestChanges_oneSet(t *testing.T) {
	is := is.New(t)
	c := newCrowd()
	for i := range 100 {
		c.change(fmt.Sprintf("m%02d", i))
	}
	idle := c.join(is)
	is.True(c.set == nil) // nobody has asked for anything
	a, b := c.join(is), c.join(is)
	c.step(is, a)
	first := &c.set[0]
	c.step(is, b)
	is.True(first == &c.set[0])
	c.change("m50")
	c.change("m98")
	c.change("m98")
	c.step(is, a)
	is.True(first == &c.set[0]) // few changes: it is good enough
	c.change("new")
	d := c.join(is)
	c.step(is, d)
	is.True(first != &c.set[0])
	is.Equal(len(c.set), 100)
	for range 97 { // but m50
		m, ok := c.next(a)
		is.True(ok && m.subject != "m50" && !m.left)
		is.Equal(m.history, m.subject != "m98") // it came back later
		c.told[a][m.subject] = true
	}
	m, ok := c.next(a) // came after a
	is.Equal(m, member{subject: "new"})
	is.True(ok)
	c.told[a]["new"] = true
	for _, w := range []*onlooker{a, b, d} {
		c.caughtUp(is, w)
	}
	c.change("m01")
	is.True(c.set == nil)
	c.caughtUp(is, a)
	c.caughtUp(is, idle)
}

// Who came and left meanwhile is not told, as long as few did; and the log keeps
// nothing of them if nobody is between the two.
func TestChanges_takenBack(t *testing.T) {
	is := is.New(t)
	c := newCrowd()
	slow, fast := c.join(is), c.join(is)
	c.caughtUp(is, slow)
	c.caughtUp(is, fast)
	for i := range 10_000 {
		c.change(fmt.Sprint("guest ", i%5))
		c.caughtUp(is, fast)
	}
	is.True(len(c.log) <= 2*foldLeast)
	c.change("stays")
	m, ok := c.next(slow)
	is.Equal(m, member{subject: "stays"})
	is.True(ok)
	c.told[slow]["stays"] = true
	c.caughtUp(is, slow)
}
