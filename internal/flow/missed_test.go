package flow

import (
	"math"
	"testing"

	"github.com/matryer/is"
)

func TestMissed(t *testing.T) {
	is := is.New(t)
	is.Equal(Missed(1, 2), uint64(3))
	is.Equal(Missed(1, MissedUnknown), uint64(MissedUnknown))
	is.Equal(Missed(MissedUnknown-1, MissedUnknown-1), uint64(MissedUnknown-1))
	is.Equal(Missed(math.MaxUint64, 1), uint64(MissedUnknown)) // a peer may say anything
}
