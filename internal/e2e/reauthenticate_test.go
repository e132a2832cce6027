package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

func TestReauthenticate_succeeds(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		first := g.Server.Identity().Expires
		time.Sleep(time.Minute)
		is.NoErr(g.Client.Reauthenticate(t.Context()))
		is.Equal(g.Reply(is), 2)
		is.Equal(g.Server.Identity().Expires.Sub(first), time.Minute)
		is.Equal(g.W.Dialled(), 1)
		time.Sleep(42*time.Minute - time.Second) // 70 % of the hour from now on, less a second
		is.Equal(len(g.Seen()), 2)               // the refresh was put off
	})
}

func TestReauthenticate_refused(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		was := g.Server.Identity()
		for _, want := range []error{
			&typedrpc.Error{Code: typedrpc.PermissionDenied, Message: "no", Data: typedrpc.Raw(`{"a":1}`), RetryAfter: time.Second},
			errors.New("foreign"), typedrpc.Unavailable,
		} {
			g.On(func(context.Context, int, *typedrpc.Identity) error { return want })
			err := g.Client.Reauthenticate(t.Context())
			code := typedrpc.Unauthenticated
			if c := typedrpc.CodeOf(want); c != typedrpc.Internal {
				code = c
			}
			is.Equal(typedrpc.CodeOf(err), code)
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
			if e := new(typedrpc.Error); code == typedrpc.PermissionDenied && errors.As(err, &e) {
				is.Equal(e.RetryAfter, time.Second)
				is.Equal(e.Message, "no")
			}
			is.True(!strings.Contains(err.Error(), "foreign"))
		}
		g.On(func(context.Context, int, *typedrpc.Identity) error { panic("of Authenticate") })
		is.Equal(typedrpc.CodeOf(g.Client.Reauthenticate(t.Context())), typedrpc.Unauthenticated)
		is.Equal(g.Server.Identity(), was)
		is.Equal(g.Reply(is), 1)
		is.Equal(g.Client.State(), typedrpc.StateConnected)
		is.Equal(g.W.Dialled(), 1)
		g.On(nil)
		is.NoErr(g.Client.Reauthenticate(t.Context()))
	})
}

func TestReauthenticate_anotherSubject(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var who atomic.Value
		who.Store("ann")
		creds := lab.Sign.Present(func(context.Context) (string, error) { return who.Load().(string), nil })
		g := lab.NewGated(t, d, time.Hour, &typedrpc.DialOptions{SignIn: creds})
		ctxs := make(chan context.Context, 9)
		g.On(func(ctx context.Context, _ int, id *typedrpc.Identity) error {
			id.Context = ctx
			ctxs <- ctx
			return nil
		})
		for _, other := range []string{"bob", "", "Ann", "ann "} {
			who.Store(other)
			is.Equal(typedrpc.CodeOf(g.Client.Reauthenticate(t.Context())), typedrpc.PermissionDenied)
			is.Equal((<-ctxs).Err(), context.Canceled) // what it held is given back
		}
		is.Equal(g.Server.Identity().Subject, "ann")
		is.Equal(g.Client.State(), typedrpc.StateConnected)
		_, err := typedrpc.Call(t.Context(), g.Client, lab.Echo, 1)
		is.NoErr(err)
		is.Equal(g.W.Dialled(), 1)
	})
}

func TestReauthenticate_concurrently(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		g.On(func(context.Context, int, *typedrpc.Identity) error { time.Sleep(100 * time.Millisecond); return nil })
		errs := make(chan error, 20)
		for range 20 {
			go func() { errs <- g.Client.Reauthenticate(t.Context()) }()
		}
		for range 20 {
			is.NoErr(<-errs)
		}
		is.Equal(g.Most, 1) // one at a time
		is.Equal(g.Reply(is), len(g.Seen()))
	})
}

