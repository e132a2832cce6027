package engine

import (
	"testing"
	"time"

	"github.com/matryer/is"
)

// A crowd is as large as its handlers are fast together.
func TestBurst_most(t *testing.T) {
	after := func(b *burst, took time.Duration) int {
		for range 3 * doublings {
			b.note(took)
		}
		return b.most()
	}
	for _, c := range []struct {
		took         time.Duration
		most, behind int // behind: where who gives way waits for long
	}{
		{time.Microsecond, crowd, crowd},
		{15 * time.Microsecond, 16, 16},
		{20 * time.Microsecond, 8, 1},
		{70 * time.Microsecond, 4, 1},
		{slowHandlers, 1, 1},
		{time.Hour, 1, 1},
	} {
		t.Run(c.took.String(), func(t *testing.T) {
			is := is.New(t)
			var b burst
			is.Equal(b.most(), 1)
			is.Equal(after(&b, c.took), c.most)
			b.state.Store(b.state.Load() | lagged)
			is.Equal(after(&b, c.took), c.behind)
			b.giveWay() // nobody was there
			is.Equal(after(&b, c.took), c.most)
			is.True(b.looks(8))
			b.note(time.Hour) // one slow one
			is.Equal(b.most(), 1)
			is.True(b.looks(1))
		})
	}
}
