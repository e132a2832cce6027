package e2e_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestKeyed_cancelEndsTheHandler(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 1)
		synctest.Wait()
		f.Cancel()
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))

		// Also when the caller cancels the repeat, on the next session.
		f = typedrpc.Go(t.Context(), c, lab.KeyHang, 2)
		synctest.Wait()
		w.Cable().Cut()
		time.Sleep(time.Minute)
		is.Equal(l.Running.Load(), int64(1))
		f.Cancel()
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))

		// But not while somebody else waits, whoever was first.
		for _, firstLeaves := range []bool{true, false} {
			k := idempotency.NewKey()
			f, g := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyHang, 3), (*typedrpc.Future[int])(nil)
			synctest.Wait()
			g = typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyHang, 3)
			synctest.Wait()
			if !firstLeaves {
				f, g = g, f
			}
			f.Cancel()
			synctest.Wait()
			is.Equal(l.Running.Load(), int64(1))
			g.Cancel()
			synctest.Wait()
			is.Equal(l.Running.Load(), int64(0))
			_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyHang, 3)
			lab.ErrorOf(t, err, typedrpc.Canceled, typedrpc.Answered) // that was its answer
		}
		is.Equal(len(l.Ended()), 4)
		is.NoErr(c.Close())
	})
}

func TestKeyed_deadlineEndsTheHandler(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		f := typedrpc.Go(ctx, c, lab.KeyHang, 1)
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		time.Sleep(5 * time.Minute)
		is.Equal(l.Running.Load(), int64(1))
		w.Serve(l.Server) // it comes back, and waits
		time.Sleep(54 * time.Minute)
		is.Equal(l.Running.Load(), int64(1))
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(time.Since(began), time.Hour)
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))
		is.NoErr(c.Close())
	})
}

func TestKeyed_handlerThatNobodyComesBackForEnds(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, o)
		typedrpc.Go(t.Context(), c, lab.KeyHang, 1)
		synctest.Wait()
		is.NoErr(c.Close())
		time.Sleep(10*time.Minute - time.Second)
		is.Equal(l.Running.Load(), int64(1))
		time.Sleep(2 * time.Second)
		is.Equal(l.Running.Load(), int64(0))
	})
}

func TestKeyed_handlersOfLostSessionsAreBounded(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		l.Limits.MaxCalls = 3
		w := &lab.Town{Srv: l.Server}
		for range 4 {
			c := w.Dial(t, o)
			for range 3 {
				typedrpc.Go(t.Context(), c, lab.KeyHang, 1)
			}
			synctest.Wait()
			is.NoErr(c.Close())
			synctest.Wait()
			is.Equal(l.Running.Load(), int64(3)) // the contexts of the others ended
		}
		close(l.Release)
	})
}

func TestKeyed_shutdown(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		for _, patient := range []bool{true, false} {
			l := lab.NewLedger()
			w := &lab.Town{Srv: l.Server}
			c := w.Dial(t, o)
			typedrpc.Go(t.Context(), c, lab.KeyHang, 1)
			synctest.Wait()
			is.NoErr(c.Close())
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if patient {
				time.AfterFunc(time.Second, func() { close(l.Release) })
			}
			began := time.Now()
			l.Shutdown(ctx)
			cancel()
			synctest.Wait()
			is.Equal(l.Running.Load(), int64(0))
			if patient {
				is.Equal(time.Since(began), time.Second) // it waits for the handler
				is.Equal(len(l.Ended()), 0)
			} else {
				is.Equal(time.Since(began), time.Minute)
				is.Equal(len(l.Ended()), 1) // and then ends it
			}
		}
	})
}

// Another cache does not know what ran: nothing is sent there.
func TestKeyed_anotherCacheIsNotAsked(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		a, b := lab.NewLedger(), lab.NewLedger()
		w := &lab.Town{Srv: a.Server}
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 1)
		g := typedrpc.Go(t.Context(), lab.WithKey(c, k), lab.KeyHang, 2)
		synctest.Wait()
		w.Serve(b.Server)
		w.Cable().Cut()
		for _, f := range []*typedrpc.Future[int]{f, g} {
			_, err := f.Await(t.Context())
			lab.ErrorOf(t, err, typedrpc.Unavailable, typedrpc.MayHaveRun)
		}
		for range 2 {
			_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyHang, 2)
			lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
		}
		runs, _ := b.Ran()
		is.Equal(runs, 0)
		n, err := typedrpc.Call(t.Context(), c, lab.KeyAdd, 3) // other calls are made as always
		is.NoErr(err)
		is.Equal(n, 3)
		w.Serve(a.Server) // back
		w.Cable().Cut()
		close(a.Release)
		n, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyHang, 2)
		is.NoErr(err)
		is.Equal(n, 2)
		runs, _ = a.Ran()
		is.Equal(runs, 2)
		is.NoErr(c.Close())
	})
}

