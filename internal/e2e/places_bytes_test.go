package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// The peer holds 100,000 bytes of requests at once in these tests.
var (
	tight      = typedrpc.Limits{MaxBuffered: 100_000}
	placeHold  = typedrpc.NewMethod[string, int]("place.hold") // for a second, or until the first byte's gate opens
	placeInRow = typedrpc.NewMethod[string, int]("place.row", typedrpc.Serial)
	placeFlow  = typedrpc.NewServerStream[string, int]("place.flow", typedrpc.Serial)
	placeBack  = typedrpc.NewMethod[string, string]("place.back") // calls back what it is told to
)

// holding is what handlers of tests with requests of many bytes saw.
type holding struct {
	mu   sync.Mutex
	seen []string // "name bytes", as they began
	open chan struct{}
	once sync.Once
}

func newHolding() *holding { return &holding{open: make(chan struct{})} }

func (h *holding) release() { h.once.Do(func() { close(h.open) }) }

func (h *holding) began(name, s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, fmt.Sprint(name, " ", len(s)))
}

func (h *holding) has(what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.seen, what)
}

func (h *holding) mux() *typedrpc.Mux {
	mux := placesMux()
	typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
	typedrpc.Handle(mux, placeHold, func(ctx context.Context, s string) (int, error) {
		h.began("hold", s)
		wait, timer := h.open, (<-chan time.Time)(nil)
		if s[0] == 't' { // for a time
			wait, timer = nil, time.After(time.Second)
		}
		select {
		case <-wait:
		case <-timer:
		case <-ctx.Done():
		}
		return len(s), ctx.Err()
	})
	typedrpc.Handle(mux, placeInRow, func(_ context.Context, s string) (int, error) {
		h.began("row", s)
		return len(s), nil
	})
	typedrpc.Handle(mux, placeFlow, func(_ context.Context, s string, _ func(int) error) error {
		h.began("flow", s)
		return nil
	})
	typedrpc.Handle(mux, placeBack, func(ctx context.Context, what string) (string, error) {
		c := typedrpc.ConnFrom(ctx)
		var err error
		switch what {
		case "call":
			_, err = typedrpc.Call(ctx, c, lab.Ask, 1)
		case "future":
			_, err = typedrpc.Go(ctx, c, lab.Ask, 1).Await(ctx)
		case "stream":
			for _, e := range typedrpc.Receive(ctx, c, placeDone, 1) {
				err = e
			}
		case "serial":
			_, err = typedrpc.Call(ctx, c, lab.Ordered, 1)
		case "large":
			_, err = typedrpc.Call(ctx, c, lab.Shout, strings.Repeat("x", 50_000))
		}
		return fmt.Sprint(err), nil
	})
	typedrpc.Handle(mux, placeDone, func(context.Context, int, func(int) error) error { return nil })
	return mux
}

var placeDone = typedrpc.NewServerStream[int, int]("place.done")

func heldTest(t *testing.T, limits typedrpc.Limits, test func(t *testing.T, caller, callee *typedrpc.Conn, h *holding)) {
	t.Helper()
	var h *holding
	made := 0
	bothWays(t, limits, func() *typedrpc.Mux { // for either side
		if made++; made%2 == 1 {
			h = newHolding()
		}
		return h.mux()
	}, func(t *testing.T, caller, callee *typedrpc.Conn, _ *lab.Logs) {
		defer h.release()
		test(t, caller, callee, h)
		h.release()
		synctest.Wait()
	})
}

func hold(t *testing.T, c *typedrpc.Conn, n int) *typedrpc.Future[int] {
	t.Helper()
	f := typedrpc.Go(t.Context(), c, placeHold, strings.Repeat("g", n))
	synctest.Wait()
	return f
}

func TestPlaces_smallCallsPassOneThatWaitsForRoom(t *testing.T) {
	for _, large := range []int{60_000, 95_000, 130_000} {
		t.Run(fmt.Sprint(large), func(t *testing.T) {
			heldTest(t, tight, func(t *testing.T, caller, callee *typedrpc.Conn, h *holding) {
				is := is.New(t)
				first := hold(t, caller, 70_000)
				second := hold(t, caller, large)
				is.Equal(hook.Conn(caller).Waiting, 1)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for i := range 300 {
					_, err := typedrpc.Call(ctx, caller, lab.Ask, i)
					is.NoErr(err) // a call
				}
				_, err := typedrpc.Go(ctx, caller, lab.Ask, 1).Await(ctx)
				is.NoErr(err) // a future
				_, err = typedrpc.Call(ctx, caller.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), lab.Ask, 1)
				is.NoErr(err) // one with a policy
				_, err = typedrpc.Call(ctx, caller, lab.Ordered, 1)
				is.NoErr(err) // one of a Serial method, which passes no other
				for _, err := range typedrpc.Receive(ctx, caller, placeDone, 1) {
					is.NoErr(err) // a stream
				}
				for _, what := range []string{"call", "future", "stream", "serial"} {
					text, err := typedrpc.Call(ctx, callee, placeBack, what)
					is.NoErr(err)
					is.Equal(text, "<nil>") // a handler's, which must not wait
				}
				is.Equal(hook.Conn(caller).Waiting, 1)
				h.release()
				_, err = first.Await(ctx)
				is.NoErr(err)
				n, err := second.Await(ctx)
				is.NoErr(err)
				is.Equal(n, large)
			})
		})
	}
}

