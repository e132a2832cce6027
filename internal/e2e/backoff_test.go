package e2e_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// When, how and whether a dialled connection comes back (PROTOCOL.md section 8).

func TestReconnect_backoffGrowsToTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		b := typedrpc.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second, Factor: 2}
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: b})
		time.Sleep(time.Minute)
		w.Serve(nil)
		w.Mu.Lock()
		w.Dials = []time.Time{time.Now()}
		w.Mu.Unlock()
		w.Cable().Cut()
		time.Sleep(time.Hour)
		bound := b.Min
		var sum time.Duration
		ds := w.Waits()
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
		w.Serve(l.Server)
		time.Sleep(10 * time.Second)
		is.Equal(c.State(), typedrpc.StateConnected)
		is.NoErr(c.Close())
	})
}

func TestReconnect_firstTryIsJitteredToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Second, Max: time.Minute}})
		var sum, shortest, longest time.Duration = 0, time.Hour, 0
		const n = 300
		for range n {
			time.Sleep(20 * time.Second) // long enough to start over
			began := time.Now()
			w.Cable().Cut()
			for c.State() != typedrpc.StateConnected {
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
	}{{testkit.Lived - time.Millisecond, 5}, {testkit.Lived + time.Millisecond, 1}} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var seen lab.Watch
			w, _, conn := lab.Reconnected(t, &typedrpc.DialOptions{OnState: seen.On, Backoff: lab.Steady})
			for range 5 {
				time.Sleep(c.lives)
				w.Cable().Cut()
				time.Sleep(time.Until(seen.Last().Next))
				synctest.Wait()
				is.Equal(conn.State(), typedrpc.StateConnected)
			}
			attempt := 0
			for _, s := range seen.Seen() {
				if s.State == typedrpc.StateWaiting {
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
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady, MaxAttempts: 4})
		time.Sleep(time.Minute)
		w.Serve(nil)
		w.Cable().Cut()
		f := typedrpc.Go(t.Context(), c, lab.Echo, 1)
		<-c.Context().Done()
		is.Equal(w.Dialled(), 5)
		is.True(errors.Is(c.Err(), typedrpc.Unavailable))
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
	})
}

func TestReconnect_noAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, c := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady, MaxAttempts: -1})
		w.Cable().Cut()
		<-c.Context().Done()
		is.Equal(w.Dialled(), 1)
		is.True(errors.Is(c.Err(), typedrpc.Unavailable))
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
	})
}

// TestReconnect_withoutBackoff has a server away for a while: attempts are as far apart as
// Least, also with a session to go on with, and never as fast as a processor can.
func TestReconnect_withoutBackoff(t *testing.T) {
	for _, c := range []struct {
		b     typedrpc.Backoff
		least int
		most  int // attempts in three seconds
	}{
		{typedrpc.Backoff{Off: true, Least: time.Second}, 3, 4},
		{typedrpc.Backoff{Off: true}, 300, 301},
		{typedrpc.Backoff{Min: time.Second, Max: time.Second, Factor: 1, Least: time.Second}, 3, 4},
	} {
		for grace, name := range map[time.Duration]string{time.Second: "session", -1: "none"} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					w, _, conn := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: c.b, Limits: typedrpc.Limits{Grace: grace}})
					time.Sleep(time.Minute)
					before := w.Dialled()
					w.Serve(nil)
					w.Cable().Cut()
					time.Sleep(3*time.Second + time.Millisecond)
					n := w.Dialled() - before
					is.True(n >= c.least && n <= c.most) // attempts
					is.NoErr(conn.Close())
				})
			})
		}
	}
}

