package flow

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// paced sends to a receiver that takes an item in pace, over a path of rtt, for as long,
// whatever may go at once. It returns how many were credited, and the longest that one
// took, of the second half.
func paced(p *Pace, rtt time.Duration, pace func() time.Duration, lasts time.Duration) (n int, longest time.Duration) {
	began := time.Now()
	var sent Ring[time.Time]
	credits := make(chan struct{}, 100)
	free := began // when the receiver takes the next
	for time.Since(began) < lasts {
		for sent.Len() < 50 && p.Fits(sent.Len()) {
			p.Sent(sent.Len())
			sent.Push(time.Now())
			taken := time.Now().Add(rtt / 2)
			if taken.Before(free) {
				taken = free
			}
			free = taken.Add(pace())
			time.AfterFunc(time.Until(taken.Add(rtt/2)), func() { credits <- struct{}{} })
		}
		<-credits
		p.Credited(1, rtt)
		took := time.Since(sent.Pop())
		n++
		if time.Since(began) > lasts/2 {
			longest = max(longest, took)
		}
	}
	for range sent.Len() {
		<-credits
	}
	return n, longest
}

// Pace keeps a path busy, and lets nothing stand in a queue for longer than a round trip
// and an item.
func TestPace_keepsBusyAndShort(t *testing.T) {
	for _, rtt := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		for _, pace := range []time.Duration{0, 100 * time.Microsecond, 7 * time.Millisecond, 50 * time.Millisecond, time.Second} {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				lasts := 10*time.Second + 120*pace // the first burst has left
				n, longest := paced(new(Pace), rtt, func() time.Duration { return pace }, lasts)
				is.True(longest <= 2*rtt+pace+Burst)
				possible := int(lasts / max(pace, rtt/mostPaced))
				is.True(n >= possible*8/10)
			})
		}
	}
}

// A receiver that becomes slow is late by what is under way, and after that no more; one
// that becomes fast again is given more.
func TestPace_follows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		const rtt = 50 * time.Millisecond
		var p Pace
		pace := time.Duration(0)
		run := func() (int, time.Duration) {
			return paced(&p, rtt, func() time.Duration { return pace }, 20*time.Second)
		}
		for range 3 {
			pace = time.Millisecond
			n, longest := run()
			is.True(n > 15*20*int(time.Second/rtt)*8/10)
			is.True(longest <= 2*rtt)
			pace = 200 * time.Millisecond
			n, longest = run()
			is.True(n >= 98)
			is.True(longest <= 2*rtt+pace)
		}
	})
}

// What leaves together is a burst, until the receiver was late for one.
func TestPace_bursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var p Pace
		burst := func() (n int) {
			for ; n < 50 && p.Fits(n); n++ {
				p.Sent(n)
			}
			return n
		}
		const rtt = 10 * time.Millisecond
		is.Equal(burst(), 50)
		time.Sleep(rtt)
		is.True(!p.Fits(50)) // it is over
		p.Credited(50, rtt)
		is.Equal(burst(), 50)
		time.Sleep(3 * rtt)
		p.Credited(50, rtt)
		is.True(burst() < 3)
	})
}

// Whatever is sent, taken back and credited, one may always go when nothing is under way,
// and never more than the bound.
func TestPace_bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		rng := rand.New(rand.NewPCG(1, 2))
		var p Pace
		out := 0
		for range 20_000 {
			time.Sleep(Burst)
			switch fits := p.Fits(out); {
			case out == 0 && !fits || out >= mostPaced && fits:
				is.Fail() // one may always go, and never too many
			case fits && rng.IntN(2) == 0:
				p.Sent(out)
				out++
			case out > 0 && rng.IntN(8) == 0:
				p.Unsent(out)
				out--
			case out > 0:
				n := 1 + rng.IntN(out)
				p.Credited(n, time.Duration(rng.IntN(3))*time.Millisecond)
				out -= n
			}
			time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
		}
	})
}
