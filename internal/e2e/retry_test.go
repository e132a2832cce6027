package e2e_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/testkit/live"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	retryRead  = typedrpc.NewMethod[struct{}, int]("retry.read", typedrpc.Idempotent)
	retryWrite = typedrpc.NewMethod[struct{}, int]("retry.write")
)

// flaky is a server whose methods fail with err until enough calls came.
type flaky struct {
	calls atomic.Int64
	mu    sync.Mutex
	at    []time.Time
	fails int64
	err   error
}

func (f *flaky) handle(context.Context, struct{}) (int, error) {
	n := f.calls.Add(1)
	f.mu.Lock()
	f.at = append(f.at, time.Now())
	f.mu.Unlock()
	if n <= f.fails {
		return 0, f.err
	}
	return int(n), nil
}

// dial connects to the server with a policy of the connection.
func (f *flaky) dial(t *testing.T, p *typedrpc.RetryPolicy) *typedrpc.Conn {
	t.Helper()
	l := lab.New()
	typedrpc.Handle(l.Mux, retryRead, f.handle)
	typedrpc.Handle(l.Mux, retryWrite, f.handle)
	c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{OutgoingRetry: p})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRetry_untilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 3, err: typedrpc.Unavailable}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		n, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
		is.NoErr(err)
		is.Equal(n, 4)
		is.NoErr(c.Close())
	})
}

func TestRetry_attemptsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 99, err: typedrpc.Errorf(typedrpc.Unavailable, "not now")}
		c := f.dial(t, &typedrpc.RetryPolicy{MaxAttempts: 3})
		_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.Answered)
		is.Equal(f.calls.Load(), int64(3))
		is.NoErr(c.Close())
	})
}

func TestRetry_onlyListedCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1, err: typedrpc.Aborted}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
		is.True(errors.Is(err, typedrpc.Aborted))
		is.Equal(f.calls.Load(), int64(1))
		f.calls.Store(0)
		p := typedrpc.RetryPolicy{Codes: []typedrpc.Code{typedrpc.NotFound, typedrpc.Aborted}}
		n, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Retry: &p}), retryRead, struct{}{})
		is.NoErr(err)
		is.Equal(n, 2)
		is.NoErr(c.Close())
	})
}

func TestRetry_whatRanIsNotRepeatedUnlessIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1, err: typedrpc.Unavailable}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		_, err := typedrpc.Call(t.Context(), c, retryWrite, struct{}{})
		is.True(errors.Is(err, typedrpc.Unavailable)) // the handler ran and said so
		is.Equal(f.calls.Load(), int64(1))
		is.NoErr(c.Close())
	})
}

func TestRetry_whatWasNotRunIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		serves := typedrpc.NewMethod[struct{}, struct{}]("late")
		c, _, err := typedrpctest.Dial(l.Server, nil)
		is.NoErr(err)
		time.AfterFunc(5*time.Second, func() {
			typedrpc.Handle(l.Mux, serves, func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })
		})
		p := typedrpc.RetryPolicy{MaxAttempts: 100, Codes: []typedrpc.Code{typedrpc.Unimplemented}, Backoff: lab.Steady, Budget: &typedrpc.RetryBudget{Ratio: -1, Burst: 100}}
		_, err = typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Retry: &p}), serves, struct{}{}) // no handler: NOT_RUN
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

func TestRetry_mayHaveRunIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := lab.Reconnected(t, &typedrpc.DialOptions{OutgoingRetry: &typedrpc.RetryPolicy{MaxAttempts: 10}})
		f := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		w.Cable().Cut()
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		time.Sleep(time.Minute)
		is.Equal(l.Hung.Load(), int64(1))
		is.NoErr(c.Close())
	})
}

func TestRetry_backoffAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: typedrpc.Unavailable}
		b := typedrpc.Backoff{Min: time.Second, Max: 8 * time.Second}
		c := f.dial(t, &typedrpc.RetryPolicy{MaxAttempts: 200, Backoff: b, Budget: &typedrpc.RetryBudget{Ratio: -1, Burst: 1000}})
		_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
		is.True(err != nil)
		is.Equal(len(f.at), 200)
		bound, sum := b.Min, time.Duration(0)
		for i := 1; i < len(f.at); i++ {
			d := f.at[i].Sub(f.at[i-1])
			is.True(d <= bound)
			bound = min(2*bound, b.Max)
			sum += d
		}
		mean := sum / 199
		is.True(mean > 3*time.Second && mean < 5*time.Second)
		is.NoErr(c.Close())
	})
}

