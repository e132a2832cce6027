package typedrpc

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

var (
	retryRead  = NewMethod[Empty, int]("retry.read", Idempotent)
	retryWrite = NewMethod[Empty, int]("retry.write")
)

// flaky is a server whose methods fail with err until enough calls came.
type flaky struct {
	calls atomic.Int64
	mu    sync.Mutex
	at    []time.Time
	fails int64
	err   error
}

func (f *flaky) handle(context.Context, Empty) (int, error) {
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
func (f *flaky) dial(t *testing.T, p *RetryPolicy) *Conn {
	t.Helper()
	l := newLab()
	Handle(l.Mux, retryRead, f.handle)
	Handle(l.Mux, retryWrite, f.handle)
	c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Retry: p})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRetry_untilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 3, err: Unavailable}
		c := f.dial(t, &RetryPolicy{})
		n, err := Call(t.Context(), c, retryRead, Empty{})
		is.NoErr(err)
		is.Equal(n, 4)
		is.NoErr(c.Close())
	})
}

func TestRetry_attemptsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 99, err: Errorf(Unavailable, "not now")}
		c := f.dial(t, &RetryPolicy{Attempts: 3})
		_, err := Call(t.Context(), c, retryRead, Empty{})
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), Answered)
		is.Equal(f.calls.Load(), int64(3))
		is.NoErr(c.Close())
	})
}

func TestRetry_onlyListedCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1, err: Aborted}
		c := f.dial(t, &RetryPolicy{})
		_, err := Call(t.Context(), c, retryRead, Empty{})
		is.True(errors.Is(err, Aborted))
		is.Equal(f.calls.Load(), int64(1))
		f.calls.Store(0)
		p := RetryPolicy{Codes: []Code{NotFound, Aborted}}
		n, err := Call(t.Context(), c.With(CallOptions{Retry: &p}), retryRead, Empty{})
		is.NoErr(err)
		is.Equal(n, 2)
		is.NoErr(c.Close())
	})
}

func TestRetry_whatRanIsNotRepeatedUnlessIdempotent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1, err: Unavailable}
		c := f.dial(t, &RetryPolicy{})
		_, err := Call(t.Context(), c, retryWrite, Empty{})
		is.True(errors.Is(err, Unavailable)) // the handler ran and said so
		is.Equal(f.calls.Load(), int64(1))
		is.NoErr(c.Close())
	})
}

func TestRetry_whatWasNotRunIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := newLab()
		serves := NewMethod[Empty, Empty]("late")
		c, _, err := dialPipe(t.Context(), l.Server, nil)
		is.NoErr(err)
		time.AfterFunc(5*time.Second, func() {
			Handle(l.Mux, serves, func(context.Context, Empty) (Empty, error) { return Empty{}, nil })
		})
		p := RetryPolicy{Attempts: 100, Codes: []Code{Unimplemented}, Backoff: steady, Budget: NewRetryBudget(0, 100)}
		_, err = Call(t.Context(), c.With(CallOptions{Retry: &p}), serves, Empty{}) // no handler: NOT_RUN
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

func TestRetry_mayHaveRunIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		w, l, c := reconnected(t, &DialOptions{Retry: &RetryPolicy{Attempts: 10}})
		f := Go(t.Context(), c, labHang, Empty{})
		synctest.Wait()
		w.cable().cut()
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		time.Sleep(time.Minute)
		is.Equal(l.hung.Load(), int64(1))
		is.NoErr(c.Close())
	})
}

func TestRetry_backoffAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: Unavailable}
		b := Backoff{Min: time.Second, Max: 8 * time.Second}
		c := f.dial(t, &RetryPolicy{Attempts: 200, Backoff: b, Budget: NewRetryBudget(0, 1000)})
		_, err := Call(t.Context(), c, retryRead, Empty{})
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
		hint := Errorf(Unavailable, "later")
		hint.RetryAfter = 90 * time.Second
		f := &flaky{fails: 1, err: hint}
		c := f.dial(t, &RetryPolicy{})
		_, err := Call(t.Context(), c, retryRead, Empty{})
		is.NoErr(err)
		is.True(f.at[1].Sub(f.at[0]) >= 90*time.Second)
		is.NoErr(c.Close())
	})
}

