package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestNested_depthWithSmallLimits(t *testing.T) {
	for _, limit := range []int{1, 2, 8, 1024} {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
			t.Run(fmt.Sprint(limit, "/", d), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					c, _ := lab.TwoWays(t, d, lab.PingPong(), lab.PingPong(), typedrpc.Limits{MaxCalls: limit})
					for depth := range 65 {
						n, err := typedrpc.Call(t.Context(), c, lab.NestedPing, depth)
						// depth+1 calls, alternately from each side.
						if depth/2+1 <= limit {
							is.NoErr(err)
							is.Equal(n, depth)
							continue
						}
						is.True(errors.Is(err, typedrpc.ResourceExhausted))
					}
					n, err := typedrpc.Call(t.Context(), c, lab.NestedPing, 0) // no slot was lost
					is.NoErr(err)
					is.Equal(n, 0)
					is.NoErr(c.Close())
				})
			})
		}
	}
}

func TestNested_manyAtOnceNeverHang(t *testing.T) {
	for _, limit := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				c, peer := lab.TwoWays(t, typedrpc.Binary, lab.PingPong(), lab.PingPong(), typedrpc.Limits{MaxCalls: limit})
				var wg sync.WaitGroup
				var mu sync.Mutex
				results := map[typedrpc.Code]int{}
				for i := range 200 {
					wg.Go(func() {
						from := c
						if i%2 == 0 {
							from = peer
						}
						n, err := typedrpc.Call(t.Context(), from, lab.NestedPing, i%65)
						mu.Lock()
						defer mu.Unlock()
						results[typedrpc.CodeOf(err)]++
						if err == nil && n != i%65 {
							t.Errorf("depth %d instead of %d", n, i%65)
						}
					})
				}
				wg.Wait() // a hang is a deadlock of the bubble
				is.Equal(results[0]+results[typedrpc.ResourceExhausted], 200)
				is.True(results[0] > 0)
				s := hook.Conn(c)
				is.Equal(s.Pending+s.Slots+s.Waiting+s.Inbound, 0)
				is.NoErr(c.Close())
			})
		})
	}
}

func TestNested_deadlinesShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var mu sync.Mutex
		var left []time.Duration
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.NestedPing, func(ctx context.Context, n int) (int, error) {
			deadline, ok := ctx.Deadline()
			if !ok {
				return 0, typedrpc.FailedPrecondition
			}
			mu.Lock()
			left = append(left, time.Until(deadline))
			mu.Unlock()
			time.Sleep(time.Second)
			if n == 0 {
				return 0, nil
			}
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.NestedPing, n-1)
		})
		c, _ := lab.TwoWays(t, typedrpc.Binary, mux, mux, typedrpc.Limits{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second+time.Millisecond)
		defer cancel()
		_, err := typedrpc.Call(ctx, c, lab.NestedPing, 9)
		is.True(errors.Is(err, context.DeadlineExceeded))
		synctest.Wait()
		mu.Lock()
		is.Equal(len(left), 6)
		for i, d := range left {
			is.True(d <= 5*time.Second+2*time.Millisecond-time.Duration(i)*time.Second)
		}
		mu.Unlock()
		time.Sleep(time.Minute)
		is.NoErr(c.Close())
	})
}

func TestNested_cancelReachesTheDeepestHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ended := make(chan int, 99)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.NestedPing, func(ctx context.Context, n int) (int, error) {
			defer func() { ended <- n }()
			if n == 0 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.NestedPing, n-1)
		})
		c, _ := lab.TwoWays(t, typedrpc.Binary, mux, mux, typedrpc.Limits{})
		f := typedrpc.Go(t.Context(), c, lab.NestedPing, 20)
		synctest.Wait()
		is.Equal(len(ended), 0)
		f.Cancel()
		synctest.Wait()
		is.Equal(len(ended), 21)
		is.NoErr(c.Close())
	})
}

func TestNested_lostLinkEndsTheWholeChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		l.Server.Mux = lab.PingPong()
		mux := typedrpc.NewMux()
		ends := make(chan error, 1)
		typedrpc.Handle(mux, lab.NestedPing, func(ctx context.Context, n int) (int, error) {
			<-ctx.Done()
			// The connection is being healed, and this handler's call is not
			// for the next link: its caller is gone.
			_, err := typedrpc.Call(context.WithoutCancel(ctx), typedrpc.ConnFrom(ctx), lab.NestedPing, 0)
			ends <- err
			return 0, err
		})
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Mux: mux, Backoff: lab.Steady})
		f := typedrpc.Go(t.Context(), c, lab.NestedPing, 1)
		synctest.Wait()
		w.Serve(nil)
		w.Cable().Cut()
		_, err := f.Await(t.Context())
		is.Equal(lab.OutcomeOf(err), typedrpc.MayHaveRun)
		err = <-ends
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(lab.OutcomeOf(err), typedrpc.NotSent)
		is.NoErr(c.Close())
	})
}
