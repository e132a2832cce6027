package typedrpc

import (
	"context"
	"errors"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// When, how and whether a dialled connection comes back (PROTOCOL.md section 8).

func TestBackoff_delayBounds(t *testing.T) {
	is := is.New(t)
	b := Backoff{Min: 100 * time.Millisecond, Max: 3 * time.Second, Factor: 2}
	bound := b.Min
	for failed := 1; failed < 20; failed++ {
		var sum, longest time.Duration
		const n = 2000
		for range n {
			d := b.Delay(failed)
			is.True(d >= 0 && d <= bound)
			sum += d
			longest = max(longest, d)
		}
		mean := float64(sum) / n / float64(bound)
		is.True(mean > 0.42 && mean < 0.58) // full jitter, also at the cap
		is.True(longest > bound*9/10)
		bound = min(2*bound, b.Max)
	}
}

func TestBackoff_delayNeverPanics(t *testing.T) {
	is := is.New(t)
	for _, b := range []Backoff{
		{}, {Max: math.MaxInt64}, {Min: math.MaxInt64, Max: math.MaxInt64}, {Min: -1}, {Max: -1}, {Factor: math.NaN()},
		{Factor: math.Inf(1)}, {Factor: -3}, {Min: 1, Max: 1}, {Factor: 1e300},
	} {
		for _, failed := range []int{-1, 0, 1, 2, 63, 64, 1 << 20, math.MaxInt} {
			is.True(b.Delay(failed) >= 0)
		}
	}
}

func TestBackoff_firstAttemptIsZeroOrOne(t *testing.T) {
	is := is.New(t)
	b := Backoff{Min: time.Second, Max: time.Hour}
	for range 100 {
		is.True(b.Delay(0) <= time.Second) // as after the first failure
	}
}

// waits returns the pauses between the attempts that a town has seen.
func (w *town) waits() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ds []time.Duration
	for i := 1; i < len(w.dials); i++ {
		ds = append(ds, w.dials[i].Sub(w.dials[i-1]))
	}
	return ds
}

func TestReconnect_backoffGrowsToTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second, Factor: 2}
		w, l, c := reconnected(t, &DialOptions{Backoff: b})
		time.Sleep(time.Minute)
		w.serve(nil)
		w.mu.Lock()
		w.dials = []time.Time{time.Now()}
		w.mu.Unlock()
		w.cable().cut()
		time.Sleep(time.Hour)
		bound := b.Min
		var sum time.Duration
		ds := w.waits()
		for i, d := range ds {
			is.True(d <= bound)
			bound = min(2*bound, b.Max)
			if i >= 10 {
				sum += d
			}
		}
		is.True(len(ds) > 300) // for ever, at the cap
		mean := sum / time.Duration(len(ds)-10)
		is.True(mean > 4*time.Second && mean < 6*time.Second)
		w.serve(l.Server)
		time.Sleep(10 * time.Second)
		is.Equal(c.State(), Connected)
		is.NoErr(c.Close())
	})
}

func TestReconnect_firstTryIsJitteredToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := reconnected(t, &DialOptions{Backoff: Backoff{Min: time.Second, Max: time.Minute}})
		var sum, shortest, longest time.Duration = 0, time.Hour, 0
		const n = 300
		for range n {
			time.Sleep(20 * time.Second) // long enough to start over
			began := time.Now()
			w.cable().cut()
			for c.State() != Connected {
				time.Sleep(time.Millisecond)
			}
			d := time.Since(began)
			sum, shortest, longest = sum+d, min(shortest, d), max(longest, d)
		}
		is.True(longest <= time.Second+2*time.Millisecond)
		mean := sum / n
		is.True(mean > 400*time.Millisecond && mean < 600*time.Millisecond)
		is.True(shortest < 100*time.Millisecond && longest > 900*time.Millisecond)
		is.NoErr(c.Close())
	})
}

