package client

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// OnState is told everything, in order, by one goroutine at a time, and may itself
// bring about more.
func TestClient_changes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		d, busy := new(Client), false
		var got []int
		d.o.OnState = func(c Change) {
			is.True(!busy)
			busy = true
			time.Sleep(time.Second) // the rest comes meanwhile
			got = append(got, c.Attempt)
			if c.Attempt == 2 {
				d.change(Change{State: Closed, Attempt: 9})
				is.Equal(d.State(), Closed)
			}
			busy = false
		}
		for i := range 5 {
			d.change(Change{State: Waiting, Attempt: i})
			is.Equal(d.State(), Waiting) // at once
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		is.Equal(got, []int{0, 1, 2, 3, 4, 9})
		d.changes.Wait()
	})
}

func TestClient_changesThatNobodyIsTold(t *testing.T) {
	is := is.New(t)
	d := new(Client)
	is.Equal(d.State(), Connecting)
	d.change(Change{State: Connected})
	is.Equal(d.State(), Connected)
	d.changes.Wait() // there is none to wait for
}
