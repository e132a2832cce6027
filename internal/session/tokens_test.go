package session

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// keptOne is a member that a registry keeps when its link ends.
type keptOne struct {
	*running
	reg   *Registry
	token string
	bytes int
	busy  bool
	mu    sync.Mutex
	lost  []error
}

// keep makes a member with a token that its client has confirmed, or not.
func keep(t *testing.T, reg *Registry, q Claim, confirmed bool) *keptOne {
	t.Helper()
	k := &keptOne{reg: reg, bytes: 1}
	k.running, k.token = member(t, reg, q, testLog)
	if confirmed {
		k.confirm(is.New(t))
	}
	return k
}

func (k *keptOne) held() Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Held{Bytes: k.bytes, Busy: k.busy}
}

// away cuts the link.
func (k *keptOne) away() {
	k.cut()
	k.keep()
}

func (k *keptOne) keep() {
	k.reg.Keep(k.Session, time.Minute, 10*time.Second, k.held, func(why error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.lost = append(k.lost, why)
	})
}

// over returns why the session was lost, nil if it was not.
func (k *keptOne) over(is *is.I) error {
	is.Helper()
	synctest.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	is.True(len(k.lost) <= 1) // it is told once
	if len(k.lost) == 0 {
		is.NoErr(k.Err())
		return nil
	}
	is.Equal(k.Err(), k.lost[0])
	return k.lost[0]
}

// known checks what a registry remembers.
func known(is *is.I, reg *Registry, sessions, tokens int) {
	is.Helper()
	reg.mu.Lock()
	defer reg.mu.Unlock()
	is.Equal(len(reg.entries), sessions)
	is.Equal(len(reg.byToken), tokens)
}

// back is a resume that has to succeed. It returns what WELCOME offers.
func (k *keptOne) back(is *is.I, attempt uint64, token string) (offered string) {
	is.Helper()
	n, _, err := k.resume(k.reg, Claim{Principal: "me", Client: "c", Attempt: attempt, Token: token})
	is.NoErr(err)
	is.True(n != nil)
	k.carrier, k.raw, k.end = n.carrier, n.raw, n.end
	w := k.welcome(is)
	is.True(w.Resumed)
	return w.Token
}

func (k *keptOne) refused(is *is.I, q Claim, want string) {
	is.Helper()
	n, reason, err := k.resume(k.reg, q)
	is.NoErr(err)
	is.True(n == nil)
	is.Equal(reason, want)
}

func me(attempt uint64, token string) Claim {
	return Claim{Principal: "me", Client: "c", Attempt: attempt, Token: token}
}

func bubble(t *testing.T, f func(t *testing.T, is *is.I)) {
	synctest.Test(t, func(t *testing.T) { f(t, is.New(t)) })
}

// At most two tokens are good: the confirmed one and the offered one, which every
// WELCOME repeats until it is confirmed.
func TestTokens_areSpentWhenTheNextIsConfirmed(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		k.away()
		offered := k.back(is, 2, k.token)
		known(is, reg, 1, 2)
		for attempt := range uint64(5) { // WELCOME is lost again and again
			k.away()
			is.Equal(k.back(is, 3+attempt, k.token), offered)
			known(is, reg, 1, 2)
		}
		k.confirm(is) // a frame after it
		k.away()
		k.refused(is, me(20, k.token), ReasonUnknown)
		second := k.back(is, 21, offered)
		is.True(second != offered)
		k.away()
		third := k.back(is, 22, second) // a HELLO bearing it
		k.refused(is, me(23, offered), ReasonUnknown)
		is.True(third != second)
		k.stop()
		reg.Remove(k.Session)
		known(is, reg, 0, 0)
	})
}

func TestTokens_thatNobodyWasGiven(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		for _, token := range []string{"guessed", strings.Repeat("0", 32), k.token[:31], k.token + "0", strings.ToUpper(k.token) + " "} {
			k.refused(is, me(2, token), ReasonUnknown)
		}
		k.refused(is, Claim{Principal: "thief", Client: "c", Attempt: 2, Token: k.token}, ReasonUnknown)
		k.refused(is, Claim{Principal: "", Attempt: 2, Token: k.token}, ReasonUnknown)
		is.NoErr(k.carrier.link.Err())
		reg.Remove(k.Session) // logged out
		k.refused(is, me(3, k.token), ReasonUnknown)
		k.stop()
	})
}