func TestReconnect_onlyALinkThatLivedStartsOver(t *testing.T) {
	for _, c := range []struct {
		lives time.Duration
		last  int // attempts in a row after five losses
	}{{lived - time.Millisecond, 5}, {lived + time.Millisecond, 1}} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var seen watch
			w, _, conn := reconnected(t, &DialOptions{OnState: seen.on, Backoff: steady})
			for range 5 {
				time.Sleep(c.lives)
				w.cable().cut()
				time.Sleep(time.Until(seen.last().Next))
				synctest.Wait()
				is.Equal(conn.State(), Connected)
			}
			attempt := 0
			for _, s := range seen.seen() {
				if s.State == Waiting {
					attempt = s.Attempt
				}
			}
			is.Equal(attempt, c.last)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_attemptsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := steady
		b.Attempts = 4
		w, _, c := reconnected(t, &DialOptions{Backoff: b})
		time.Sleep(time.Minute)
		w.serve(nil)
		w.cable().cut()
		f := Go(t.Context(), c, labEcho, 1)
		<-c.Done()
		is.Equal(w.dialled(), 5)
		is.True(errors.Is(c.Err(), Unavailable))
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), NotSent)
		_, err = Call(t.Context(), c, labEcho, 1)
		is.Equal(outcomeOf(err), NotSent)
	})
}

// scripted dials a server that follows a script.
func scripted(t *testing.T, o *DialOptions, script func(n int, p *wirePeer)) (*town, *Conn) {
	t.Helper()
	w := &town{script: script}
	return w, w.dial(t, o)
}