// Who passes is not so many that what waits is never sent.
func TestPlaces_largeCallsAreNotPassedForEver(t *testing.T) {
	for _, large := range []int{60_000, 95_000, 130_000} {
		t.Run(fmt.Sprint(large), func(t *testing.T) {
			heldTest(t, tight, func(t *testing.T, caller, callee *typedrpc.Conn, h *holding) {
				is := is.New(t)
				first := hold(t, caller, 70_000)
				second := hold(t, caller, large)
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range 200 { // at any moment some of them are in flight
					wg.Go(func() {
						time.Sleep(time.Duration(i) * 5 * time.Millisecond)
						for ctx.Err() == nil {
							typedrpc.Call(ctx, caller, placeHold, strings.Repeat("t", 1_000)) // for a second
						}
					})
				}
				time.Sleep(10 * time.Second)
				is.True(hook.Conn(caller).Passed > 0)
				is.True(!h.has(fmt.Sprint("hold ", large)))
				h.release()
				time.Sleep(1100 * time.Millisecond) // those that have passed it end meanwhile
				is.True(h.has(fmt.Sprint("hold ", large)))
				cancel()
				wg.Wait()
				_, err := first.Await(t.Context())
				is.NoErr(err)
				_, err = second.Await(t.Context())
				is.NoErr(err)
			})
		})
	}
}

func TestPlaces_handlersAreToldWhatIsTrue(t *testing.T) {
	heldTest(t, tight, func(t *testing.T, caller, callee *typedrpc.Conn, h *holding) {
		is := is.New(t)
		hold(t, caller, 70_000)
		back := func(what, says string) {
			t.Helper()
			text, err := typedrpc.Call(t.Context(), callee, placeBack, what)
			is.NoErr(err)
			if !strings.Contains(text, says) {
				t.Errorf("%q does not say %q", text, says)
			}
			is.True(strings.HasPrefix(text, "resource exhausted"))
			is.True(strings.Contains(text, "a handler of the same connection must not wait"))
		}
		back("large", "its request takes 50066 bytes, and of the 100000 of requests that the peer holds at once 70066 are in use; see Limits.MaxBuffered")
		row := typedrpc.Go(t.Context(), caller, placeInRow, strings.Repeat("x", 50_000))
		synctest.Wait()
		back("serial", "calls of Serial methods do not pass each other, and one waits in front: its request takes 50066 bytes")

		// The same is the text of those that have waited in vain.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := typedrpc.Call(ctx, caller, lab.Shout, strings.Repeat("x", 60_000))
		is.True(strings.Contains(err.Error(), "deadline exceeded: its request takes 60066 bytes, and of the 100000 of requests that the peer holds at once 70066 are in use; see Limits.MaxBuffered"))
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = typedrpc.Call(ctx, caller, lab.Ordered, 1)
		is.True(strings.Contains(err.Error(), "deadline exceeded: calls of Serial methods do not pass each other, and one waits in front: its request"))
		row.Cancel()
		h.release()
	})
}

// Room that nobody needs any more goes to those who wait for it.
func TestPlaces_givenUpInFront(t *testing.T) {
	heldTest(t, tight, func(t *testing.T, caller, callee *typedrpc.Conn, h *holding) {
		is := is.New(t)
		hold(t, caller, 70_000)
		large := hold(t, caller, 99_000) // one of 20,000 would fit, but more than an eighth passes nobody
		next := typedrpc.Go(t.Context(), caller, lab.Shout, strings.Repeat("x", 20_000))
		synctest.Wait()
		is.Equal(hook.Conn(caller).Waiting, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := typedrpc.Call(ctx, caller, lab.Shout, strings.Repeat("x", 21_000))
		is.True(strings.Contains(err.Error(), "the rest is kept for a larger one"))
		large.Cancel()
		_, err = next.Await(t.Context())
		is.NoErr(err)
		h.release()
	})
}

// Calls and streams of Serial methods begin in the order in which they were made,
// whoever passes them.
func TestPlaces_serialCallsKeepTheirOrder(t *testing.T) {
	limits := tight
	limits.MaxCalls = 8
	heldTest(t, limits, func(t *testing.T, caller, callee *typedrpc.Conn, h *holding) {
		is := is.New(t)
		first := hold(t, caller, 70_000)
		var all []*typedrpc.Future[int]
		var wg sync.WaitGroup
		var want []string
		for i, size := range []int{60_000, 10, 40_000, 11, 12, 99_000, 13, 50_000, 14, 15, 16, 17} {
			s := strings.Repeat("x", size)
			if i%3 == 1 {
				wg.Go(func() {
					for _, err := range typedrpc.Receive(t.Context(), caller, placeFlow, s) {
						t.Error(err)
					}
				})
				want = append(want, fmt.Sprint("flow ", size))
			} else {
				all = append(all, typedrpc.Go(t.Context(), caller, placeInRow, s))
				want = append(want, fmt.Sprint("row ", size))
			}
			synctest.Wait()
			_, err := typedrpc.Call(t.Context(), caller, lab.Ask, i)
			is.NoErr(err)
		}
		is.Equal(hook.Conn(caller).Waiting, len(want))
		h.release()
		_, err := first.Await(t.Context())
		is.NoErr(err)
		_, err = typedrpc.All(t.Context(), all...)
		is.NoErr(err)
		wg.Wait()
		is.Equal(h.seen[1:], want)
	})
}
