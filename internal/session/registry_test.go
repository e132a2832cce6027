package session

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
)

// member is a live session in a registry.
func member(t *testing.T, reg *Registry, principal string, attempt uint64) (*running, string) {
	t.Helper()
	r := opened(t, Options{Dialect: Binary})
	return r, reg.Add(r.Session, principal, attempt)
}

func TestRegistry_noTokenAndUnknownTokens(t *testing.T) {
	is := is.New(t)
	var reg Registry
	reason, stale := reg.Replace("", "me", 1)
	is.Equal(reason, ReasonNone)
	is.True(!stale)
	reason, stale = reg.Replace("guessed", "me", 1)
	is.Equal(reason, ReasonUnknown)
	is.True(!stale)
}

func TestRegistry_newerAttemptFencesTheOldLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var reg Registry
		r, token := member(t, &reg, "me", 1)
		reason, stale := reg.Replace(token, "me", 2)
		is.Equal(reason, ReasonEnded)
		is.True(!stale)
		is.Equal(r.code(), CloseSuperseded)
		reason, _ = reg.Replace(token, "me", 3)
		is.Equal(reason, ReasonUnknown) // a token is good for one use
	})
}

func TestRegistry_tokenOfAnotherPrincipal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var reg Registry
		r, token := member(t, &reg, "me", 1)
		reason, stale := reg.Replace(token, "thief", 9)
		is.Equal(reason, ReasonUnknown) // as if there were no such session
		is.True(!stale)
		synctest.Wait()
		is.NoErr(r.Err()) // and it goes on
		reason, _ = reg.Replace(token, "me", 2)
		is.Equal(reason, ReasonEnded)
		<-r.end
	})
}

func TestRegistry_staleAttemptFencesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var reg Registry
		r, token := member(t, &reg, "me", 5)
		for _, attempt := range []uint64{0, 4, 5} {
			_, stale := reg.Replace(token, "me", attempt)
			is.True(stale)
		}
		synctest.Wait()
		is.NoErr(r.Err())
		r.stop()
	})
}

func TestRegistry_remove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var reg Registry
		r, token := member(t, &reg, "me", 1)
		reg.Remove(token)
		reason, _ := reg.Replace(token, "me", 2)
		is.Equal(reason, ReasonUnknown)
		is.NoErr(r.Err())
		r.stop()
	})
}

func TestRegistry_tokensDiffer(t *testing.T) {
	is := is.New(t)
	var reg Registry
	seen := map[string]bool{}
	s := new(Session)
	for range 1000 {
		token := reg.Add(s, "me", 1)
		is.Equal(len(token), 32) // 128 bits
		is.True(!seen[token])
		seen[token] = true
	}
}

func TestRegistry_onlyOneOfManyRivalsFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var reg Registry
		r, token := member(t, &reg, "me", 1)
		won := make(chan bool, 8)
		for i := range uint64(8) {
			go func() {
				reason, _ := reg.Replace(token, "me", i+2)
				won <- reason == ReasonEnded
			}()
		}
		winners := 0
		for range 8 {
			if <-won {
				winners++
			}
		}
		is.Equal(winners, 1)
		var ce *link.CloseError
		is.True(errors.As(<-r.end, &ce))
	})
}