func TestReconnect_closeCodes(t *testing.T) {
	b := Backoff{Min: time.Second, Max: time.Minute}
	for _, c := range []struct {
		code      int
		away      Code // not 0: stays away, with this error
		low, high time.Duration
	}{
		{0, 0, 0, time.Second}, // no goodbye at all
		{1000, 0, 0, time.Second},
		{1001, 0, 0, time.Second},
		{1011, 0, 0, time.Second},
		{session.CloseRestart, 0, 0, time.Second},
		{session.CloseOverload, 0, 0, time.Second},
		{session.CloseTimeout, 0, 0, time.Second},
		{session.CloseSuperseded, 0, 0, time.Second},
		{session.CloseFlood, 0, 30 * time.Second, time.Minute}, // late
		{4999, 0, 0, time.Second},
		{session.CloseProtocol, Internal, 0, 0},
		{session.CloseForbidden, PermissionDenied, 0, 0},
		{session.CloseUnauthed, 0, 0, time.Second}, // after a WELCOME: one try
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var seen watch
			w, conn := scripted(t, &DialOptions{Backoff: b, OnState: seen.on}, func(n int, p *wirePeer) {
				p.welcome()
				if n == 1 {
					time.Sleep(15 * time.Second)
					if c.code == 0 {
						p.t.Kill()
					} else {
						p.t.Close(c.code, "because")
					}
				}
				p.closeCode()
			})
			if c.away != 0 {
				<-conn.Done()
				is.Equal(CodeOf(conn.Err()), c.away)
				is.Equal(w.dialled(), 1)
				return
			}
			began := time.Now()
			time.Sleep(3 * time.Minute)
			is.Equal(conn.State(), Connected)
			is.Equal(w.dialled(), 2)
			waiting := seen.seen()[2]
			is.Equal(waiting.State, Waiting)
			next := waiting.Next.Sub(began) - 15*time.Second
			is.True(next >= c.low && next <= c.high)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_refusalsOfTheHandshake(t *testing.T) {
	for _, c := range []struct {
		code  Code
		close int
		away  bool
	}{
		{Unauthenticated, session.CloseUnauthed, true},
		{PermissionDenied, session.CloseForbidden, true},
		{Unavailable, session.CloseOverload, false},
		{ResourceExhausted, session.CloseOverload, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			_, conn := scripted(t, &DialOptions{Backoff: steady}, func(n int, p *wirePeer) {
				if n == 2 {
					p.refuse(c.code, c.close)
					return
				}
				p.welcome()
				if n == 1 {
					p.t.Kill()
					return
				}
				p.closeCode()
			})
			if c.away {
				<-conn.Done()
				is.Equal(CodeOf(conn.Err()), c.code)
				return
			}
			time.Sleep(5 * time.Second)
			is.Equal(conn.State(), Connected)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_4401AfterWelcomeGivesOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		asked := 0
		auth := Credentials(NewMethod[int, Empty]("auth"), func(context.Context) (int, error) { asked++; return asked, nil })
		var creds []string
		w, conn := scripted(t, &DialOptions{Backoff: steady, Auth: auth}, func(n int, p *wirePeer) {
			f, _ := p.until(wire.Hello)
			h, _ := wire.ParseHello(f.Payload)
			creds = append(creds, string(h.Credentials))
			b := wire.WelcomeBody{Token: "token", Limits: roomy}
			if n < 4 { // three times it works for a while
				p.send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
				time.Sleep(15 * time.Second)
			}
			p.t.Close(session.CloseUnauthed, "expired")
			p.closeCode()
		})
		<-conn.Done()
		is.Equal(CodeOf(conn.Err()), Unauthenticated)
		is.Equal(w.dialled(), 4)
		is.Equal(creds, []string{"1", "2", "3", "4"}) // fresh ones each time
	})
}

func TestReconnect_refusedUpgrades(t *testing.T) {
	for _, c := range []struct {
		status int
		away   Code
	}{
		{http.StatusBadRequest, InvalidArgument}, {http.StatusUnauthorized, Unauthenticated}, {http.StatusForbidden, PermissionDenied},
		{http.StatusNotFound, 0}, {http.StatusTooManyRequests, 0}, {http.StatusInternalServerError, 0}, {http.StatusServiceUnavailable, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			w, l, conn := reconnected(t, &DialOptions{Backoff: steady})
			_ = l
			w.mu.Lock()
			w.refuse = func(n int) error {
				if n < 4 {
					return &UpgradeError{Status: c.status, Body: "no"}
				}
				return nil
			}
			w.mu.Unlock()
			w.cable().cut()
			time.Sleep(time.Minute)
			if c.away != 0 {
				is.Equal(CodeOf(conn.Err()), c.away)
				is.Equal(w.dialled(), 2)
				var u *UpgradeError
				is.True(errors.As(conn.Err(), &u))
				is.Equal(u.Body, "no")
				return
			}
			is.Equal(conn.State(), Connected)
			is.Equal(w.dialled(), 4)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_retryAfterOfAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, conn := reconnected(t, &DialOptions{Backoff: steady})
		w.mu.Lock()
		w.refuse = func(n int) error {
			if n == 2 {
				return &UpgradeError{Status: 503, Header: http.Header{"Retry-After": {"17"}}}
			}
			return nil
		}
		w.mu.Unlock()
		w.cable().cut()
		time.Sleep(time.Minute)
		ds := w.waits()
		is.Equal(len(ds), 2)
		is.True(ds[1] >= 17*time.Second && ds[1] <= 25500*time.Millisecond)
		is.Equal(conn.State(), Connected)
		is.NoErr(conn.Close())
	})
}

func TestReconnect_authIsAskedBeforeEveryHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		sign := NewMethod[string, Empty]("sign")
		var accepted []string
		l.Authenticate = Authenticate(sign, func(_ context.Context, _ *http.Request, who string) (Identity, Empty, error) {
			accepted = append(accepted, who)
			return Identity{Subject: who}, Empty{}, nil
		})
		w := &town{srv: l.Server}
		asked := 0
		conn := w.dial(t, &DialOptions{Backoff: steady, Auth: Credentials(sign, func(context.Context) (string, error) {
			asked++
			if asked == 3 {
				return "", errors.New("the vault is closed")
			}
			return "me", nil
		})})
		for range 3 {
			w.cable().cut()
			time.Sleep(time.Minute)
			is.Equal(conn.State(), Connected) // a vault that is closed is no reason to stay away
		}
		is.Equal(asked, 5)
		is.Equal(len(accepted), 4)
		is.NoErr(conn.Close())
	})
}

func TestReconnect_identityExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		sign := NewMethod[Empty, Empty]("sign")
		l.Authenticate = Authenticate(sign, func(context.Context, *http.Request, Empty) (Identity, Empty, error) {
			return Identity{Subject: "me", Expires: time.Now().Add(time.Minute)}, Empty{}, nil
		})
		gone := make(chan error, 9)
		l.OnDisconnect = func(_ *Conn, err error) { gone <- err }
		w := &town{srv: l.Server}
		conn := w.dial(t, &DialOptions{Backoff: steady})
		time.Sleep(time.Minute - time.Millisecond)
		is.Equal(len(gone), 0)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		is.Equal(len(gone), 1) // on the dot
		time.Sleep(5 * time.Second)
		is.Equal(conn.State(), Connected) // with fresh credentials
		is.Equal(w.dialled(), 2)
		is.NoErr(conn.Close())
	})
}