func TestRetry_deadlineShorterThanTheWaitFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := Errorf(Unavailable, "later")
		hint.RetryAfter = time.Minute
		f := &flaky{fails: 99, err: hint}
		c := f.dial(t, &RetryPolicy{})
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Second)
		defer cancel()
		began := time.Now()
		_, err := Call(ctx, c, retryRead, Empty{})
		is.True(errors.Is(err, Unavailable))
		is.Equal(time.Since(began), time.Duration(0))
		is.Equal(f.calls.Load(), int64(1))
		is.NoErr(c.Close())
	})
}

func TestRetry_cancelDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := Errorf(Unavailable, "later")
		hint.RetryAfter = time.Hour
		f := &flaky{fails: 99, err: hint}
		c := f.dial(t, &RetryPolicy{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		_, err := Call(ctx, c, retryRead, Empty{})
		is.True(errors.Is(err, context.Canceled))
		is.True(outcomeOf(err) != NotSent) // a handler ran
		is.Equal(time.Since(began), time.Second)

		fut := Go(t.Context(), c, retryRead, Empty{})
		time.Sleep(time.Second)
		fut.Cancel()
		_, err = fut.Await(t.Context())
		is.True(errors.Is(err, Canceled))
		is.Equal(f.calls.Load(), int64(2))
		is.NoErr(c.Close())
	})
}

func TestRetry_closeDuringTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := Errorf(Unavailable, "later")
		hint.RetryAfter = time.Hour
		f := &flaky{fails: 99, err: hint}
		c := f.dial(t, &RetryPolicy{})
		fut := Go(t.Context(), c, retryRead, Empty{})
		time.Sleep(time.Second)
		is.NoErr(c.Close())
		began := time.Now()
		_, err := fut.Await(t.Context())
		is.True(errors.Is(err, Unavailable))
		is.True(time.Since(began) <= 2*time.Hour) // it ends: nothing hangs
	})
}

func TestRetry_futuresNeedNoGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		hint := Errorf(Unavailable, "later")
		hint.RetryAfter = time.Minute
		f := &flaky{fails: 500, err: hint}
		c := f.dial(t, &RetryPolicy{Budget: NewRetryBudget(1, 1000)})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		before := runtime.NumGoroutine()
		var fs []*Future[int]
		for range 500 {
			fs = append(fs, Go(t.Context(), c, retryRead, Empty{}))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		is.Equal(f.calls.Load(), int64(500)) // all of them wait for their second attempt
		is.True(runtime.NumGoroutine() <= before+1)
		_, err := All(t.Context(), fs...)
		is.NoErr(err)
		is.NoErr(c.Close())
	})
}

func TestRetry_budgetStopsAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: Unavailable}
		c := f.dial(t, &RetryPolicy{Attempts: 5})
		const n = 1000
		for range n {
			_, err := Call(t.Context(), c, retryRead, Empty{})
			is.True(errors.Is(err, Unavailable))
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
		f := &flaky{fails: 1 << 40, err: Unavailable}
		c := f.dial(t, nil)
		picked := Pick(func(context.Context, string) (*Conn, error) { return c, nil })
		for _, caller := range []Caller{c, c.With(CallOptions{}), picked} {
			f.calls.Store(0)
			const n = 500
			for range n {
				_, err := Call(t.Context(), caller.With(CallOptions{Retry: &RetryPolicy{Attempts: 5}}), retryRead, Empty{})
				is.True(errors.Is(err, Unavailable))
			}
			is.True(f.calls.Load() <= n+n/10+10)
		}
		is.NoErr(c.Close())
	})
}