func TestRetry_retryAfterIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := typedrpc.Errorf(typedrpc.Unavailable, "later")
		hint.RetryAfter = 90 * time.Second
		f := &flaky{fails: 1, err: hint}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
		is.NoErr(err)
		is.True(f.at[1].Sub(f.at[0]) >= 90*time.Second)
		is.NoErr(c.Close())
	})
}

func TestRetry_deadlineShorterThanTheWaitFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := typedrpc.Errorf(typedrpc.Unavailable, "later")
		hint.RetryAfter = time.Minute
		f := &flaky{fails: 99, err: hint}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Second)
		defer cancel()
		began := time.Now()
		_, err := typedrpc.Call(ctx, c, retryRead, struct{}{})
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(time.Since(began), time.Duration(0))
		is.Equal(f.calls.Load(), int64(1))
		is.NoErr(c.Close())
	})
}

func TestRetry_cancelDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := typedrpc.Errorf(typedrpc.Unavailable, "later")
		hint.RetryAfter = time.Hour
		f := &flaky{fails: 99, err: hint}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := typedrpc.Call(ctx, c, retryRead, struct{}{})
		is.True(errors.Is(err, context.Canceled))
		is.True(lab.OutcomeOf(err) != typedrpc.NotSent) // a handler ran
		is.Equal(time.Since(began), time.Second)

		fut := typedrpc.Go(t.Context(), c, retryRead, struct{}{})
		time.Sleep(time.Second)
		fut.Cancel()
		_, err = fut.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Canceled))
		is.Equal(f.calls.Load(), int64(2))
		is.NoErr(c.Close())
	})
}

func TestRetry_closeDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := typedrpc.Errorf(typedrpc.Unavailable, "later")
		hint.RetryAfter = time.Hour
		f := &flaky{fails: 99, err: hint}
		c := f.dial(t, &typedrpc.RetryPolicy{})
		fut := typedrpc.Go(t.Context(), c, retryRead, struct{}{})
		time.Sleep(time.Second)
		is.NoErr(c.Close())
		began := time.Now()
		_, err := fut.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.True(time.Since(began) <= 2*time.Hour) // it ends: nothing hangs
	})
}

func TestRetry_futuresNeedNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := typedrpc.Errorf(typedrpc.Unavailable, "later")
		hint.RetryAfter = time.Minute
		f := &flaky{fails: 500, err: hint}
		c := f.dial(t, &typedrpc.RetryPolicy{Budget: &typedrpc.RetryBudget{Ratio: 1, Burst: 1000}})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		before := live.Goroutines()
		var fs []*typedrpc.Future[int]
		for range 500 {
			fs = append(fs, typedrpc.Go(t.Context(), c, retryRead, struct{}{}))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		is.Equal(f.calls.Load(), int64(500)) // all of them wait for their second attempt
		is.True(live.Goroutines() <= before+1)
		_, err := typedrpc.All(t.Context(), fs...)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

func TestRetry_budgetStopsAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: typedrpc.Unavailable}
		c := f.dial(t, &typedrpc.RetryPolicy{MaxAttempts: 5})
		const n = 1000
		for range n {
			_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
			is.True(errors.Is(err, typedrpc.Unavailable))
		}
		retries := f.calls.Load() - n
		is.True(retries >= n/10 && retries <= n/10+10) // a tenth, and the burst; not four for each
		is.NoErr(c.Close())
	})
}

// A policy given anew with every call must not bring a full budget each time.
func TestRetry_policiesOfCallsShareABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: typedrpc.Unavailable}
		c := f.dial(t, nil)
		picked := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return c, nil })
		for _, caller := range []typedrpc.Caller{c, c.With(typedrpc.CallOptions{}), picked} {
			f.calls.Store(0)
			const n = 500
			for range n {
				_, err := typedrpc.Call(t.Context(), caller.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{MaxAttempts: 5}}), retryRead, struct{}{})
				is.True(errors.Is(err, typedrpc.Unavailable))
			}
			is.True(f.calls.Load() <= n+n/10+10)
		}
		is.NoErr(c.Close())
	})
}

