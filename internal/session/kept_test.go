package session

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// compareKept compares the sessions without a link with the model's: each is where
// its worth puts it, and the sums of the owners are right.
func (w *world) compareKept() {
	r := w.reg
	bytes := int64(0)
	for i, s := range w.model.away {
		e := r.entries[w.reals[s]]
		switch {
		case e == nil || e.holder == nil:
			w.failf("session %.4s is not away", s.name)
			return
		case e.holder.name != s.owner || r.owners[s.owner] != e.holder:
			w.failf("session %.4s is counted for %q instead of %q", s.name, e.holder.name, s.owner)
		case e.worth != s.worth():
			w.failf("session %.4s is worth %d instead of %d", s.name, e.worth, s.worth())
		case i > 0 && r.entries[w.reals[w.model.away[i-1]]].turn >= e.turn:
			w.failf("session %.4s is away for longer than the one before", s.name)
		}
		bytes += e.bytes
	}
	if bytes != r.bytes {
		w.failf("%d bytes are counted instead of %d", r.bytes, bytes)
	}
	owned := 0
	for _, h := range r.owners {
		owned += h.away.Len()
		if err := sound(&h.away); err != nil || h.away.Len() == 0 {
			w.failf("%q has %d sessions: %v", h.name, h.away.Len(), err)
		}
	}
	if err := sound(&r.away); err != nil || owned != r.away.Len() {
		w.failf("owners have %d sessions of %d: %v", owned, r.away.Len(), err)
	}
}

// sound checks that a heap is one, and that everybody knows their place.
func sound(h *worths) error {
	for i, e := range h.all {
		if e.places[h.place] != i {
			return fmt.Errorf("number %d believes to be %d", i, e.places[h.place])
		}
		if i > 0 && h.Less(i, (i-1)/2) {
			return fmt.Errorf("number %d is worth less than the one above", i)
		}
	}
	return nil
}

// crowd begins sessions and loses their links.
type crowd struct {
	t   *testing.T
	is  *is.I
	reg *Registry
	n   int
}

// The sessions of a crowd, by what makes them worth something.
type trait int

const (
	isConfirmed trait = 1 << iota
	isBusy
	isSomebody // its principal is known
)

// away makes a session of owner that is without a link.
func (c *crowd) away(owner string, what trait) *keptOne {
	c.n++
	q := Claim{Owner: owner, Client: fmt.Sprint(c.n), Attempt: 1}
	if what&isSomebody != 0 {
		q.Principal = owner
	}
	k := keep(c.t, c.reg, q, what&isConfirmed != 0)
	k.busy = what&isBusy != 0
	k.away()
	return k
}

func (c *crowd) gone(all ...*keptOne) {
	c.is.Helper()
	for i, k := range all {
		if k.over(c.is) != ErrEvicted {
			c.is.Equal(fmt.Sprintf("number %d is kept", i), "")
		}
	}
}

func (c *crowd) stay(all ...*keptOne) {
	c.is.Helper()
	for _, k := range all {
		c.is.NoErr(k.over(c.is))
	}
}

// crowded runs a test with a registry that keeps few sessions.
func crowded(t *testing.T, sessions int, f func(c *crowd)) {
	bubble(t, func(t *testing.T, is *is.I) {
		c := &crowd{t: t, is: is, reg: newRegistry()}
		c.reg.MaxSessions = sessions
		f(c)
		time.Sleep(time.Hour)
		synctest.Wait()
		known(is, c.reg, 0, 0)
		c.reg.mu.Lock()
		defer c.reg.mu.Unlock()
		is.Equal(len(c.reg.owners), 0)
		is.Equal(len(c.reg.heavy), 0)
		is.Equal(c.reg.bytes, int64(0))
		is.True(c.reg.sweep == nil)
	})
}