func TestReconnect_closeCodes(t *testing.T) {
	b := typedrpc.Backoff{Min: time.Second, Max: time.Minute}
	for _, c := range []struct {
		code      int
		away      typedrpc.Code // not 0: stays away, with this error
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
		{session.CloseProtocol, typedrpc.Internal, 0, 0},
		{session.CloseForbidden, typedrpc.PermissionDenied, 0, 0},
		{session.CloseUnauthed, 0, 0, time.Second}, // after a WELCOME: one try
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			var seen lab.Watch
			w, conn := lab.Scripted(t, &typedrpc.DialOptions{Backoff: b, OnState: seen.On}, func(n int, p *testkit.Peer) {
				p.Welcome()
				if n == 1 {
					time.Sleep(15 * time.Second)
					if c.code == 0 {
						p.T.Kill()
					} else {
						p.T.Close(c.code, "because")
					}
				}
				p.CloseCode()
			})
			if c.away != 0 {
				<-conn.Context().Done()
				is.Equal(typedrpc.CodeOf(conn.Err()), c.away)
				is.Equal(w.Dialled(), 1)
				return
			}
			began := time.Now()
			time.Sleep(3 * time.Minute)
			is.Equal(conn.State(), typedrpc.StateConnected)
			is.Equal(w.Dialled(), 2)
			waiting := seen.Seen()[2]
			is.Equal(waiting.State, typedrpc.StateWaiting)
			next := waiting.Next.Sub(began) - 15*time.Second
			is.True(next >= c.low && next <= c.high)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_refusalsOfTheHandshake(t *testing.T) {
	for _, c := range []struct {
		code  typedrpc.Code
		close int
		away  bool
	}{
		{typedrpc.Unauthenticated, session.CloseUnauthed, true},
		{typedrpc.PermissionDenied, session.CloseForbidden, true},
		{typedrpc.Unavailable, session.CloseOverload, false},
		{typedrpc.ResourceExhausted, session.CloseOverload, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			_, conn := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
				if n == 2 {
					p.Refuse(int64(c.code), c.close)
					return
				}
				p.Welcome()
				if n == 1 {
					p.T.Kill()
					return
				}
				p.CloseCode()
			})
			if c.away {
				<-conn.Context().Done()
				is.Equal(typedrpc.CodeOf(conn.Err()), c.code)
				return
			}
			time.Sleep(5 * time.Second)
			is.Equal(conn.State(), typedrpc.StateConnected)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_4401AfterWelcomeGivesOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		asked := 0
		auth := typedrpc.NewSignIn[int, struct{}]().Present(func(context.Context) (int, error) { asked++; return asked, nil })
		var creds []string
		w, conn := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady, SignIn: auth}, func(n int, p *testkit.Peer) {
			f, _ := p.Until(wire.Hello)
			h, _ := wire.ParseHello(f.Payload)
			creds = append(creds, string(h.Credentials))
			b := wire.WelcomeBody{Token: "token", Limits: testkit.Roomy}
			if n < 4 { // three times it works for a while
				p.Send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
				time.Sleep(15 * time.Second)
			}
			p.T.Close(session.CloseUnauthed, "expired")
			p.CloseCode()
		})
		<-conn.Context().Done()
		is.Equal(typedrpc.CodeOf(conn.Err()), typedrpc.Unauthenticated)
		is.Equal(w.Dialled(), 4)
		is.Equal(creds, []string{"1", "2", "3", "4"}) // fresh ones each time
	})
}

func TestReconnect_refusedUpgrades(t *testing.T) {
	for _, c := range []struct {
		status int
		away   typedrpc.Code
	}{
		{http.StatusBadRequest, typedrpc.InvalidArgument}, {http.StatusUnauthorized, typedrpc.Unauthenticated}, {http.StatusForbidden, typedrpc.PermissionDenied},
		{http.StatusNotFound, 0}, {http.StatusTooManyRequests, 0}, {http.StatusInternalServerError, 0}, {http.StatusServiceUnavailable, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			w, l, conn := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady})
			_ = l
			w.Mu.Lock()
			w.Refuse = func(n int) error {
				if n < 4 {
					return &typedrpc.UpgradeError{Status: c.status, Body: "no"}
				}
				return nil
			}
			w.Mu.Unlock()
			w.Cable().Cut()
			time.Sleep(time.Minute)
			if c.away != 0 {
				is.Equal(typedrpc.CodeOf(conn.Err()), c.away)
				is.Equal(w.Dialled(), 2)
				var u *typedrpc.UpgradeError
				is.True(errors.As(conn.Err(), &u))
				is.Equal(u.Body, "no")
				return
			}
			is.Equal(conn.State(), typedrpc.StateConnected)
			is.Equal(w.Dialled(), 4)
			is.NoErr(conn.Close())
		})
	}
}

func TestReconnect_retryAfterOfAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, _, conn := lab.Reconnected(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		w.Mu.Lock()
		w.Refuse = func(n int) error {
			if n == 2 {
				return &typedrpc.UpgradeError{Status: 503, Header: http.Header{"Retry-After": {"17"}}}
			}
			return nil
		}
		w.Mu.Unlock()
		w.Cable().Cut()
		time.Sleep(time.Minute)
		ds := w.Waits()
		is.Equal(len(ds), 2)
		is.True(ds[1] >= 17*time.Second && ds[1] <= 25500*time.Millisecond)
		is.Equal(conn.State(), typedrpc.StateConnected)
		is.NoErr(conn.Close())
	})
}

func TestReconnect_authIsAskedBeforeEveryHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		sign := typedrpc.NewSignIn[string, struct{}]()
		var accepted []string
		l.SignIn = sign.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, struct{}, error) {
			accepted = append(accepted, *who)
			return typedrpc.Identity{Subject: *who}, struct{}{}, nil
		})
		w := &lab.Town{Srv: l.Server}
		asked := 0
		conn := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady, SignIn: sign.Present(func(context.Context) (string, error) {
			asked++
			if asked == 3 {
				return "", errors.New("the vault is closed")
			}
			return "me", nil
		})})
		for range 3 {
			w.Cable().Cut()
			time.Sleep(time.Minute)
			is.Equal(conn.State(), typedrpc.StateConnected) // a vault that is closed is no reason to stay away
		}
		is.Equal(asked, 5)
		is.Equal(len(accepted), 4)
		is.NoErr(conn.Close())
	})
}

