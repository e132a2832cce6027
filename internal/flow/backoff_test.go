package flow

import (
	"math"
	"testing"
	"time"

	"github.com/matryer/is"
)

func TestBackoff_delayBounds(t *testing.T) {
	is := is.New(t)
	b := Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second, Factor: 2}
	bound := b.Min
	for failed := 1; failed < 20; failed++ {
		var sum, longest time.Duration
		const n = 2000
		for range n {
			d := b.Delay(failed)
			is.True(d >= 0 && d <= bound)
			sum += d
			longest = max(longest, d)
		}
		mean := float64(sum) / n / float64(bound)
		is.True(mean > 0.42 && mean < 0.58) // full jitter, also at the cap
		is.True(longest > bound*9/10)
		bound = min(2*bound, b.Max)
	}
}

func TestBackoff_least(t *testing.T) {
	is := is.New(t)
	b := Backoff{Least: 300 * time.Millisecond, Max: 2 * time.Second}
	is.NoErr(b.Check())
	for failed, bound := range map[int]time.Duration{1: 300 * time.Millisecond, 2: 600 * time.Millisecond, 20: 2 * time.Second} {
		var shortest, longest time.Duration = math.MaxInt64, 0
		for range 2000 {
			d := b.Delay(failed)
			shortest, longest = min(shortest, d), max(longest, d)
		}
		is.True(shortest >= b.Least && shortest < b.Least+(bound-b.Least)/20+1)
		is.True(longest <= bound && longest > b.Least+(bound-b.Least)*9/10-1)
	}
	for _, failed := range []int{1, 2, 50} {
		is.Equal(Backoff{Off: true}.Delay(failed), time.Duration(0))
		is.Equal(Backoff{Off: true, Least: time.Second}.Delay(failed), time.Second)
	}
}

func TestBackoff_delayNeverPanics(t *testing.T) {
	is := is.New(t)
	for _, b := range []Backoff{
		{}, {Max: math.MaxInt64}, {Min: math.MaxInt64, Max: math.MaxInt64}, {Min: -1}, {Max: -1}, {Factor: math.NaN()},
		{Factor: math.Inf(1)}, {Least: -1}, {Least: math.MaxInt64}, {Off: true, Least: math.MaxInt64}, {Factor: -3}, {Min: 1, Max: 1}, {Factor: 1e300},
	} {
		for _, failed := range []int{-1, 0, 1, 2, 63, 64, 1 << 20, math.MaxInt} {
			is.True(b.Delay(failed) >= 0)
		}
	}
}

func TestBackoff_firstAttemptIsZeroOrOne(t *testing.T) {
	is := is.New(t)
	b := Backoff{Min: time.Second, Max: time.Hour}
	for range 100 {
		is.True(b.Delay(0) <= time.Second) // as after the first failure
	}
}