func TestKeyed_sharedCacheIsTheSame(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		a, b := lab.NewLedger(), lab.NewLedger()
		a.Replays = &idempotency.Cache{}
		b.Replays = a.Replays
		w := &lab.Town{Srv: a.Server}
		c := w.Dial(t, o)
		f := typedrpc.Go(t.Context(), c, lab.KeyHang, 1)
		synctest.Wait()
		w.Serve(b.Server)
		w.Cable().Cut()
		time.Sleep(time.Minute)
		close(a.Release)
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 1)
		runs, _ := b.Ran()
		is.Equal(runs, 0)
		is.NoErr(c.Close())
	})
}

// What did not run may go to another cache: after an answer that says so …
func TestKeyed_whatDidNotRunGoesAnywhere(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		l := lab.NewLedger()
		w := &lab.Town{Srv: lab.New().Server}
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.Unimplemented, typedrpc.NotSent)
		w.Serve(l.Server)
		w.Cable().Cut()
		n, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
	})
}

// … and from a draining server to the next one, without a word.
func TestKeyed_drainingServersCallsGoAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		keys := make(chan string, 9)
		_, c := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(n int, p *testkit.Peer) {
			p.Until(wire.Hello)
			p.Answers = true
			w := wire.WelcomeBody{Token: "token", Limits: testkit.Roomy, Cache: strconv.Itoa(n)}
			p.Send(wire.Frame{Type: wire.Welcome, Payload: w.Append(nil)})
			f, err := p.Until(wire.Call)
			if err != nil {
				return
			}
			keys <- f.Meta[lab.KeyHeader] + f.Meta[lab.AgeHeader]
			if n == 1 {
				bye := wire.GoAwayBody{}
				p.Send(wire.Frame{Type: wire.GoAway, Payload: bye.Append(nil)},
					wire.Frame{Type: wire.Fail, ID: f.ID, Code: int64(typedrpc.Unavailable), Flags: wire.NotRun})
			} else {
				p.Send(wire.Frame{Type: wire.Result, ID: f.ID, Payload: []byte("5")})
			}
			p.CloseCode()
		})
		n, err := typedrpc.Call(t.Context(), c, lab.KeyAdd, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		first, second := <-keys, <-keys
		is.Equal(first[:32], second[:32])
		is.NoErr(c.Close())
	})
}

func TestKeyed_peersWithoutACacheAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		calls := make(chan string, 9)
		_, c := lab.Scripted(t, &typedrpc.DialOptions{Backoff: lab.Steady}, func(_ int, p *testkit.Peer) {
			p.Welcome()
			f, err := p.Until(wire.Call)
			if err == nil {
				calls <- f.Meta[lab.KeyHeader]
			}
			p.T.Kill()
		})
		k := idempotency.NewKey()
		_, err := typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.Unavailable, typedrpc.MayHaveRun)
		_, err = typedrpc.Call(t.Context(), lab.WithKey(c, k), lab.KeyAdd, 5)
		lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
		lab.ErrorOf(t, c.Bind(idempotency.NewKey()), typedrpc.FailedPrecondition, typedrpc.NotSent)
		is.Equal(len(calls), 1)
		is.Equal(len(<-calls), 32)
		is.NoErr(c.Close())
	})
}