// What is worth more outlives what is worth less, whoever was there first; of equals
// the one that lost its link last does.
func TestKept_worth(t *testing.T) {
	order := []trait{
		0, isSomebody, isBusy, isBusy | isSomebody,
		isConfirmed, isConfirmed | isSomebody, isConfirmed | isBusy, isConfirmed | isBusy | isSomebody,
	}
	crowded(t, 2*len(order), func(c *crowd) {
		var all []*keptOne
		for i := range order { // the best are away for the longest
			for _, who := range []string{"first", "second"} {
				all = append(all, c.away(fmt.Sprint(who, i), order[len(order)-1-i]))
			}
		}
		for i := len(order) - 1; i > 0; i-- {
			for k := range 2 {
				c.stay(all[:2*i]...)
				c.stay(all[2*i+k : 2*i+2]...)
				c.away(fmt.Sprint("best", i, k), order[len(order)-1])
				c.gone(all[2*i+k])
			}
		}
	})
}

// What is worth less than everything goes as it comes.
func TestKept_newcomersPushOutNobody(t *testing.T) {
	for _, what := range []trait{0, isConfirmed, isConfirmed | isBusy} {
		crowded(t, 3, func(c *crowd) {
			better := []*keptOne{c.away("ann", isConfirmed|isBusy|isSomebody), c.away("ben", isConfirmed|isBusy|isSomebody), c.away("cid", isConfirmed|isBusy|isSomebody)}
			for i := range 20 {
				c.gone(c.away(fmt.Sprint("stranger", i), what))
			}
			c.stay(better...)
		})
	}
}

// An owner with more than half pays for what is too much with the least of theirs,
// even if others have what is worth less.
func TestKept_sharesOfOwners(t *testing.T) {
	crowded(t, 4, func(c *crowd) {
		poor := c.away("ann", 0)
		least := c.away("ben", isConfirmed)
		rich := []*keptOne{c.away("ben", isConfirmed|isBusy), c.away("ben", isConfirmed|isBusy)}
		rich = append(rich, c.away("ben", isConfirmed|isBusy))
		c.gone(least)
		c.stay(poor)
		other := c.away("cid", 0) // ben has three of five
		c.gone(rich[0])
		c.stay(poor, other, rich[1], rich[2])
		another := c.away("cid", isConfirmed) // ben has half: nobody has more
		c.gone(poor)
		c.stay(other, another, rich[1], rich[2])
	})
}

// Half of an odd number is the larger one: two owners would have too much otherwise,
// and which of them pays would be a matter of luck.
func TestKept_sharesOfOddNumbers(t *testing.T) {
	for range 20 {
		crowded(t, 3, func(c *crowd) {
			best := []*keptOne{c.away("ann", isConfirmed|isBusy), c.away("ann", isConfirmed|isBusy)}
			better := c.away("ben", isConfirmed|isBusy)
			c.gone(c.away("ben", isConfirmed))
			c.stay(best[0], best[1], better)
		})
		crowded(t, 1, func(c *crowd) {
			better := c.away("ann", isConfirmed)
			c.gone(c.away("ben", 0), c.away("ann", 0))
			c.stay(better)
			best := c.away("ben", isConfirmed|isBusy)
			c.gone(better)
			c.stay(best)
		})
	}
}

// Who has many sessions does not pay for the bytes of who has a few large ones.
func TestKept_sharesOfBytes(t *testing.T) {
	crowded(t, 6, func(c *crowd) {
		c.reg.MaxBytes = 100
		var small []*keptOne
		for range 5 {
			small = append(small, c.away("proxy", 0))
		}
		large := c.away("ann", isConfirmed|isBusy|isSomebody)
		large.weigh(95)
		c.stay(append(small, large)...)
		time.Sleep(sweepEvery)
		c.stay(append(small, large)...)
		large.weigh(96)
		time.Sleep(sweepEvery)
		c.gone(large)
		c.stay(small...)
	})
}

