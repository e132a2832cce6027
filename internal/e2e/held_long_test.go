package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// A handler may run, and call its caller, for days: what it was answered counts until it
// has it, and not until it returns.
func TestHeld_answersOfALongHandler(t *testing.T) {
	const size, times = 100_000, 300 // 30 MB, beside a budget of 16
	var (
		theirs = typedrpc.NewMethod[int, string]("theirs")
		fails  = typedrpc.NewMethod[int, string]("fails")
		wrong  = typedrpc.NewFault[string]("wrong", typedrpc.Aborted)
		up     = typedrpc.NewClientStream[int, int, string]("up")
		begins = typedrpc.NewMethod[struct{}, struct{}]("begins")
	)
	watch := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	ways := map[string]func(ctx context.Context, c *typedrpc.Conn) error{
		"calls": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Call(ctx, c, theirs, 0)
			return err
		},
		"calls, with interceptors": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{watch}}), theirs, 0)
			return err
		},
		"futures": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Go(ctx, c, theirs, 0).Await(ctx)
			return err
		},
		"errors": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.Call(ctx, c, fails, 0)
			if !errors.Is(err, typedrpc.Aborted) {
				return err
			}
			return nil
		},
		"streams": func(ctx context.Context, c *typedrpc.Conn) error {
			_, err := typedrpc.SendAll(ctx, c, up, 0, typedrpc.Items(slices.Values([]int{1})))
			return err
		},
	}
	for name, way := range ways {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			mux, mine := typedrpc.NewMux(), typedrpc.NewMux()
			long := testkit.Letters(size)
			typedrpc.Handle(mine, theirs, func(context.Context, int) (string, error) { return long, nil })
			typedrpc.Handle(mine, fails, func(context.Context, int) (string, error) {
				return "", wrong.Errorf(long[:60_000], "wrong")
			})
			typedrpc.Handle(mine, up, func(_ context.Context, _ int, items iter.Seq2[int, error]) (string, error) {
				for _, err := range items {
					if err != nil {
						return "", err
					}
				}
				return long, nil
			})
			srv := &typedrpc.Server{Mux: mux, MaxMemory: 16 << 20, Logger: slog.New(slog.DiscardHandler)}
			typedrpc.Handle(mux, begins, func(ctx context.Context, _ struct{}) (none struct{}, err error) {
				for i := range times {
					if err := way(ctx, typedrpc.ConnFrom(ctx)); err != nil {
						return none, typedrpc.Errorf(typedrpc.Internal, "call %d: %v", i, err)
					}
				}
				if held := hook.Server(srv).Budget; held > 3*size {
					return none, typedrpc.Errorf(typedrpc.Internal, "%d bytes are held", held)
				}
				return none, nil
			})
			client, _ := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Mux: mine})
			_, err := typedrpc.Call(t.Context(), client, begins, struct{}{})
			is.NoErr(err)
			lab.Settled(t, client)
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
}

// What futures were answered with counts while the program has not taken it, also where
// interceptors had it first.
func TestHeld_answersOfFutures(t *testing.T) {
	const size, times = 100_000, 300
	theirs := typedrpc.NewMethod[int, string]("theirs")
	wrong := typedrpc.NewFault[string]("wrong", typedrpc.Aborted)
	begins := typedrpc.NewMethod[struct{}, struct{}]("begins")
	watch := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	for i := range 4 {
		watched, fails := i&1 > 0, i&2 > 0
		testkit.Bubble(t, fmt.Sprint(watched, fails), func(t *testing.T, is *is.I) {
			mux, mine := typedrpc.NewMux(), typedrpc.NewMux()
			typedrpc.Handle(mine, theirs, func(context.Context, int) (string, error) {
				if fails {
					return "", wrong.Errorf(testkit.Letters(60_000), "wrong")
				}
				return testkit.Letters(size), nil
			})
			srv := &typedrpc.Server{Mux: mux, MaxMemory: 128 << 20, Logger: slog.New(slog.DiscardHandler)}
			var held, got int64
			typedrpc.Handle(mux, begins, func(ctx context.Context, _ struct{}) (none struct{}, err error) {
				var o typedrpc.CallOptions
				if watched {
					o.Interceptors = []typedrpc.Interceptor{watch}
				}
				var all []*typedrpc.Future[string]
				for range times {
					f := typedrpc.Go(ctx, typedrpc.ConnFrom(ctx).With(o), theirs, 0)
					<-f.Done()
					all = append(all, f)
				}
				held = hook.Server(srv).Budget
				for _, f := range all {
					v, err := f.Await(ctx)
					got += int64(len(v))
					if fault, ok := wrong.From(err); ok {
						got += int64(len(fault))
					}
				}
				return none, nil
			})
			client, _ := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Mux: mine})
			_, err := typedrpc.Call(t.Context(), client, begins, struct{}{})
			is.NoErr(err)
			is.True(got > 1<<20)
			is.True(held >= got)
			lab.Settled(t, client)
			is.Equal(hook.Server(srv).Budget, int64(0))
		})
	}
}