func TestRetry_policyOfTheCallGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		own := typedrpc.NewMethod[struct{}, int]("own", typedrpc.Idempotent, typedrpc.Retry(typedrpc.RetryPolicy{MaxAttempts: 3}))
		f := &flaky{fails: 99, err: typedrpc.Unavailable}
		l := lab.New()
		typedrpc.Handle(l.Mux, own, f.handle)
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{OutgoingRetry: &typedrpc.RetryPolicy{MaxAttempts: 2}})
		is.NoErr(err)
		_, err = typedrpc.Call(t.Context(), c, own, struct{}{})
		is.True(err != nil)
		is.Equal(f.calls.Swap(0), int64(3)) // the method's before the connection's
		_, err = typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{MaxAttempts: 4}}), own, struct{}{})
		is.True(err != nil)
		is.Equal(f.calls.Load(), int64(4)) // the call's before the method's
		is.NoErr(c.Close())
	})
}

func TestRetry_pickIsAskedForEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		bad := &flaky{fails: 99, err: typedrpc.Unavailable}
		good := &flaky{}
		a, b := bad.dial(t, nil), good.dial(t, nil)
		asked := 0
		pool := typedrpc.Pick(func(_ context.Context, method string) (*typedrpc.Conn, error) {
			is.Equal(method, "retry.read")
			if asked++; asked < 3 {
				return a, nil
			}
			return b, nil
		})
		n, err := typedrpc.Call(t.Context(), pool.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), retryRead, struct{}{})
		is.NoErr(err)
		is.Equal(n, 1)
		is.Equal(asked, 3)
		is.Equal(bad.calls.Load(), int64(2))
		is.NoErr(a.Close())
		is.NoErr(b.Close())
	})
}

func TestRetry_pickLeavesAClosedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		one, two := &flaky{}, &flaky{}
		a, b := one.dial(t, nil), two.dial(t, nil)
		is.NoErr(a.Close())
		conns := []*typedrpc.Conn{a, b}
		pool := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
			c := conns[0]
			conns = conns[1:]
			return c, nil
		})
		_, err := typedrpc.Call(t.Context(), pool.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), retryWrite, struct{}{})
		is.NoErr(err) // it was NotSent on the closed one
		is.NoErr(b.Close())
	})
}

func TestRetry_pickErrors(t *testing.T) {
	is := is.New(t)
	why := errors.New("no leader")
	for _, fn := range []func(context.Context, string) (*typedrpc.Conn, error){
		func(context.Context, string) (*typedrpc.Conn, error) { return nil, why },
		func(context.Context, string) (*typedrpc.Conn, error) { return nil, nil },
	} {
		_, err := typedrpc.Call(t.Context(), typedrpc.Pick(fn), retryRead, struct{}{})
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
	}
}

func TestRetryBudget_bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{err: typedrpc.Unavailable}
		c := f.dial(t, &typedrpc.RetryPolicy{MaxAttempts: 2, Backoff: typedrpc.Backoff{Min: 1, Max: 1}, Budget: &typedrpc.RetryBudget{Ratio: 0.5, Burst: 2}})
		defer c.Close()
		// Each call earns half a retry.
		retries := func(fails bool) int64 {
			f.fails = 0
			if fails {
				f.fails = 1 << 40
			}
			before := f.calls.Load()
			_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
			is.Equal(err != nil, fails)
			return f.calls.Load() - before - 1
		}
		spend := func() {
			for _, want := range []int64{1, 1, 1, 0} {
				is.Equal(retries(true), want)
			}
		}
		spend() // two are there, and a third is earned
		is.Equal(retries(true), int64(1))
		is.Equal(retries(true), int64(0))
		for range 100 {
			is.Equal(retries(false), int64(0))
		}
		spend() // no more than the burst is saved up
	})
}

func TestRetry_nonsensePanics(t *testing.T) {
	is := is.New(t)
	for _, f := range []func(){
		func() { typedrpc.NewMethod[int, int]("m", typedrpc.Retry(typedrpc.RetryPolicy{MaxAttempts: -1})) },
		func() {
			typedrpc.NewMethod[int, int]("m", typedrpc.Retry(typedrpc.RetryPolicy{Backoff: typedrpc.Backoff{Min: 2, Max: 1}}))
		},
	} {
		func() {
			defer func() { is.True(recover() != nil) }()
			f()
		}()
	}
}

func TestDial_nonsensePoliciesAreRefused(t *testing.T) {
	is := is.New(t)
	for _, o := range []*typedrpc.DialOptions{
		{OutgoingRetry: &typedrpc.RetryPolicy{MaxAttempts: -1}}, {Backoff: typedrpc.Backoff{Min: -1}}, {Backoff: typedrpc.Backoff{Factor: 0.5}},
	} {
		_, err := typedrpc.Dial(t.Context(), "ws://127.0.0.1:1/", o)
		is.Equal(typedrpc.CodeOf(err), typedrpc.InvalidArgument)
	}
}
