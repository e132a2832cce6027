package flow

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

func TestTurns_fewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p := newTurns(3)
		began := time.Now()
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				defer p.wait()()
				time.Sleep(time.Millisecond)
			})
		}
		wg.Wait()
		is.Equal(time.Since(began), 4*time.Millisecond)
		is.Equal(len(p.had), 0)
	})
}

// Whoever blocks with a turn does not block all others for good.
func TestTurns_notForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p := newTurns(1)
		p.wait()
		began := time.Now()
		done := p.wait()
		is.Equal(time.Since(began), turnWait)
		done()
		is.Equal(len(p.had), 1) // it had none to give back
	})
}

// A turn that is free costs nothing to have.
func TestTurns_allocateNothing(t *testing.T) {
	is := is.New(t)
	p := newTurns(1)
	is.Equal(testing.AllocsPerRun(100, func() { p.wait()() }), 0.0)
}
