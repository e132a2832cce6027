package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// slowLine connects a client and a server over a line of rate bytes per second
// each way, which stands still for a time after every time.
func slowLine(t *testing.T, rate int, still time.Duration) (c, s *typedrpc.Conn) {
	t.Helper()
	// As little as a socket holds, or it takes minutes until the other end reads.
	fine := typedrpctest.Conditions{Latency: 100 * time.Millisecond, Bandwidth: rate, Buffer: max(4<<10, rate/16)}
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: fine, Down: fine})
	t.Cleanup(func() { n.Close() })
	mux := lab.Bidi(lab.EchoItems)
	limits := typedrpc.Limits{WriteTimeout: time.Minute * 10, KeepAlive: time.Minute}
	c, s = n.Host("slow").Pair(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Mux: mux, Limits: limits})
	if still > 0 {
		over := make(chan struct{})
		t.Cleanup(func() { close(over) })
		go func() {
			for stopped := false; ; stopped = !stopped {
				now, lasts := fine, 30*time.Second
				if stopped {
					now.Stall, lasts = true, still
				}
				n.Set(typedrpctest.Both, now)
				select {
				case <-time.After(lasts):
				case <-over:
					return
				}
			}
		}()
	}
	return c, s
}

// What comes slowly, but comes, is not given up: one at a time, or many that take
// turns over a line that has little more than the least, in both directions.
func TestHalfDone_slowIsNotStopped(t *testing.T) {
	for _, test := range []struct {
		calls, size int
		rate        int
		still       time.Duration
	}{
		{1, 200_000, 1100, 0},
		{1, 70_000, 1100, 0},
		{3, 200_000, 1100, 0},
		{5, 150_000, 2000, 0},
		{12, 70_000, 2000, 0},
		{3, 200_000, 2500, 9 * time.Second},
		{10, 200_000, 20_000, 25 * time.Second},
		{8, 300_000, 1 << 20, 0},
	} {
		testkit.Bubble(t, fmt.Sprint(test), func(t *testing.T, is *is.I) {
			c, s := slowLine(t, test.rate, test.still)
			text := testkit.Letters(test.size)
			var calls []*typedrpc.Future[string]
			for i := range 2 * test.calls {
				caller := c
				if i%2 == 1 {
					caller = s
				}
				calls = append(calls, typedrpc.Go(t.Context(), caller, lab.FlowCall, text))
			}
			for _, f := range calls {
				got, err := f.Await(t.Context())
				is.NoErr(err)
				is.Equal(len(got), test.size)
			}
			lab.Settled(t, c, s)
		})
	}
}

// So it is with items, beside small calls that go on.
func TestHalfDone_slowItems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		c, s := slowLine(t, 3000, 0)
		text := testkit.Letters(150_000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		for _, caller := range []*typedrpc.Conn{c, s} {
			go func() {
				for ctx.Err() == nil {
					typedrpc.Call(ctx, caller, lab.FlowCall, "small")
					time.Sleep(time.Second)
				}
			}()
			x, err := typedrpc.Open(t.Context(), caller, lab.FlowBoth, "")
			is.NoErr(err)
			go func() {
				defer x.Cancel()
				for range 3 {
					if err := x.Send(text); err != nil {
						done <- err
						return
					}
				}
				for range 3 {
					if _, err := x.Recv(); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		is.NoErr(<-done)
		is.NoErr(<-done)
		cancel()
		time.Sleep(time.Hour)
		lab.Settled(t, c, s)
	})
}