func TestReconnect_identityExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		sign := typedrpc.NewSignIn[struct{}, struct{}]()
		l.SignIn = sign.Verify(func(context.Context, *http.Request, *struct{}) (typedrpc.Identity, struct{}, error) {
			return typedrpc.Identity{Subject: "me", Expires: time.Now().Add(time.Minute)}, struct{}{}, nil
		})
		gone := make(chan error, 9)
		l.OnDisconnect = func(_ *typedrpc.Conn, err error) { gone <- err }
		w := &lab.Town{Srv: l.Server}
		conn := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		time.Sleep(time.Minute - time.Millisecond)
		is.Equal(len(gone), 0)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		is.Equal(len(gone), 1) // on the dot
		time.Sleep(5 * time.Second)
		is.Equal(conn.State(), typedrpc.StateConnected) // with fresh credentials
		is.Equal(w.Dialled(), 2)
		is.NoErr(conn.Close())
	})
}

func TestReconnect_identityContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		sign := typedrpc.NewSignIn[struct{}, struct{}]()
		ctx, revoke := context.WithCancel(t.Context())
		refuse := false
		l.SignIn = sign.Verify(func(context.Context, *http.Request, *struct{}) (typedrpc.Identity, struct{}, error) {
			if refuse {
				return typedrpc.Identity{}, struct{}{}, typedrpc.Unauthenticated
			}
			return typedrpc.Identity{Subject: "me", Context: ctx}, struct{}{}, nil
		})
		w := &lab.Town{Srv: l.Server}
		conn := w.Dial(t, &typedrpc.DialOptions{Backoff: lab.Steady})
		f := typedrpc.Go(t.Context(), conn, lab.Hang, struct{}{})
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(1))
		refuse = true
		revoke()
		<-conn.Context().Done()
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))
		is.Equal(typedrpc.CodeOf(conn.Err()), typedrpc.Unauthenticated)
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
	})
}

func TestGoAway_callsAreHeldAndThoseInFlightFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		goaway := wire.GoAwayBody{Reason: "moving", Min: 2000, Max: 5000}
		left := make(chan int, 1)
		w, conn := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
			p.Welcome()
			if n == 1 {
				p.Until(wire.Call)
				p.Send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
				time.Sleep(15 * time.Second)
				for _, f := range p.Frames {
					if f.Type == wire.Call {
						left <- -1 // a call after GOAWAY
					}
				}
				p.Send(wire.Frame{Type: wire.Result, ID: 1, Payload: []byte("1")})
				left <- p.CloseCode()
				return
			}
			f, _ := p.Until(wire.Call)
			p.Send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: []byte("2")})
			p.CloseCode()
		})
		first := typedrpc.Go(t.Context(), conn, lab.Echo, 1)
		time.Sleep(time.Second)
		second := typedrpc.Go(t.Context(), conn, lab.Echo, 2)
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
		is.Equal(w.Dialled(), 2)
		is.NoErr(conn.Close())
	})
}

func TestGoAway_doesNotOverruleAForbiddingCode(t *testing.T) {
	for _, code := range []int{session.CloseProtocol, session.CloseForbidden} {
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			goaway := wire.GoAwayBody{Max: 5000}
			w, conn := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
				p.Welcome()
				p.Until(wire.Call)
				p.Send(wire.Frame{Type: wire.GoAway, Payload: goaway.Append(nil)})
				p.T.Close(code, "and do not come back")
				p.CloseCode()
			})
			typedrpc.Go(t.Context(), conn, lab.Echo, 1)
			<-conn.Context().Done()
			is.Equal(w.Dialled(), 1)
		})
	}
}

// A server that welcomes everybody and sends everybody away at once is no reason to dial
// hundreds of times a second, whatever window it names.
func TestGoAway_againAndAgain(t *testing.T) {
	for name, leave := range map[string]func(*testkit.Peer){
		"the client leaves":   func(p *testkit.Peer) { p.CloseCode() },
		"the server restarts": func(p *testkit.Peer) { p.T.Close(session.CloseRestart, "") },
		"the link is cut":     func(p *testkit.Peer) { p.T.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				w, conn := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
					p.Welcome()
					p.Send(wire.Frame{Type: wire.GoAway, Payload: (&wire.GoAwayBody{Max: 1}).Append(nil)})
					leave(p)
				})
				time.Sleep(time.Minute)
				is.True(w.Dialled() > 10)
				is.True(w.Dialled() < 240) // a wait is half a second on the average
				is.NoErr(conn.Close())
			})
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
			w, conn := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
				p.Welcome()
				if n == 1 {
					p.Send(wire.Frame{Type: wire.GoAway, Payload: body.Append(nil)})
				}
				p.CloseCode()
			})
			time.Sleep(time.Hour + time.Minute) // no hint keeps a client away for longer
			is.Equal(w.Dialled(), 2)
			is.Equal(conn.State(), typedrpc.StateConnected)
			is.NoErr(conn.Close())
		})
	}
}