// The empty token is nobody's, also when a session has but one.
func TestTokens_theEmptyOne(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, Claim{Principal: "me", Attempt: 1}, false)
		k.refused(is, Claim{Principal: "me", Attempt: 2}, ReasonNone)
		is.NoErr(k.Err())
		k.stop()
	})
}

// A HELLO with a position that cannot be is told nothing, and so leaves nothing to
// confirm: the client's token stays good.
func TestTokens_areNotOfferedInVain(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		q := me(2, k.token)
		q.Received = 7
		_, _, err := k.resume(reg, q)
		var ce *link.CloseError
		is.True(errors.As(err, &ce))
		is.Equal(ce.Code, CloseProtocol)
		is.NoErr(k.carrier.link.Err())
		is.NoErr(k.raw.send(wire.Frame{Type: wire.Ack})) // the old link goes on
		synctest.Wait()
		k.away()
		k.back(is, 2, k.token)
		k.stop()
	})
}

// A HELLO with other terms leaves the session untouched, and a client that never
// learns of the session it got instead does not collect those.
func TestTokens_otherTerms(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		q := me(2, k.token)
		q.Terms.Features = "other"
		k.refused(is, q, ReasonDiffers)
		is.NoErr(k.carrier.link.Err())
		is.Equal(k.Carrier(), k.carrier)
		first := keep(t, reg, q, false)
		first.away()
		q.Attempt = 3
		k.refused(is, q, ReasonDiffers)
		is.True(superseded(first.over(is)))
		second := keep(t, reg, q, false)
		known(is, reg, 2, 2)
		k.away()
		is.NoErr(second.Err())
		k.back(is, 4, k.token)
		k.stop()
		second.stop()
	})
}

func TestTokens_limitedRate(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		attempt := uint64(1)
		for range resumeBurst {
			attempt++
			k.back(is, attempt, k.token)
		}
		attempt++
		_, _, err := k.resume(reg, me(attempt, k.token))
		is.Equal(err, ErrTooOften)
		synctest.Wait()
		is.NoErr(k.carrier.link.Err()) // nobody is fenced
		time.Sleep(time.Second / resumeRate)
		k.back(is, attempt, k.token) // the same attempt: it was not made
		_, _, err = k.resume(reg, me(attempt+1, k.token))
		is.Equal(err, ErrTooOften)
		time.Sleep(time.Hour)
		for range resumeBurst { // no more than that is saved up
			attempt++
			k.back(is, attempt, k.token)
		}
		_, _, err = k.resume(reg, me(attempt+1, k.token))
		is.Equal(err, ErrTooOften)
		k.stop()
	})
}

func TestKeep_grace(t *testing.T) {
	for confirmed, grace := range map[bool]time.Duration{true: time.Minute, false: 10 * time.Second} {
		bubble(t, func(t *testing.T, is *is.I) {
			reg := newRegistry()
			k := keep(t, reg, me(1, ""), confirmed)
			k.away()
			time.Sleep(grace - 1)
			is.NoErr(k.over(is))
			k.back(is, 2, k.token)
			time.Sleep(time.Hour) // the timer has nothing to say to a session with a link
			is.NoErr(k.over(is))
			k.away() // its client knows it now: it came with the token
			time.Sleep(time.Minute - 1)
			is.NoErr(k.over(is))
			time.Sleep(time.Nanosecond)
			is.Equal(k.over(is), ErrGrace)
			known(is, reg, 0, 0)
			k.refused(is, me(3, k.token), ReasonUnknown)
			n, _ := reg.Away()
			is.Equal(n, 0)
			is.True(reg.sweep == nil)
		})
	}
}

