package measure

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"
)

func TestMedian(t *testing.T) {
	is := is.New(t)
	is.Equal(Median(nil), 0.0)
	is.Equal(Median([]float64{3, 1, 2}), 2.0)
	is.Equal(Median([]float64{4, 1, 2, 3}), 2.5)
}

func TestPercentile(t *testing.T) {
	is := is.New(t)
	var v []time.Duration
	for i := range 100 {
		v = append(v, time.Duration(100-i))
	}
	is.Equal(Percentile(v, 0.5), time.Duration(51))
	is.Equal(Percentile(v, 0.99), time.Duration(100))
	is.Equal(Percentile(nil, 0.99), time.Duration(0))
}

func TestCallers_countsAndFails(t *testing.T) {
	is := is.New(t)
	var calls atomic.Int64
	run, err := Callers(t.Context(), 3, 10*time.Millisecond, func(context.Context, int) error {
		calls.Add(1)
		return nil
	})
	is.NoErr(err)
	is.Equal(run.Calls, int(calls.Load()))
	is.True(run.Rate() > 0)

	broken := errors.New("broken")
	_, err = Callers(t.Context(), 3, time.Hour, func(_ context.Context, caller int) error {
		if caller == 1 {
			return broken
		}
		return nil
	})
	is.Equal(err, broken) // and it ended, hours early
}

func TestNow_grows(t *testing.T) {
	is := is.New(t)
	before := Now(true)
	kept := make([]byte, 64<<20)
	after := Now(true)
	is.True(after.Heap-before.Heap > 60<<20)
	is.True(after.Allocs > before.Allocs)
	is.True(after.Goroutines > 0)
	kept[0] = 1
}
