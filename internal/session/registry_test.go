package session

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// newRegistry returns one that keeps enough.
func newRegistry() *Registry { return &Registry{MaxSessions: 1000, MaxBytes: 1 << 30} }

// testLog is what a session of these tests may keep.
const testLog = 1 << 20

// member is a live session in a registry, and its token. With a log of 0 it
// ends with its link.
func member(t *testing.T, reg *Registry, q Claim, log int) (*running, string) {
	t.Helper()
	r := startLogging(Options{Dialect: Binary}, log)
	token := reg.Add(r.Session, q)
	r.greet(t, 0)
	return r, token
}

// confirm sends what shows that the client has its token.
func (r *running) confirm(is *is.I) {
	is.Helper()
	is.NoErr(r.raw.send(wire.Frame{Type: wire.Ack}))
	synctest.Wait()
	is.True(r.Heard())
}

// resume is what a server does with q: a new link, which the session gets if the
// registry agrees.
func (r *running) resume(reg *Registry, q Claim) (link *running, reason string, err error) {
	n := &running{Session: r.Session, o: r.o, engine: new(engine)}
	n.start()
	s, reason, err := reg.Resume(n.carrier, q, wire.WelcomeBody{})
	if err == nil && s == nil || err != nil {
		n.cut()
		return nil, reason, err
	}
	return n, reason, nil
}

// start gives r a link in its opening, without a handshake.
func (r *running) start() {
	near, far := link.Pipe()
	r.dial(near, far)
}

// welcome reads the WELCOME of a link.
func (r *running) welcome(is *is.I) wire.WelcomeBody {
	is.Helper()
	f, err := r.raw.expect(wire.Welcome)
	is.NoErr(err)
	w, err := wire.ParseWelcome(f.Payload)
	is.NoErr(err)
	return w
}

// superseded reports an error that closes a link with 4409.
func superseded(err error) bool {
	var ce *link.CloseError
	return errors.As(err, &ce) && ce.Code == CloseSuperseded
}

func TestRegistry_noTokenAndUnknownTokens(t *testing.T) {
	is := is.New(t)
	reg := newRegistry()
	s, reason, err := reg.Resume(nil, Claim{Principal: "me", Attempt: 1}, wire.WelcomeBody{})
	is.NoErr(err)
	is.True(s == nil)
	is.Equal(reason, ReasonNone)
	s, reason, err = reg.Resume(nil, Claim{Principal: "me", Attempt: 1, Token: "guessed"}, wire.WelcomeBody{})
	is.NoErr(err)
	is.True(s == nil)
	is.Equal(reason, ReasonUnknown)
}

func TestRegistry_newerAttemptFencesTheOldLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		reg := newRegistry()
		r, token := member(t, reg, Claim{Principal: "me", Attempt: 1}, testLog)
		n, reason, err := r.resume(reg, Claim{Principal: "me", Attempt: 2, Token: token})
		is.NoErr(err)
		is.Equal(reason, ReasonNone)
		is.Equal(r.code(), CloseSuperseded)
		w := n.welcome(is)
		is.True(w.Resumed)
		is.True(w.Token != token)
		is.NoErr(r.Err()) // the session goes on
		is.Equal(r.Carrier(), n.carrier)
		n.stop()
	})
}

// What cannot be resumed is fenced off all the same: its client reads it no more.
func TestRegistry_newerAttemptEndsWhatCannotBeResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		reg := newRegistry()
		r, token := member(t, reg, Claim{Principal: "me", Attempt: 1}, 0)
		_, reason, err := r.resume(reg, Claim{Principal: "me", Attempt: 2, Token: token})
		is.NoErr(err)
		is.Equal(reason, ReasonEnded)
		is.Equal(r.code(), CloseSuperseded)
		_, reason, err = r.resume(reg, Claim{Principal: "me", Attempt: 3, Token: token})
		is.NoErr(err)
		is.Equal(reason, ReasonUnknown) // a token is good for one use
	})
}

func TestRegistry_tokenOfAnotherPrincipal(t *testing.T) {
	for _, log := range []int{0, testLog} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			reg := newRegistry()
			r, token := member(t, reg, Claim{Principal: "me", Attempt: 1}, log)
			_, reason, err := r.resume(reg, Claim{Principal: "thief", Attempt: 9, Token: token})
			is.NoErr(err)
			is.Equal(reason, ReasonUnknown) // as if there were no such session
			synctest.Wait()
			is.NoErr(r.Err()) // and it goes on
			is.Equal(r.Carrier(), r.carrier)
			n, reason, err := r.resume(reg, Claim{Principal: "me", Attempt: 2, Token: token})
			is.NoErr(err)
			if log == 0 {
				is.Equal(reason, ReasonEnded)
			} else {
				n.stop()
			}
			<-r.end
		})
	}
}

func TestRegistry_staleAttemptFencesNobody(t *testing.T) {
	for _, log := range []int{0, testLog} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			reg := newRegistry()
			r, token := member(t, reg, Claim{Principal: "me", Attempt: 5}, log)
			for _, attempt := range []uint64{0, 4, 5} {
				_, _, err := r.resume(reg, Claim{Principal: "me", Attempt: attempt, Token: token})
				is.True(superseded(err))
			}
			synctest.Wait()
			is.NoErr(r.Err())
			is.NoErr(r.carrier.link.Err())
			r.stop()
		})
	}
}

func TestRegistry_remove(t *testing.T) {
	for _, log := range []int{0, testLog} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			reg := newRegistry()
			r, token := member(t, reg, Claim{Principal: "me", Attempt: 1}, log)
			reg.Remove(r.Session)
			_, reason, err := r.resume(reg, Claim{Principal: "me", Attempt: 2, Token: token})
			is.NoErr(err)
			is.Equal(reason, ReasonUnknown)
			is.NoErr(r.Err())
			r.stop()
		})
	}
}

func TestRegistry_tokensDiffer(t *testing.T) {
	is := is.New(t)
	reg := newRegistry()
	seen := map[string]bool{}
	for range 1000 {
		token := reg.Add(new(Session), Claim{Principal: "me", Attempt: 1})
		is.Equal(len(token), 32) // 128 bits
		is.True(!seen[token])
		seen[token] = true
	}
}

func TestRegistry_onlyOneOfManyRivalsFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		reg := newRegistry()
		r, token := member(t, reg, Claim{Principal: "me", Attempt: 1}, 0)
		won := make(chan bool, 8)
		for i := range uint64(8) {
			go func() {
				_, reason, _ := reg.Resume(nil, Claim{Principal: "me", Attempt: i + 2, Token: token}, wire.WelcomeBody{})
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

// Of many links with a valid token the one of the highest attempt carries the
// session in the end, whatever the order.
func TestRegistry_highestOfManyRivalsWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		reg := newRegistry()
		r, token := member(t, reg, Claim{Principal: "me", Attempt: 1}, testLog)
		type result struct {
			attempt uint64
			link    *running
			err     error
		}
		results := make(chan result, 8)
		for i := range uint64(8) {
			go func() {
				n, _, err := r.resume(reg, Claim{Principal: "me", Attempt: i + 2, Token: token})
				results <- result{i + 2, n, err}
			}()
		}
		var last *running
		for range 8 {
			res := <-results
			if res.attempt == 9 {
				is.NoErr(res.err)
				last = res.link
			} else if res.err != nil {
				is.True(superseded(res.err))
			}
		}
		synctest.Wait()
		is.Equal(r.Carrier(), last.carrier)
		is.NoErr(last.carrier.link.Err())
		is.NoErr(r.Err())
		last.stop()
		time.Sleep(time.Minute)
	})
}