func TestReauthenticate_contextEnds(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		hold := make(chan struct{})
		g.On(func(_ context.Context, n int, _ *typedrpc.Identity) error {
			if n == 2 {
				<-hold
				return typedrpc.Errorf(typedrpc.NotFound, "the late answer")
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := g.Client.Reauthenticate(ctx)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		err = g.Client.Reauthenticate(ctx) // over before it began
		is.True(errors.Is(err, context.DeadlineExceeded))
		next := make(chan error, 1)
		go func() { next <- g.Client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		close(hold)
		is.NoErr(<-next) // its own answer, and not the late one
		is.Equal(g.Reply(is), len(g.Seen()))
		is.Equal(g.Client.State(), typedrpc.StateConnected)
		is.Equal(g.W.Dialled(), 1)
	})
}

// An answer that comes when its caller has gone still counts: the server goes by
// it.
func TestReauthenticate_lateAnswerCounts(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		g.On(func(_ context.Context, n int, id *typedrpc.Identity) error {
			time.Sleep(2 * time.Second)
			id.Expires = time.Now().Add(time.Minute) // sooner than before
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		is.Equal(typedrpc.OutcomeOf(g.Client.Reauthenticate(ctx)), typedrpc.MayHaveRun)
		time.Sleep(2 * time.Second)
		is.Equal(g.Reply(is), 2)
		time.Sleep(10 * time.Minute)
		is.Equal(g.W.Dialled(), 1) // it was refreshed before that minute was over
		is.Equal(g.Client.State(), typedrpc.StateConnected)
	})
}

func TestReauthenticate_linkIsLostInTheMiddle(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		hold := make(chan struct{})
		g.On(func(_ context.Context, n int, id *typedrpc.Identity) error {
			if n == 2 { // the AUTH, which pays no heed to its context
				<-hold
				id.Expires = time.Now().Add(time.Second)
			}
			return nil
		})
		result := make(chan error, 1)
		go func() { result <- g.Client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		is.Equal(len(g.Seen()), 2)
		g.W.Cable().Cut()
		is.NoErr(<-result) // the next handshake's credentials are as good
		synctest.Wait()
		is.True(g.States.Last().Resumed)
		is.Equal(g.Reply(is), 3)
		expires := g.Server.Identity().Expires
		close(hold) // now the one on the dead link returns
		synctest.Wait()
		is.Equal(g.Server.Identity().Expires, expires) // it is nobody's any more
		time.Sleep(10 * time.Second)
		is.Equal(g.W.Dialled(), 2)
		is.NoErr(g.Client.Reauthenticate(t.Context()))
		is.Equal(g.Reply(is), 4)
	})
}

func TestReauthenticate_whileAway(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, &typedrpc.DialOptions{SignIn: lab.Ann, Backoff: lab.Steady})
		g.W.Serve(nil)
		g.W.Cable().Cut()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := g.Client.Reauthenticate(ctx)
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		result := make(chan error, 2)
		go func() { result <- g.Client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		g.W.Serve(g.L.Server)
		is.NoErr(<-result)
		is.Equal(g.Reply(is), 2) // the handshake's; no AUTH was needed
		g.W.Serve(nil)
		g.W.Cable().Cut()
		for range 2 {
			go func() { result <- g.Client.Reauthenticate(t.Context()) }()
		}
		synctest.Wait()
		is.NoErr(g.Client.Close())
		for range 2 {
			is.True(errors.Is(<-result, typedrpc.Unavailable))
		}
		is.True(errors.Is(g.Client.Reauthenticate(t.Context()), typedrpc.Unavailable))
	})
}

func TestReauthenticate_whereThereIsNothingToRefresh(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, 0, nil)
		is.Equal(typedrpc.CodeOf(g.Server.Reauthenticate(t.Context())), typedrpc.FailedPrecondition)
		l := lab.New()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, SignIn: lab.Ann})
		is.Equal(typedrpc.CodeOf(c.Reauthenticate(t.Context())), typedrpc.Unimplemented) // nobody there asks for credentials
		is.NoErr(c.Close())
		c = w.Dial(t, &typedrpc.DialOptions{Dialect: d})
		is.Equal(typedrpc.CodeOf(c.Reauthenticate(t.Context())), typedrpc.FailedPrecondition)
		is.NoErr(c.Close())
	})
}

func TestReauthenticate_afterClose(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		g := lab.NewGated(t, d, time.Hour, nil)
		hold := make(chan struct{})
		defer close(hold)
		g.On(func(context.Context, int, *typedrpc.Identity) error { <-hold; return nil })
		result := make(chan error, 1)
		go func() { result <- g.Client.Reauthenticate(t.Context()) }()
		synctest.Wait()
		is.NoErr(g.Client.Close())
		err := <-result
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun) // the server has the credentials
		err = g.Client.Reauthenticate(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	})
}