func TestRetry_policyOfTheCallGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		own := NewMethod[Empty, int]("own", Idempotent, Retry(RetryPolicy{Attempts: 3}))
		f := &flaky{fails: 99, err: Unavailable}
		l := newLab()
		Handle(l.Mux, own, f.handle)
		c, _, err := dialPipe(t.Context(), l.Server, &DialOptions{Retry: &RetryPolicy{Attempts: 2}})
		is.NoErr(err)
		_, err = Call(t.Context(), c, own, Empty{})
		is.True(err != nil)
		is.Equal(f.calls.Swap(0), int64(3)) // the method's before the connection's
		_, err = Call(t.Context(), c.With(CallOptions{Retry: &RetryPolicy{Attempts: 4}}), own, Empty{})
		is.True(err != nil)
		is.Equal(f.calls.Load(), int64(4)) // the call's before the method's
		is.NoErr(c.Close())
	})
}

func TestRetry_pickIsAskedForEveryAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		bad := &flaky{fails: 99, err: Unavailable}
		good := &flaky{}
		a, b := bad.dial(t, nil), good.dial(t, nil)
		asked := 0
		pool := Pick(func(_ context.Context, method string) (*Conn, error) {
			is.Equal(method, "retry.read")
			if asked++; asked < 3 {
				return a, nil
			}
			return b, nil
		})
		n, err := Call(t.Context(), pool.With(CallOptions{Retry: &RetryPolicy{}}), retryRead, Empty{})
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
		conns := []*Conn{a, b}
		pool := Pick(func(context.Context, string) (*Conn, error) {
			c := conns[0]
			conns = conns[1:]
			return c, nil
		})
		_, err := Call(t.Context(), pool.With(CallOptions{Retry: &RetryPolicy{}}), retryWrite, Empty{})
		is.NoErr(err) // it was NotSent on the closed one
		is.NoErr(b.Close())
	})
}

func TestRetry_pickErrors(t *testing.T) {
	is := is.New(t)
	why := errors.New("no leader")
	for _, fn := range []func(context.Context, string) (*Conn, error){
		func(context.Context, string) (*Conn, error) { return nil, why },
		func(context.Context, string) (*Conn, error) { return nil, nil },
	} {
		_, err := Call(t.Context(), Pick(fn), retryRead, Empty{})
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), NotSent)
	}
}

func TestRetryBudget_bounds(t *testing.T) {
	is := is.New(t)
	b := NewRetryBudget(0.5, 2)
	is.True(b.spend())
	is.True(b.spend())
	is.True(!b.spend())
	b.earn()
	is.True(!b.spend())
	b.earn()
	is.True(b.spend())
	for range 100 {
		b.earn()
	}
	for range 2 {
		is.True(b.spend())
	}
	is.True(!b.spend()) // no more than the burst is saved up
}

func TestRetryBudget_nonsensePanics(t *testing.T) {
	is := is.New(t)
	for _, f := range []func(){
		func() { NewRetryBudget(-1, 1) }, func() { NewRetryBudget(1, -1) },
		func() { NewMethod[int, int]("m", Retry(RetryPolicy{Attempts: -1})) },
		func() { NewMethod[int, int]("m", Retry(RetryPolicy{Backoff: Backoff{Min: 2, Max: 1}})) },
	} {
		func() {
			defer func() { is.True(recover() != nil) }()
			f()
		}()
	}
}

func TestDial_nonsensePoliciesAreRefused(t *testing.T) {
	is := is.New(t)
	for _, o := range []*DialOptions{
		{Retry: &RetryPolicy{Attempts: -1}}, {Backoff: Backoff{Min: -1}}, {Backoff: Backoff{Factor: 0.5}}, {Backoff: Backoff{Attempts: -1}},
	} {
		_, err := Dial(t.Context(), "ws://127.0.0.1:1/", o)
		is.Equal(CodeOf(err), InvalidArgument)
	}
}
