package engine

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"
)

func TestTeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var seen []int
		goOn := make(chan struct{})
		tell := func(n int) {
			seen = append(seen, n)
			<-goOn
			if n%3 == 0 {
				runtime.Goexit()
			}
		}
		bounded := Teller[int]{Most: 4}
		for n := range 10 {
			bounded.Tell(tell, n)
			synctest.Wait()
		}
		close(goOn)
		bounded.Wait()
		is.Equal(seen, []int{0, 6, 7, 8, 9}) // the first is being told, of the others the latest
		seen = nil
		var all Teller[int]
		for n := range 10 {
			all.Tell(tell, n)
		}
		all.Wait()
		is.Equal(len(seen), 10)
		for n := range seen {
			is.Equal(seen[n], n)
		}
		is.True(!all.busy && all.queue == nil)
	})
}
