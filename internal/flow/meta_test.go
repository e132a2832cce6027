package flow

import (
	"math"
	"testing"
	"time"

	"github.com/matryer/is"
)

// What is left of a time is told in whole milliseconds, rounded up, and does not overflow.
func TestMillis(t *testing.T) {
	is := is.New(t)
	for d, ms := range map[time.Duration]uint64{
		math.MinInt64: 0, -1: 0, 0: 0, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3_600_000,
		math.MaxInt64: math.MaxInt64/1_000_000 + 1, math.MaxInt64 - 900_000: math.MaxInt64 / 1_000_000,
	} {
		is.Equal(Millis(d), ms)
	}
}
