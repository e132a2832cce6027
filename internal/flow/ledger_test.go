package flow

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// TestLedger_sums: whatever accounts do at once, what is drawn covers what is
// used, by a few blocks at most, and all comes back.
func TestLedger_sums(t *testing.T) {
	is := is.New(t)
	l := NewLedger(1 << 40)
	accounts := make([]Account, 8)
	for i := range accounts {
		accounts[i].Open(l, nil)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			var mine [8]int
			for range 20_000 {
				i := r.IntN(8)
				if n := r.IntN(50_000); r.IntN(2) == 0 {
					accounts[i].Force(n)
					mine[i] += n
				} else if mine[i] > 0 {
					accounts[i].Give(mine[i])
					mine[i] = 0
				}
				if r.IntN(100) == 0 {
					accounts[i].Own([]string{"", "a", "b"}[r.IntN(3)])
				}
			}
			for i, n := range mine {
				accounts[i].Give(n)
			}
		})
	}
	wg.Wait()
	is.Equal(l.Used(), int64(0))

	for i := range accounts {
		accounts[i].Force(400_000 * i)
	}
	is.True(l.Used() >= 28*400_000)
	is.True(l.Used() <= 28*400_000+8*4*block)
	for i := range accounts {
		was := l.Left()
		accounts[i].Close()
		accounts[i].Close()
		is.Equal(l.Left()-was, int64(400_000*i)) // forgotten
		accounts[i].Force(1 << 20)               // nothing is drawn any more
		accounts[i].Give(1)
		is.Equal(l.Left()-was, int64(400_000*i+1<<20-1))
		accounts[i].Give(400_000*i + 1<<20 - 1)
		is.Equal(l.Left(), was) // it only came late
	}
	is.Equal(l.Used(), int64(0))
	is.True(l.open == nil)

	var a Account
	a.Open(l, nil)
	a.Serve(7)
	a.Close()
	is.Equal(l.Left(), int64(7)) // what was to be served is forgotten as well
}

// TestLedger_givenWhileClosing: what is given back at the moment in which its
// account is closed is neither drawn nor forgotten.
func TestLedger_givenWhileClosing(t *testing.T) {
	is := is.New(t)
	l := NewLedger(1 << 40)
	for i := range 20_000 {
		var a Account
		a.Open(l, nil)
		n := 1 + i%7*block
		a.Force(2 * n)
		var wg sync.WaitGroup
		wg.Go(func() { a.Give(n) })
		wg.Go(func() { a.Force(n); a.Give(n) })
		wg.Go(a.Close)
		a.Give(n)
		wg.Wait()
		is.Equal(l.Left(), int64(0))
		is.Equal(l.Used(), int64(0))
	}
}

// TestLedger_shares: what an account may hold falls with what is free.
func TestLedger_shares(t *testing.T) {
	is := is.New(t)
	const most = 64 << 20
	l := NewLedger(most)
	var a, b, c Account
	for _, x := range []*Account{&a, &b, &c} {
		x.Open(l, nil)
	}
	is.True(a.Has(most))               // but all of it, while nobody has any
	is.True(a.Take(most/2 - 1<<20))    // up to half there is no share
	is.True(b.Take(3 << 19))           // the half is passed
	is.True(!a.Take(small + 1))        // and who has more than a share gets no more
	share := func(a *Account, n int) { // what it may hold is n
		is.Helper()
		is.True(a.Fits(n, 1<<30))
		is.True(!a.Fits(n+1, 1<<30))
	}
	share(&b, 31<<19/8)         // an eighth of what is free
	is.True(!b.Fits(11, 10))    // and not more than was asked for
	is.True(b.Take(256 << 10))  // there is still room in it
	is.True(!b.Take(256 << 10)) // and then not
	c.Promise(4 << 20)          // what may be taken soon counts
	share(&b, (16<<20-3<<19-256<<10+1<<20-4<<20)/8)
	c.Promise(-4 << 20)
	a.Force(8 << 20) // somebody fills it
	share(&b, 1<<20) // the least
	is.True(!b.Has(small + 1))
	is.True(c.Take(1 << 20)) // which everybody has
	is.True(!c.Take(small + 1))
	a.Force(10 << 20)  // nothing is free
	share(&c, 512<<10) // and half of that then
	for range 3 << 20 / small {
		is.True(c.Take(small)) // but small ones are taken
	}
	is.True(!c.Take(small))
	is.True((*Account)(nil).Fits(7, 7)) // no bound
	is.True((*Account)(nil).Take(1 << 40))
}