func TestKeyed_serversCallClients(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		conns := make(chan *typedrpc.Conn, 9)
		srv := lab.New()
		srv.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: srv.Server}
		l := lab.NewLedger()
		o.Mux = l.Mux
		c := w.Dial(t, o)
		k := idempotency.NewKey()
		f := typedrpc.Go(t.Context(), lab.WithKey(<-conns, k), lab.KeyHang, 5)
		synctest.Wait()
		w.Cable().Cut()
		_, err := f.Await(t.Context())
		lab.ErrorOf(t, err, typedrpc.Unavailable, typedrpc.MayHaveRun)
		next := <-conns
		is.Equal(l.Running.Load(), int64(1))
		close(l.Release)
		n, err := typedrpc.Call(t.Context(), lab.WithKey(next, k), lab.KeyHang, 5)
		is.NoErr(err)
		is.Equal(n, 5)
		is.NoErr(c.Close())
		runs, _ := l.Ran()
		is.Equal(runs, 1)

		fresh := w.Dial(t, o) // a cache of its own
		_, err = typedrpc.Call(t.Context(), lab.WithKey(<-conns, k), lab.KeyHang, 5)
		lab.ErrorOf(t, err, typedrpc.FailedPrecondition, typedrpc.MayHaveRun)
		is.NoErr(fresh.Close())

		o.Replays = &idempotency.Cache{}
		k = idempotency.NewKey()
		for range 2 {
			c := w.Dial(t, o)
			n, err := typedrpc.Call(t.Context(), lab.WithKey(<-conns, k), lab.KeyAdd, 5)
			is.NoErr(err)
			is.Equal(n, 10)
			is.NoErr(c.Close())
		}
	})
}

// Closing a dialled connection ends what its lost sessions left running.
func TestKeyed_closeEndsTheHandlersOfLostSessions(t *testing.T) {
	lab.KeyedTest(t, func(t *testing.T, is *is.I, o *typedrpc.DialOptions) {
		conns := make(chan *typedrpc.Conn, 9)
		srv := lab.New()
		srv.OnConnect = func(c *typedrpc.Conn) { conns <- c }
		w := &lab.Town{Srv: srv.Server}
		l := lab.NewLedger()
		o.Mux = l.Mux
		c := w.Dial(t, o)
		typedrpc.Go(t.Context(), <-conns, lab.KeyHang, 5)
		synctest.Wait()
		w.Cable().Cut()
		<-conns
		is.Equal(l.Running.Load(), int64(1))
		is.NoErr(c.Close())
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))
	})
}

func TestKeyed_handshakeNamesTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.NewLedger()
		l.Replays = &idempotency.Cache{}
		p, err := testkit.Join(l.Server, testkit.HelloProtocol)
		is.NoErr(err)
		w, err := p.Hello()
		is.NoErr(err)
		is.Equal(w.Cache, hook.Replay(l.Replays).ID)
		is.Equal(len(w.Cache), 32)
		p.T.Kill()
		c, s, err := typedrpctest.Dial(l.Server, nil)
		is.NoErr(err)
		is.Equal(hook.Conn(c).PeerCache, w.Cache)
		is.Equal(hook.Conn(s).PeerCache, hook.Conn(c).Cache)
		is.True(hook.Conn(s).PeerCache != hook.Conn(c).PeerCache)
		is.NoErr(c.Close())
	})
}

var keyHangText = typedrpc.NewMethod[string, int]("test.hang", typedrpc.Keyed)

// The requests of keyed calls whose sessions were lost were in no budget.
func TestKeyed_detachedRunsCountInTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.NewLedger()
		l.Limits = typedrpc.Limits{Grace: -1}
		l.MaxMemory = 4 << 20
		typedrpc.Handle(l.Mux, keyHangText, func(ctx context.Context, _ string) (int, error) {
			l.Running.Add(1)
			defer l.Running.Add(-1)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		w := &lab.Town{Srv: l.Server}
		big := strings.Repeat("x", 1<<20)
		for range 32 {
			c := w.Dial(t, nil)
			f := typedrpc.Go(t.Context(), c, keyHangText, big)
			synctest.Wait()
			w.Cable().Cut()
			c.Close()
			f.Await(t.Context())
		}
		synctest.Wait()
		is.True(l.Running.Load() <= 4) // each holds a request of 1 MiB
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.Shutdown(ctx)
		synctest.Wait()
		is.Equal(l.Running.Load(), int64(0))
		is.Equal(hook.Server(l.Server).Budget, int64(0)) // given back
	})
}

// Shutdown said that all was well when its context had cut a keyed call off.
func TestShutdown_cutsADetachedRunOff(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		slow := typedrpc.NewMethod[struct{}, struct{}]("test.slow", typedrpc.Keyed)
		l := lab.New()
		typedrpc.Handle(l.Mux, slow, func(ctx context.Context, _ struct{}) (struct{}, error) {
			<-ctx.Done()
			return struct{}{}, ctx.Err()
		})
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		f := typedrpc.Go(t.Context(), c, slow, struct{}{})
		synctest.Wait()
		w.Cable().Cut() // and the session is lost
		w.Serve(nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		is.True(errors.Is(l.Shutdown(ctx), context.DeadlineExceeded))
		f.Cancel()
		is.NoErr(c.Close())
	})
}
