package e2e_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// A retry that is not made costs nothing: because the deadline would pass first, because the
// caller gave up while it waited, because nobody picked a connection, or because the
// connection was closed.
func TestRetryBudget_retriesThatAreNotMade(t *testing.T) {
	late := typedrpc.Errorf(typedrpc.Unavailable, "later")
	late.RetryAfter = 10 * time.Second
	for name, fail := range map[string]func(t *testing.T, is *is.I, f *flaky, p *typedrpc.RetryPolicy, c *typedrpc.Conn){
		"deadline": func(t *testing.T, is *is.I, _ *flaky, _ *typedrpc.RetryPolicy, c *typedrpc.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := typedrpc.Call(ctx, c, retryRead, struct{}{})
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		},
		"canceled": func(t *testing.T, is *is.I, _ *flaky, _ *typedrpc.RetryPolicy, c *typedrpc.Conn) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := typedrpc.Call(ctx, c, retryRead, struct{}{})
			is.Equal(typedrpc.CodeOf(err), typedrpc.Canceled)
		},
		"a future canceled": func(t *testing.T, is *is.I, _ *flaky, _ *typedrpc.RetryPolicy, c *typedrpc.Conn) {
			f := typedrpc.Go(t.Context(), c, retryRead, struct{}{})
			time.Sleep(time.Second)
			f.Cancel()
			_, err := f.Await(t.Context())
			is.Equal(typedrpc.CodeOf(err), typedrpc.Canceled)
		},
		"no connection": func(t *testing.T, is *is.I, _ *flaky, p *typedrpc.RetryPolicy, c *typedrpc.Conn) {
			asked := 0
			pick := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
				if asked++; asked > 1 {
					return nil, errors.New("nobody")
				}
				return c, nil
			})
			_, err := typedrpc.Call(t.Context(), pick, retryRead, struct{}{})
			is.True(err != nil)
			is.Equal(asked, 4) // for each attempt
		},
		"closed": func(t *testing.T, is *is.I, f *flaky, p *typedrpc.RetryPolicy, _ *typedrpc.Conn) {
			c := f.dial(t, p)
			time.AfterFunc(time.Second, func() { c.Close() })
			_, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
			is.True(err != nil)
		},
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			f := &flaky{fails: 20, err: late}
			p := &typedrpc.RetryPolicy{Budget: &typedrpc.RetryBudget{Ratio: -1, Burst: 1}}
			c := f.dial(t, p)
			for range 20 {
				fail(t, is, f, p, c)
			}
			is.Equal(f.calls.Load(), int64(20))
			f.fails = 21
			n, err := typedrpc.Call(t.Context(), c, retryRead, struct{}{})
			is.NoErr(err) // the budget was not spent
			is.Equal(n, 22)
			f.fails = 23
			_, err = typedrpc.Call(t.Context(), c, retryRead, struct{}{})
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable) // and is now
			is.NoErr(c.Close())
		})
	}
}

// Nor does one that waits for a link, or a place, until its time is over, or that fails for want
// of one: nothing of it has left.
func TestRetryBudget_retriesThatNeverLeave(t *testing.T) {
	failed := typedrpc.Errorf(typedrpc.Unavailable, "once")
	away := func(w *lab.Town, _ *typedrpc.Conn) { w.Serve(nil); w.Cable().Cut() }
	for name, tt := range map[string]struct {
		meanwhile func(w *lab.Town, c *typedrpc.Conn) // between the attempts
		opts      typedrpc.CallOptions
		code      typedrpc.Code
	}{
		"no link":             {away, typedrpc.CallOptions{}, typedrpc.DeadlineExceeded},
		"no link, failing":    {away, typedrpc.CallOptions{FailFast: true}, typedrpc.Unavailable},
		"no link, and closed": {func(w *lab.Town, c *typedrpc.Conn) { away(w, c); time.AfterFunc(20*time.Second, func() { c.Close() }) }, typedrpc.CallOptions{}, typedrpc.Unavailable},
		"no place":            {func(_ *lab.Town, c *typedrpc.Conn) { typedrpc.Go(context.Background(), c, lab.Hang, struct{}{}) }, typedrpc.CallOptions{}, typedrpc.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				p := &typedrpc.RetryPolicy{Backoff: typedrpc.Backoff{Off: true, Least: 10 * time.Second}, Budget: &typedrpc.RetryBudget{Ratio: -1, Burst: 1}}
				l, f := lab.New(), &flaky{fails: 1, err: failed}
				typedrpc.Handle(l.Mux, retryRead, f.handle)
				l.Limits.MaxCalls = 1
				w := &lab.Town{Srv: l.Server}
				c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, OutgoingRetry: p, Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
				time.AfterFunc(time.Second, func() { tt.meanwhile(w, c) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := typedrpc.Call(ctx, c.With(tt.opts), retryRead, struct{}{})
				is.Equal(typedrpc.CodeOf(err), tt.code)
				is.Equal(f.calls.Load(), int64(1))
				is.NoErr(c.Close())
				other := &flaky{fails: 1, err: failed}
				c = other.dial(t, p)
				_, err = typedrpc.Call(t.Context(), c, retryRead, struct{}{})
				is.NoErr(err) // the budget was not spent
				other.fails = 3
				_, err = typedrpc.Call(t.Context(), c, retryRead, struct{}{})
				is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable) // and is now
				is.NoErr(c.Close())
				time.Sleep(time.Minute) // until the server has given the session up
			})
		})
	}
}

// A context that never ends in practice tells a time left that can be read.
func TestDeadline_centuriesAway(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		left := make(chan time.Duration, 1)
		typedrpc.Handle(mux, retryRead, func(ctx context.Context, _ struct{}) (int, error) {
			at, _ := ctx.Deadline()
			left <- time.Until(at)
			return 1, ctx.Err()
		})
		c, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, d := range []time.Duration{1<<63 - 1, 1<<63 - 1000, 250 * 365 * 24 * time.Hour} {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			_, err := typedrpc.Call(ctx, c, retryRead, struct{}{})
			cancel()
			is.NoErr(err)
			if got := <-left; !o.Plain() {
				is.True(got > 24*time.Hour)
			}
		}
	})
}