// All may have grown when they are asked again: the furthest over its share pays.
func TestKept_theFurthestOverItsShare(t *testing.T) {
	for range 20 {
		crowded(t, 10, func(c *crowd) {
			c.reg.MaxBytes = 100
			all := []*keptOne{c.away("ann", 0), c.away("ben", isConfirmed|isBusy|isSomebody), c.away("cid", 0)}
			for i, n := range []int{60, 90, 70} {
				all[i].weigh(n)
			}
			time.Sleep(sweepEvery)
			c.gone(all[1], all[2])
			c.stay(all[0])
		})
	}
}

func (k *keptOne) weigh(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bytes = n
}

func (k *keptOne) works(busy bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.busy = busy
}

// Handlers end while there is no link, and servers have something to say.
func TestKept_areAskedAgain(t *testing.T) {
	crowded(t, 3, func(c *crowd) {
		done, began := c.away("ann", isConfirmed|isBusy), c.away("ben", isConfirmed)
		c.away("cid", isConfirmed|isBusy)
		done.works(false)
		began.works(true)
		time.Sleep(sweepEvery)
		c.away("dan", isConfirmed|isBusy)
		c.gone(done)
		c.stay(began)
	})
}

// One that is confirmed without a link takes its turn among its equals, as if it had
// been one of them all the time.
func TestKept_confirmedWhileAway(t *testing.T) {
	crowded(t, 4, func(c *crowd) {
		older := c.away("ann", isConfirmed)
		late := c.away("ben", 0)
		younger := c.away("cid", isConfirmed)
		q := late.claimAgain(2, "ben")
		q.Terms.Subprotocol = "another"
		late.refused(c.is, q, ReasonDiffers)
		c.away("dan", isConfirmed)
		for i, gone := range []*keptOne{older, late, younger} {
			c.stay(gone)
			c.away(fmt.Sprint("eve", i), isConfirmed|isBusy)
			c.gone(gone)
		}
	})
}

func (k *keptOne) claimAgain(attempt uint64, owner string) Claim {
	return Claim{Owner: owner, Client: "again", Attempt: attempt, Token: k.token}
}

// A client that comes back from another address is counted for that one.
func TestKept_ownersMove(t *testing.T) {
	crowded(t, 4, func(c *crowd) {
		k := c.away("home", isConfirmed)
		n, _, err := k.resume(c.reg, k.claimAgain(2, "train"))
		c.is.NoErr(err)
		c.is.Equal(c.owners(), map[string]int{})
		k.carrier, k.raw, k.end = n.carrier, n.raw, n.end
		k.away()
		c.is.Equal(c.owners(), map[string]int{"train": 1})
	})
}

// owners is how many sessions without a link they have.
func (c *crowd) owners() map[string]int {
	c.reg.mu.Lock()
	defer c.reg.mu.Unlock()
	all := map[string]int{}
	for name, h := range c.reg.owners {
		all[name] = h.away.Len()
	}
	return all
}

// The half of the most that there can be is no negative number.
func TestKept_withoutBounds(t *testing.T) {
	crowded(t, math.MaxInt, func(c *crowd) {
		c.reg.MaxBytes = math.MaxInt64
		k := c.away("ann", 0)
		c.reg.mu.Lock()
		c.is.Equal(len(c.reg.heavy), 0)
		c.reg.mu.Unlock()
		c.stay(k)
	})
}

// Keep asks the newcomer, and nobody else.
func TestKeep_asksNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		const many = 2000
		reg := newRegistry()
		reg.MaxSessions = many / 2
		asked := 0
		for i := range many {
			r := startLogging(Options{Dialect: Binary}, testLog)
			reg.Add(r.Session, Claim{Owner: fmt.Sprint(i % 7), Attempt: 1})
			r.cut()
			reg.Keep(r.Session, time.Minute, time.Second, func() Held { asked++; return Held{Bytes: 1} }, func(error) {})
		}
		reg.mu.Lock()
		is.Equal(asked, many)
		is.Equal(reg.away.Len(), many/2)
		is.NoErr(sound(&reg.away))
		reg.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		known(is, reg, 0, 0)
	})
}