// TestLedger_endsWhoHoldsMost: as many as have to go, first the account that holds
// the most of the owner that does.
func TestLedger_endsWhoHoldsMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const mb = 1 << 20
		l := NewLedger(100 * mb)
		var ended []int
		accounts := make([]Account, 6)
		for i := range accounts {
			accounts[i].Open(l, func() { ended = append(ended, i) })
		}
		hold := func(i, n int, owner string) {
			time.Sleep(lookEvery)
			accounts[i].Own(owner)
			accounts[i].Force(n * mb)
			synctest.Wait()
		}
		hold(0, 20, "")    // alone the largest
		hold(1, 12, "eve") //
		hold(2, 13, "eve") // together larger
		hold(3, 4, "bob")
		hold(4, 6, "")
		is.Equal(len(ended), 0)
		hold(5, 2, "")
		is.Equal(ended, []int{2}) // eve's larger one
		hold(5, 1, "")
		is.Equal(ended, []int{2}) // which has not ended yet
		accounts[2].Close()
		is.Equal(l.Used(), int64(45*mb))
		hold(3, 11, "bob")
		is.Equal(ended, []int{2}) // it is not full again
		hold(5, 1, "")
		is.Equal(ended, []int{2, 0}) // eve has 12 now
		time.Sleep(patience)
		hold(5, 1, "")
		is.Equal(ended, []int{2, 0, 3}) // the last one takes its time
		hold(4, 100, "")
		is.Equal(ended, []int{2, 0, 3, 4}) // it is enough when that comes back
		hold(5, 150, "")
		is.Equal(ended, []int{2, 0, 3, 4, 5}) // and not any more
		is.Equal(l.Evicted(), int64(5))
		for i := range accounts {
			accounts[i].Close()
		}
		is.Equal(l.Used(), int64(0))
	})
}

// TestLedger_whoDoesNotGo: those who hold little are not ended for what others hold, who
// were told to end and do not.
func TestLedger_whoDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const mb = 1 << 20
		l := NewLedger(64 * mb)
		var ended []int
		accounts := make([]Account, 3)
		for i := range accounts {
			accounts[i].Open(l, func() { ended = append(ended, i) })
		}
		hold := func(i, n int) {
			time.Sleep(2 * patience)
			accounts[i].Force(n)
			synctest.Wait()
		}
		hold(0, 60*mb)
		is.Equal(ended, []int{0})
		for range 5 {
			hold(1, 100<<10)
		}
		is.Equal(ended, []int{0})
		hold(2, 2*mb)
		is.Equal(ended, []int{0, 2}) // that is not little
		hold(1, mb/2)
		is.Equal(ended, []int{0, 2, 1}) // nor is this, any more
		for i := range accounts {
			accounts[i].Close()
		}
		is.Equal(l.Used(), int64(0))
	})
}

// TestLedger_manySmall: those who hold next to nothing, but are many, go as well.
func TestLedger_manySmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := NewLedger(64 << 20)
		var ended atomic.Int64
		accounts := make([]Account, 4000)
		for i := range accounts {
			a := &accounts[i]
			a.Open(l, func() { ended.Add(1); a.Close() })
			a.Force(64 << 10)
			synctest.Wait()
		}
		is.True(l.Used() <= l.full()+l.most/64) // it is not looked at each of them
		is.Equal(ended.Load(), 4000-l.Used()/(64<<10))
	})
}

// TestLedger_whoOnlyHolds goes before somebody who has more, but with handlers.
func TestLedger_whoOnlyHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const mb = 1 << 20
		l := NewLedger(100 * mb)
		var honest Account
		fate := ""
		honest.Open(l, func() { fate = "ended"; honest.Close() })
		honest.Own("address")
		honest.Force(3 * mb)
		honest.Serve(3 * mb)
		var ended atomic.Int64
		holders := make([]Account, 200)
		for i := range holders {
			a := &holders[i]
			a.Open(l, func() { ended.Add(1); a.Close() })
			a.Own("address")
			a.Force(mb / 2)
			synctest.Wait()
		}
		is.Equal(fate, "")
		is.True(ended.Load() >= 200-2*56-2)
		honest.Served(3*mb, 0) // nobody works on it any more
		honest.Force(3 * mb)
		synctest.Wait()
		is.Equal(fate, "ended")
		is.Equal(l.Used(), int64(200-ended.Load())*mb/2)
	})
}
