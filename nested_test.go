package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
)

var nestedPing = NewMethod[int, int]("nested.ping")

// pingPong is a Mux whose handler calls its caller back until n is 0.
func pingPong() *Mux {
	mux := NewMux()
	Handle(mux, nestedPing, func(ctx context.Context, n int) (int, error) {
		if n == 0 {
			return 0, nil
		}
		depth, err := Call(ctx, ConnFrom(ctx), nestedPing, n-1)
		return depth + 1, err
	})
	return mux
}

func TestNested_depthWithSmallLimits(t *testing.T) {
	for _, limit := range []int{1, 2, 8, 1024} {
		for _, d := range []Dialect{Binary, JSONRPC, PlainJSONRPC} {
			t.Run(fmt.Sprint(limit, "/", d), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					c, _ := twoWays(t, d, pingPong(), pingPong(), Limits{MaxCalls: limit})
					for depth := range 65 {
						n, err := Call(t.Context(), c, nestedPing, depth)
						// depth+1 calls, alternately from each side.
						if depth/2+1 <= limit {
							is.NoErr(err)
							is.Equal(n, depth)
							continue
						}
						is.True(errors.Is(err, ResourceExhausted))
					}
					n, err := Call(t.Context(), c, nestedPing, 0) // no slot was lost
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
				c, s := twoWays(t, Binary, pingPong(), pingPong(), Limits{MaxCalls: limit})
				var wg sync.WaitGroup
				var mu sync.Mutex
				results := map[Code]int{}
				for i := range 200 {
					wg.Go(func() {
						from := c
						if i%2 == 0 {
							from = s
						}
						n, err := Call(t.Context(), from, nestedPing, i%65)
						mu.Lock()
						defer mu.Unlock()
						results[CodeOf(err)]++
						if err == nil && n != i%65 {
							t.Errorf("depth %d instead of %d", n, i%65)
						}
					})
				}
				wg.Wait() // a hang is a deadlock of the bubble
				is.Equal(results[0]+results[ResourceExhausted], 200)
				is.True(results[0] > 0)
				c.mu.Lock()
				is.Equal(len(c.pending)+c.slots+c.waiting.len+len(c.inbound), 0)
				c.mu.Unlock()
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
		mux := NewMux()
		Handle(mux, nestedPing, func(ctx context.Context, n int) (int, error) {
			deadline, ok := ctx.Deadline()
			if !ok {
				return 0, FailedPrecondition
			}
			mu.Lock()
			left = append(left, time.Until(deadline))
			mu.Unlock()
			time.Sleep(time.Second)
			if n == 0 {
				return 0, nil
			}
			return Call(ctx, ConnFrom(ctx), nestedPing, n-1)
		})
		c, _ := twoWays(t, Binary, mux, mux, Limits{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second+time.Millisecond)
		defer cancel()
		_, err := Call(ctx, c, nestedPing, 9)
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
		mux := NewMux()
		Handle(mux, nestedPing, func(ctx context.Context, n int) (int, error) {
			defer func() { ended <- n }()
			if n == 0 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return Call(ctx, ConnFrom(ctx), nestedPing, n-1)
		})
		c, _ := twoWays(t, Binary, mux, mux, Limits{})
		f := Go(t.Context(), c, nestedPing, 20)
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
		l := newLab()
		l.Server.Mux = pingPong()
		mux := NewMux()
		ends := make(chan error, 1)
		Handle(mux, nestedPing, func(ctx context.Context, n int) (int, error) {
			<-ctx.Done()
			// The connection is being healed, and this handler's call is not
			// for the next link: its caller is gone.
			_, err := Call(context.WithoutCancel(ctx), ConnFrom(ctx), nestedPing, 0)
			ends <- err
			return 0, err
		})
		w := &town{srv: l.Server}
		c := w.dial(t, &DialOptions{Mux: mux, Backoff: steady})
		f := Go(t.Context(), c, nestedPing, 1)
		synctest.Wait()
		w.serve(nil)
		w.cable().cut()
		_, err := f.Await(t.Context())
		is.Equal(outcomeOf(err), MayHaveRun)
		err = <-ends
		is.True(errors.Is(err, Unavailable))
		is.Equal(outcomeOf(err), NotSent)
		is.NoErr(c.Close())
	})
}
