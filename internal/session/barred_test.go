package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

// A token of a session that was barred is refused, to its principal and for a time; before
// the session is over it may be claimed.
func TestBar(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		token := k.token
		k.away()
		why := new(int)
		reg.Bar(k.Session, &Barred{Why: why}, time.Minute)
		reg.Remove(k.Session)
		claim := func(principal string) error {
			q := me(9, token)
			q.Principal = principal
			_, _, err := k.resume(reg, q)
			return err
		}
		var b *Barred
		is.True(errors.As(claim(me(9, token).Principal), &b))
		is.Equal(b.Why, why)
		is.NoErr(claim("somebody else")) // who learns nothing
		time.Sleep(time.Minute)
		synctest.Wait()
		is.NoErr(claim(me(9, token).Principal)) // no such session
		is.Equal(reg.bars(), 0)
	})
}

// What is kept of them has the bound of the sessions.
func TestBar_bounded(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		reg.MaxSessions = 3
		for range 10 {
			k := keep(t, reg, me(1, ""), true)
			k.away()
			reg.Bar(k.Session, &Barred{}, time.Minute)
			reg.Remove(k.Session)
		}
		is.True(reg.bars() <= 4)
		time.Sleep(time.Minute)
		synctest.Wait()
		is.Equal(reg.bars(), 0)
		reg.Bar(nil, &Barred{}, time.Minute) // one that it does not know
	})
}

func (r *Registry) bars() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.barred)
}
