package flow_test

import (
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/testkit"
)

// A busy stream's bursts allocate nothing, although an empty ring keeps little.
func TestRing_bursts(t *testing.T) {
	if testkit.Race {
		t.Skip("a sync.Pool forgets at random then")
	}
	for _, n := range []int{1, 16, 17, 100, 1024} {
		is := is.New(t)
		var r flow.Ring[[4]int]
		burst := func() {
			for i := range n {
				r.Push([4]int{i})
			}
			for i := range n {
				if r.Pop()[0] != i {
					t.Fatal(i)
				}
			}
		}
		burst()
		is.True(testing.AllocsPerRun(100, burst) < 1) // unless the garbage collector was there
	}
}
