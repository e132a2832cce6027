package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// calling are the ways of making a call.
var calling = map[string]func(context.Context, typedrpc.Caller, typedrpc.Method[struct{}, int]) error{
	"Call": func(ctx context.Context, c typedrpc.Caller, m typedrpc.Method[struct{}, int]) error {
		_, err := typedrpc.Call(ctx, c, m, struct{}{})
		return err
	},
	"Go": func(ctx context.Context, c typedrpc.Caller, m typedrpc.Method[struct{}, int]) error {
		_, err := typedrpc.Go(ctx, c, m, struct{}{}).Await(context.WithoutCancel(ctx))
		return err
	},
}

// later is an error whose hint makes a retry wait for an hour.
func later() *typedrpc.Error {
	return &typedrpc.Error{Code: typedrpc.Unavailable, Message: "later", RetryAfter: time.Hour}
}

// The error of a second attempt that never left hid that the first one had run.
func TestCall_outcomeAfterRetry(t *testing.T) {
	for name, call := range calling {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				f := &flaky{fails: 99, err: typedrpc.Unavailable}
				c := f.dial(t, nil)
				defer c.Close()
				asked := 0
				pool := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
					if asked++; asked > 1 {
						return nil, typedrpc.Errorf(typedrpc.Unavailable, "the pool is empty")
					}
					return c, nil
				})
				err := call(t.Context(), pool.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{MaxAttempts: 2}}), retryRead)
				is.Equal(asked, 2)
				is.Equal(f.calls.Load(), int64(1))
				is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
			})
		})
	}
}

// A call that was given up while it waited for its retry had the outcome of the
// attempt before: Answered, as if "canceled" had been the peer's word.
func TestCall_outcomeWhenGivenUpBetweenAttempts(t *testing.T) {
	for name, call := range calling {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				f := &flaky{fails: 99, err: later()}
				c := f.dial(t, &typedrpc.RetryPolicy{})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				err := call(ctx, c, retryRead)
				is.True(errors.Is(err, typedrpc.Canceled))
				is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
				time.AfterFunc(time.Second, func() { c.Close() })
				err = call(t.Context(), c, retryRead)
				is.True(errors.Is(err, typedrpc.Unavailable))
				is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
				is.Equal(f.calls.Load(), int64(2))
			})
		})
	}
}

// Only refused attempts leave a call that may be made again.
func TestCall_outcomeWhenGivenUpAfterRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		release := make(chan struct{})
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) { // a server with one place, that says more
			p.Welcome()
			first, err := p.Until(wire.Call)
			if err != nil {
				return
			}
			go func() {
				<-release
				p.Send(wire.Frame{Type: wire.Result, ID: first.ID, Payload: []byte("{}")})
			}()
			for {
				f, err := p.Next()
				switch {
				case err != nil:
					p.T.Kill()
					return
				case f.Type == wire.Ping:
					p.Send(wire.Frame{Type: wire.Ack, Position: p.Counted})
				case f.Type == wire.Call:
					p.Send(wire.Frame{Type: wire.Fail, Flags: wire.NotRun, ID: f.ID, Code: int64(typedrpc.ResourceExhausted), Message: "full"})
				}
			}
		})
		defer c.Close()
		hold := typedrpc.Go(t.Context(), c, lab.Hang, struct{}{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		patient := c.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{Codes: []typedrpc.Code{typedrpc.ResourceExhausted}, MaxAttempts: 1000, Backoff: typedrpc.Backoff{Min: time.Minute, Max: time.Minute}}})
		_, err := typedrpc.Call(ctx, patient, lab.Echo, 1)
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		close(release)
		_, err = hold.Await(t.Context())
		is.NoErr(err)
	})
}