func TestReconnect_identityContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		sign := NewMethod[Empty, Empty]("sign")
		ctx, revoke := context.WithCancel(t.Context())
		refuse := false
		l.Authenticate = Authenticate(sign, func(context.Context, *http.Request, Empty) (Identity, Empty, error) {
			if refuse {
				return Identity{}, Empty{}, Unauthenticated
			}
			return Identity{Subject: "me", Context: ctx}, Empty{}, nil
		})
		w := &town{srv: l.Server}
		conn := w.dial(t, &DialOptions{Backoff: steady})
		f := Go(t.Context(), conn, labHang, Empty{})
		synctest.Wait()
		is.Equal(l.running.Load(), int64(1))
		refuse = true
		revoke()
		<-conn.Done()
		synctest.Wait()
		is.Equal(l.running.Load(), int64(0))
		is.Equal(CodeOf(conn.Err()), Unauthenticated)
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
	})
}

func TestGoAway_callsAreHeldAndThoseInFlightFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		goaway := wire.GoAwayBody{Reason: "moving", Min: 2000, Max: 5000}
		left := make(chan int, 1)
		w, conn := scripted(t, &DialOptions{Backoff: steady}, func(n int, p *wirePeer) {
			p.welcome()
			if n == 1 {
				p.until(wire.Call)
				p.send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
				time.Sleep(15 * time.Second)
				for _, f := range p.frames {
					if f.Type == wire.Call {
						left <- -1 // a call after GOAWAY
					}
				}
				p.send(wire.Frame{Type: wire.Result, ID: 1, Payload: []byte("1")})
				left <- p.closeCode()
				return
			}
			f, _ := p.until(wire.Call)
			p.send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: []byte("2")})
			p.closeCode()
		})
		first := Go(t.Context(), conn, labEcho, 1)
		time.Sleep(time.Second)
		second := Go(t.Context(), conn, labEcho, 2)
		n, err := first.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 1)
		is.Equal(<-left, session.CloseDone) // with nothing in flight the client leaves by itself
		ended := time.Now()
		n, err = second.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 2)
		wait := time.Since(ended)
		is.True(wait >= 2*time.Second && wait <= 5*time.Second) // within the window
		is.Equal(w.dialled(), 2)
		is.NoErr(conn.Close())
	})
}

func TestGoAway_doesNotOverruleAForbiddingCode(t *testing.T) {
	for _, code := range []int{session.CloseProtocol, session.CloseForbidden} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			goaway := wire.GoAwayBody{Max: 5000}
			w, conn := scripted(t, nil, func(_ int, p *wirePeer) {
				p.welcome()
				p.until(wire.Call)
				p.send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
				p.t.Close(code, "and do not come back")
				p.closeCode()
			})
			Go(t.Context(), conn, labEcho, 1)
			<-conn.Done()
			is.Equal(w.dialled(), 1)
		})
	}
}

func TestGoAway_absurdWindows(t *testing.T) {
	for _, body := range []wire.GoAwayBody{
		{Max: math.MaxUint64}, {Min: math.MaxUint64}, {Min: math.MaxUint64, Max: math.MaxUint64}, {Min: 9223372036855, Max: 1},
		{Min: 10000000000000}, {Min: 1 << 43}, {Min: 5000, Max: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			w, conn := scripted(t, &DialOptions{Backoff: steady}, func(n int, p *wirePeer) {
				p.welcome()
				if n == 1 {
					p.send(wire.Frame{Type: wire.GoAway, Payload: body.Append(nil)})
				}
				p.closeCode()
			})
			time.Sleep(time.Hour + time.Minute) // no hint keeps a client away for longer
			is.Equal(w.dialled(), 2)
			is.Equal(conn.State(), Connected)
			is.NoErr(conn.Close())
		})
	}
}