// The credentials function had the context of who asked, and outlived the
// connection.
func TestReauthenticate_endsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		ctx, cancel := context.WithCancel(context.Background())
		creds := lab.Sign.Present(func(ctx context.Context) (string, error) {
			if n++; n == 1 {
				return "ann", nil
			}
			<-ctx.Done() // heeds it
			return "", ctx.Err()
		})
		g := lab.NewGated(t, typedrpc.Binary, time.Hour, &typedrpc.DialOptions{SignIn: creds})
		done := make(chan error, 1)
		go func() { done <- g.Client.Reauthenticate(ctx) }()
		synctest.Wait()
		g.Client.Close()
		if err := <-done; err == nil {
			t.Error("no error")
		}
		cancel()
	})
}

// AUTHs that waited were copies of up to the largest message, in no budget.
func TestAuth_largeOnesEndTheSession(t *testing.T) {
	everyHello(t, func(t *testing.T, p *testkit.Peer) {
		is := is.New(t)
		b := wire.AuthBody{Credentials: []byte(`"` + strings.Repeat("x", 70<<10) + `"`)}
		is.NoErr(p.Send(wire.Frame{Type: wire.Auth, Payload: b.Append(nil)}))
		is.Equal(p.CloseCode(), 4400)
	})
}

// everyHello runs test with a peer that has said hello, in each dialect.
func everyHello(t *testing.T, test func(t *testing.T, p *testkit.Peer)) {
	for _, offer := range []string{testkit.BinaryProtocol, testkit.HelloProtocol} {
		t.Run(offer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				l := lab.New()
				l.SignIn = lab.Sign.Verify(func(_ context.Context, _ *http.Request, who *string) (typedrpc.Identity, int, error) {
					return typedrpc.Identity{Subject: lab.Or(who)}, 1, nil
				})
				p, err := testkit.Join(l.Server, offer)
				is.NoErr(err)
				defer p.T.Kill()
				h := testkit.HelloOf(1)
				h.Features = testkit.EveryFeature
				is.NoErr(p.Send(wire.Frame{Type: wire.Hello, Payload: h.Append(nil)}))
				_, err = p.Until(wire.Welcome)
				is.NoErr(err)
				test(t, p)
			})
		})
	}
}

// A client whose askers did not wait for the answers was taken for a flood.
func TestReauthenticate_impatientAskers(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		var slow atomic.Bool
		l.SignIn = lab.Sign.Verify(func(ctx context.Context, _ *http.Request, who *string) (typedrpc.Identity, int, error) {
			if slow.Load() {
				time.Sleep(5 * time.Second)
			}
			return typedrpc.Identity{Subject: *who}, 1, nil
		})
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, patient(d, "ann"))
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		slow.Store(true)
		for range 50 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			is.True(errors.Is(c.Reauthenticate(ctx), context.DeadlineExceeded))
			cancel()
		}
		is.NoErr(c.Reauthenticate(t.Context())) // when that of the first one has been answered
		close(l.Release)
		_, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(w.Dialled(), 1)
		is.NoErr(c.Close())
	})
}

// A server could make a client ask for credentials without a pause.
func TestReauthenticate_tinyExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var asked atomic.Int64
		w := &lab.Town{Script: func(_ int, far *testkit.Peer) {
			if _, err := far.Until(wire.Hello); err != nil {
				return
			}
			b := wire.WelcomeBody{Token: "token", Limits: testkit.Roomy, Features: testkit.EveryFeature, Expires: 1}
			far.Send(wire.Frame{Type: wire.Welcome, Payload: b.Append(nil)})
			for {
				if _, err := far.Until(wire.Auth); err != nil {
					return
				}
				ok := wire.AuthOKBody{Expires: 1}
				far.Send(wire.Frame{Type: wire.AuthOK, Payload: ok.Append(nil)})
			}
		}}
		c := w.Dial(t, &typedrpc.DialOptions{SignIn: lab.Sign.Present(func(context.Context) (string, error) {
			asked.Add(1)
			return "ann", nil
		})})
		time.Sleep(10 * time.Second)
		is.True(asked.Load() > 10)
		is.True(asked.Load() < 50)
		is.NoErr(c.Close())
	})
}