// An interceptor's own error said NotSent although next had succeeded.
func TestInterceptor_outcomeOfOwnError(t *testing.T) {
	mine := errors.New("bad signature")
	after := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		if _, err := next(ctx, r); err != nil {
			return nil, err
		}
		return nil, mine
	}
	before := func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) { return nil, mine }
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{}
		c := f.dial(t, nil)
		defer c.Close()
		checked, refused := c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{after}}), c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{before}})
		for _, call := range calling {
			err := call(t.Context(), checked, retryWrite)
			is.True(errors.Is(err, mine))
			is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
			err = call(t.Context(), refused, retryWrite)
			is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		}
		is.Equal(f.calls.Load(), int64(len(calling)))
		is.Equal(lab.OutcomeOf(typedrpc.Notify(t.Context(), checked, lab.Note, 1)), typedrpc.MayHaveRun)
		is.Equal(lab.OutcomeOf(typedrpc.Notify(t.Context(), refused, lab.Note, 1)), typedrpc.NotSent)
	})
}

// What next says of a call that never left is the call's outcome.
func TestInterceptor_outcomeOfNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{}
		c := f.dial(t, nil)
		is.NoErr(c.Close())
		through := c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
			_, err := next(ctx, r)
			return nil, fmt.Errorf("wrapped: %w", err)
		}}})
		for _, call := range calling {
			is.Equal(lab.OutcomeOf(call(t.Context(), through, retryWrite)), typedrpc.NotSent)
		}
	})
}

// An invalid policy of a call panicked; it is the call's error.
func TestCallOptions_invalidRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{}
		c := f.dial(t, nil)
		defer c.Close()
		picked := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return c, nil })
		for _, p := range []typedrpc.RetryPolicy{{MaxAttempts: -1}, {Backoff: typedrpc.Backoff{Min: -1}}, {Backoff: typedrpc.Backoff{Factor: 0.5}}, {Backoff: typedrpc.Backoff{Min: 2, Max: 1}}} {
			for _, caller := range []typedrpc.Caller{c, picked, c.With(typedrpc.CallOptions{FailFast: true})} {
				bad := caller.With(typedrpc.CallOptions{Retry: &p}).With(typedrpc.CallOptions{FailFast: true})
				for _, call := range calling {
					err := call(t.Context(), bad, retryWrite)
					is.True(errors.Is(err, typedrpc.InvalidArgument))
					is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
				}
				is.True(errors.Is(typedrpc.Notify(t.Context(), bad, lab.Note, 1), typedrpc.InvalidArgument))
			}
		}
		is.Equal(f.calls.Load(), int64(0))
	})
}

// Close and Shutdown did not end a call that waited an hour for its retry, and
// neither did the end of a server's connection.
func TestRetry_endOfConnectionEndsTheWait(t *testing.T) {
	ends := map[string]func(context.Context, *typedrpc.Conn) error{
		"Close":    func(_ context.Context, c *typedrpc.Conn) error { return c.Close() },
		"Shutdown": func(ctx context.Context, c *typedrpc.Conn) error { return c.Shutdown(ctx) },
	}
	for end, quit := range ends {
		for name, call := range calling {
			for _, side := range []string{"client", "server"} {
				t.Run(end+"/"+name+"/"+side, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						is := is.New(t)
						f := &flaky{fails: 99, err: later()}
						mux := typedrpc.NewMux()
						typedrpc.Handle(mux, retryRead, f.handle)
						p := &typedrpc.RetryPolicy{}
						l := lab.New()
						l.Mux, l.OutgoingRetry = mux, p
						c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Mux: mux, OutgoingRetry: p, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
						is.NoErr(err)
						defer c.Close()
						caller := c
						if side == "server" {
							caller = s
						}
						began := time.Now()
						time.AfterFunc(time.Second, func() { quit(t.Context(), caller) })
						err = call(t.Context(), caller, retryRead)
						is.True(errors.Is(err, typedrpc.Unavailable))
						is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
						is.Equal(time.Since(began), time.Second)
						is.Equal(f.calls.Load(), int64(1))
					})
				})
			}
		}
	}
}

// A server's connection whose client left kept its calls waiting for a retry.
func TestRetry_lostServerConnectionEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 99, err: later()}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, retryRead, f.handle)
		c, s, err := typedrpctest.Dial(lab.New().Server, &typedrpc.DialOptions{Mux: mux})
		is.NoErr(err)
		fut := typedrpc.Go(t.Context(), s.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), retryRead, struct{}{})
		time.Sleep(time.Second)
		is.NoErr(c.Close())
		began := time.Now()
		_, err = fut.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(time.Since(began), time.Duration(0))
	})
}