func TestKeep_evictsTheLongestAwayFirst(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		reg.MaxSessions = 2
		var all []*keptOne
		for i := range 4 {
			q := me(1, "")
			q.Client = string(rune('a' + i))
			all = append(all, keep(t, reg, q, true))
		}
		for _, i := range []int{2, 0} {
			all[i].away()
			time.Sleep(time.Second)
		}
		all[1].away()
		is.Equal(all[2].over(is), ErrEvicted)
		is.NoErr(all[0].over(is))
		is.NoErr(all[1].over(is))
		all[0].back(is, 2, all[0].token) // and is away later than 1
		all[0].away()
		all[3].away()
		is.Equal(all[1].over(is), ErrEvicted)
		is.NoErr(all[0].over(is))
		is.NoErr(all[3].over(is))
		time.Sleep(time.Hour)
		n, bytes := reg.Away()
		is.Equal(n, 0)
		is.Equal(bytes, int64(0))
		known(is, reg, 0, 0)
	})
}

func TestKeep_evictsByBytes(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		reg.MaxBytes = 100
		var all []*keptOne
		for i := range 3 {
			q := me(1, "")
			q.Client = string(rune('a' + i))
			k := keep(t, reg, q, true)
			k.bytes = 40
			all = append(all, k)
		}
		all[0].away()
		all[1].away()
		_, bytes := reg.Away()
		is.Equal(bytes, int64(80))
		all[2].away()
		is.Equal(all[0].over(is), ErrEvicted)
		is.NoErr(all[1].over(is))
		time.Sleep(100 * time.Millisecond)
		all[2].mu.Lock()
		all[2].bytes = 70 // its handlers go on
		all[2].mu.Unlock()
		is.NoErr(all[1].over(is))
		time.Sleep(sweepEvery)
		is.Equal(all[1].over(is), ErrEvicted)
		is.NoErr(all[2].over(is))
		_, bytes = reg.Away()
		is.Equal(bytes, int64(70))
		all[2].mu.Lock()
		all[2].bytes = 101 // alone too much
		all[2].mu.Unlock()
		time.Sleep(sweepEvery)
		is.Equal(all[2].over(is), ErrEvicted)
		known(is, reg, 0, 0)
	})
}

// One that is too large goes as it comes.
func TestKeep_nothingWhereNothingMayBe(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := new(Registry)
		k := keep(t, reg, me(1, ""), true)
		k.away()
		is.Equal(k.over(is), ErrEvicted)
		is.True(reg.sweep == nil)
	})
}

// A client that comes again without a token has never got its WELCOME.
func TestGhosts_end(t *testing.T) {
	for name, away := range map[string]bool{"with a link": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, is *is.I) {
				reg := newRegistry()
				k := keep(t, reg, me(5, ""), false)
				if away {
					k.away()
				}
				other := me(9, "")
				other.Principal = "somebody else"
				k.refused(is, other, ReasonNone)
				other = me(9, "")
				other.Client = "another tab"
				k.refused(is, other, ReasonNone)
				is.NoErr(k.Err())
				for _, attempt := range []uint64{4, 5} {
					_, _, err := k.resume(reg, me(attempt, ""))
					is.True(superseded(err))
				}
				is.NoErr(k.Err())
				k.refused(is, me(6, "lost long ago"), ReasonUnknown)
				if away {
					is.True(superseded(k.over(is)))
				} else {
					is.Equal(k.code(), CloseSuperseded)
				}
				is.True(superseded(k.Err()))
				known(is, reg, 0, 0)
			})
		})
	}
}

// A confirmed session is no ghost.
func TestGhosts_confirmed(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), true)
		k.refused(is, me(2, ""), ReasonNone)
		is.NoErr(k.Err())
		k.stop()
	})
}

// A ghost may be found in the moment between the end of its link and Keep: the
// layer above has to learn of its end all the same.
func TestGhosts_betweenDetachAndKeep(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		k := keep(t, reg, me(1, ""), false)
		k.cut()
		k.refused(is, me(2, ""), ReasonNone)
		k.keep()
		is.True(superseded(k.over(is)))
		known(is, reg, 0, 0)
	})
	bubble(t, func(t *testing.T, is *is.I) { // or before its first link
		reg := newRegistry()
		r := startLogging(Options{Dialect: Binary}, testLog)
		reg.Add(r.Session, me(1, ""))
		s, _, err := reg.Resume(nil, me(2, ""), wire.WelcomeBody{})
		is.NoErr(err)
		is.True(s == nil)
		is.NoErr(r.raw.send(helloFrame(wire.HelloBody{Attempt: 1})))
		synctest.Wait()
		is.NoErr(r.accept(r.carrier, 0, wire.WelcomeBody{}))
		is.Equal(r.code(), CloseSuperseded) // its end is a link's, which is noticed
		is.True(superseded(r.Err()))
		reg.Remove(r.Session)
		known(is, reg, 0, 0)
	})
}

