package e2e_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Notifications that wait go in their order: one that needs much of the window is not passed
// for ever by small ones, however many have more to send, nor are some of those.
func TestNotify_largeAmongSmall(t *testing.T) {
	news := typedrpc.NewNotification[string]("news")
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		for _, direction := range []string{"to the server", "to the client"} {
			for _, broadcast := range []bool{false, true} {
				is := is.New(t)
				l := lab.New()
				mux := typedrpc.NewMux()
				l.Mux = mux
				typedrpc.Handle(mux, news, func(context.Context, string) error { time.Sleep(time.Millisecond); return nil })
				c, s, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d, Mux: mux})
				is.NoErr(err)
				from := map[string]*typedrpc.Conn{"to the server": c, "to the client": s}[direction]
				send := func(ctx context.Context, n int) time.Duration {
					began := time.Now()
					text := strings.Repeat("x", n)
					if broadcast && n < 10_000 {
						typedrpc.Broadcast(ctx, func(yield func(*typedrpc.Conn) bool) { yield(from) }, news, text)
					} else if err := typedrpc.Notify(ctx, from, news, text); n > 10_000 {
						is.NoErr(err)
					}
					return time.Since(began)
				}
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				var mu sync.Mutex
				slowest := time.Duration(0)
				for range 200 {
					wg.Go(func() {
						for ctx.Err() == nil {
							took := send(ctx, 1000)
							mu.Lock()
							slowest = max(slowest, took)
							mu.Unlock()
						}
					})
				}
				time.Sleep(time.Second)
				for _, n := range []int{30 << 10, 60 << 10, 200 << 10} { // the last is more than the window
					is.True(send(ctx, n) < time.Second)
				}
				cancel()
				wg.Wait()
				is.True(slowest < time.Second) // some 200 went before each
				c.Close()
				time.Sleep(time.Minute) // handlers return
				synctest.Wait()
			}
		}
	})
}

// Whoever leaves the line, for whatever reason, holds up nobody behind.
func TestNotify_leavesTheLine(t *testing.T) {
	news := typedrpc.NewNotification[string]("news")
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		hold := make(chan struct{})
		var taken atomic.Int32
		typedrpc.Handle(l.Mux, news, func(context.Context, string) error { <-hold; taken.Add(1); return nil })
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
		is.NoErr(err)
		defer c.Close()
		is.NoErr(typedrpc.Notify(t.Context(), c, news, strings.Repeat("x", 40<<10)))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var went atomic.Int32
		for i, n := range []int{40, 1, 41, 2, 3, 42} { // KiB; the large ones do not fit, and give up
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond) // in this order
				one := t.Context()
				if n >= 40 {
					one = ctx
				}
				if typedrpc.Notify(one, c, news, strings.Repeat("y", n<<10)) == nil {
					went.Add(1)
				}
			})
		}
		time.Sleep(time.Second)
		is.Equal(went.Load(), int32(0))
		cancel()
		began := time.Now()
		wg.Wait()
		is.Equal(time.Since(began), time.Duration(0)) // at once, although nothing of the window is credited
		is.Equal(went.Load(), int32(3))
		close(hold)
		time.Sleep(time.Second)
		is.Equal(taken.Load(), int32(1+3))
	})
}