// Giving a call up raced with the attempt that a timer was just making on
// another connection: the call hung, or was settled twice. For -race, too.
func TestRetry_giveUpRacesWithTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		f := &flaky{fails: 1 << 40, err: typedrpc.Unavailable}
		conns := []*typedrpc.Conn{f.dial(t, nil), f.dial(t, nil), f.dial(t, nil)}
		var turn atomic.Int64
		pool := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
			return conns[turn.Add(1)%int64(len(conns))], nil
		}).With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{MaxAttempts: 1000, Backoff: typedrpc.Backoff{Min: 1, Max: 5}, Budget: &typedrpc.RetryBudget{Ratio: 1000, Burst: 100_000}}})
		var wg sync.WaitGroup
		for g := range 8 {
			rng := rand.New(rand.NewPCG(1, uint64(g)))
			wg.Go(func() {
				for range 200 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rng.IntN(50)))
					fut := typedrpc.Go(ctx, pool, retryRead, struct{}{})
					time.AfterFunc(time.Duration(1+rng.IntN(50)), fut.Cancel)
					_, err := typedrpc.Call(ctx, pool, retryRead, struct{}{})
					if err == nil {
						t.Error("a call that always fails succeeded")
					}
					if _, err = fut.Await(t.Context()); err == nil {
						t.Error("a future that always fails succeeded")
					}
					cancel()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for _, c := range conns {
			s := hook.Conn(c)
			is.Equal(s.Pending+s.Slots+s.Held+s.Waiting+s.Queue+s.Resting, 0) // nothing is counted that is no more
			is.NoErr(c.Close())
		}
	})
}

// The flags of the first attempt went with the next one, to a connection where
// they were not true: nested, a call fails instead of waiting for its turn;
// with LANE, a busy lane refuses it.
func TestRetry_flagsAreOfTheAttempt(t *testing.T) {
	front := typedrpc.NewMethod[int, struct{}]("front", typedrpc.Serial)
	back := typedrpc.NewMethod[struct{}, struct{}]("back", typedrpc.Idempotent)
	for _, callersFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("caller's connection first: ", callersFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				var tries atomic.Int64
				lane := make(chan bool, 1)
				handle := func(ctx context.Context, _ struct{}) (struct{}, error) {
					if tries.Add(1) == 1 {
						return struct{}{}, &typedrpc.Error{Code: typedrpc.Unavailable}
					}
					lane <- hook.Ordered(ctx)
					return struct{}{}, nil
				}
				here, there := typedrpc.NewMux(), lab.New()
				there.Limits.MaxCalls = 1
				typedrpc.Handle(here, back, handle)
				typedrpc.Handle(there.Mux, back, handle)
				other, _, err := typedrpctest.Dial(there.Server, nil)
				is.NoErr(err)
				defer other.Close()
				l := lab.New()
				typedrpc.Handle(l.Mux, front, func(ctx context.Context, _ int) (struct{}, error) {
					first, second := typedrpc.ConnFrom(ctx), other
					if !callersFirst {
						first, second = second, first
					}
					asked := 0
					pool := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
						if asked++; asked == 1 {
							return first, nil
						}
						if callersFirst { // its only place is taken for a while
							typedrpc.Go(t.Context(), other, lab.Hang, struct{}{})
							time.AfterFunc(time.Minute, func() { close(there.Release) })
						}
						return second, nil
					})
					return typedrpc.Call(ctx, pool.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), back, struct{}{})
				})
				c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Mux: here})
				is.NoErr(err)
				defer c.Close()
				_, err = typedrpc.Call(t.Context(), c, front, 1)
				is.NoErr(err)
				is.Equal(tries.Load(), int64(2))
				is.Equal(<-lane, !callersFirst) // LANE goes only where the lane is
			})
		})
	}
}
