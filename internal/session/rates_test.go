package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/matryer/is"
)

// began is how many sessions of n an owner may begin now.
func (r *Registry) mayBegin(owner string, n int) (began int) {
	for range n {
		if r.May(owner) {
			began++
		}
	}
	return began
}

func TestRates_tenTimesAtOnceAndThenTheRate(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := &Registry{Rate: 20}
		is.Equal(reg.mayBegin("ann", 1000), 200)
		is.Equal(reg.mayBegin("ben", 5), 5) // others have their own
		time.Sleep(time.Second)
		is.Equal(reg.mayBegin("ann", 1000), 20) // what was refused counts nothing
		time.Sleep(49 * time.Millisecond)
		is.True(!reg.May("ann"))
		time.Sleep(2 * time.Millisecond)
		is.True(reg.May("ann"))
		time.Sleep(time.Hour)
		is.Equal(reg.mayBegin("ann", 1000), 200) // it does not save more
	})
}

func TestRates_none(t *testing.T) {
	is := is.New(t)
	reg := new(Registry)
	is.Equal(reg.mayBegin("ann", 100_000), 100_000)
	is.Equal(len(reg.begun.of), 0)
}

// A network of very many addresses fills no memory, and whoever has begun the most
// is not forgotten for it.
func TestRates_areBounded(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := &Registry{Rate: 20}
		is.Equal(reg.mayBegin("flood", 1000), 200)
		most := 0
		for i := range 4 * rateBuckets {
			is.True(reg.May(fmt.Sprint("address ", i)))
			most = max(most, len(reg.begun.of))
		}
		is.Equal(most, rateBuckets)
		is.True(!reg.May("flood"))
		for i := range rateBuckets / 2 { // and these are as far as it
			reg.mayBegin(fmt.Sprint("other ", i), 200)
		}
		is.True(len(reg.begun.of) <= rateBuckets)
	})
}