// Two HELLOs of one client are authenticated at once: one session comes of it,
// that of the higher attempt.
func TestGhosts_twoAtOnce(t *testing.T) {
	for _, order := range [][2]uint64{{1, 2}, {2, 1}} {
		bubble(t, func(t *testing.T, is *is.I) {
			reg := newRegistry()
			for _, attempt := range order {
				s, _, err := reg.Resume(nil, me(attempt, ""), wire.WelcomeBody{})
				is.NoErr(err)
				is.True(s == nil)
			}
			var links [3]*running
			for _, attempt := range order {
				r := startLogging(Options{Dialect: Binary}, testLog)
				r.raw.send(helloFrame(wire.HelloBody{Attempt: attempt}))
				synctest.Wait()
				reg.Add(r.Session, me(attempt, ""))
				is.NoErr(r.accept(r.carrier, 0, wire.WelcomeBody{}))
				links[attempt] = r
			}
			synctest.Wait()
			is.Equal(links[1].code(), CloseSuperseded)
			is.True(superseded(links[1].Err()))
			is.NoErr(links[2].Err())
			is.NoErr(links[2].carrier.link.Err())
			reg.Remove(links[1].Session)
			known(is, reg, 1, 1)
			links[2].stop()
		})
	}
}

// That no goroutine is left the bubble sees to.
func TestKeep_leavesNothingBehind(t *testing.T) {
	bubble(t, func(t *testing.T, is *is.I) {
		reg := newRegistry()
		var all []*keptOne
		for i := range 50 {
			q := me(1, "")
			q.Client = string(rune('a' + i))
			k := keep(t, reg, q, i%2 == 0)
			k.away()
			if i%5 == 0 {
				k.back(is, 2, k.token)
			}
			all = append(all, k)
		}
		for i, k := range all {
			switch {
			case i%5 == 0:
				k.stop()
				reg.Remove(k.Session)
			case i%3 == 0: // logged out
				reg.Remove(k.Session)
				is.True(k.End(errCut))
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		known(is, reg, 0, 0)
		is.Equal(len(reg.byClient), 0)
		is.True(reg.sweep == nil)
		for _, k := range all {
			is.Equal(k.Logged(), 0)
			is.True(k.Err() != nil)
		}
	})
}

// Keep, Resume, expiry and eviction at once: whoever wins, a session is told to be
// over once, or goes on.
func TestKeep_races(t *testing.T) {
	for range 30 {
		bubble(t, func(t *testing.T, is *is.I) {
			reg := newRegistry()
			reg.MaxSessions = 1
			k, other := keep(t, reg, me(1, ""), true), keep(t, reg, Claim{Principal: "you", Attempt: 1}, true)
			k.cut()
			other.cut()
			var all sync.WaitGroup
			var got *running
			all.Go(k.keep)
			all.Go(other.keep)
			all.Go(func() { got, _, _ = k.resume(reg, me(2, k.token)) })
			all.Wait()
			synctest.Wait()
			if got != nil {
				is.NoErr(k.over(is))
				is.NoErr(got.carrier.link.Err())
				got.stop()
				k.keep() // too late
			}
			time.Sleep(2 * time.Minute)
			is.True(k.Err() != nil)
			is.True(other.over(is) != nil)
			n, bytes := reg.Away()
			is.Equal(n, 0)
			is.Equal(bytes, int64(0))
		})
	}
}

// A HELLO's token, which may be as long as the client likes, was kept with the
// session, in no budget.
func TestTokens_theHellosIsNotKept(t *testing.T) {
	is := is.New(t)
	var r Registry
	s := New(new(engine), Binary, false, testLog, nil)
	r.Add(s, Claim{Principal: "me", Token: "spent", Attempt: 1})
	is.Equal(r.entries[s].claim.Token, "")
}
