package e2e_test

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// An item that cannot be sent, whatever the reason, says nothing of the call, which a handler has seen.
func TestItem_thatCannotBeSentIsNotAnUnsentCall(t *testing.T) {
	var (
		up   = typedrpc.NewClientStream[int, typedrpc.Raw, int]("outcome.up")
		both = typedrpc.NewBidiStream[int, typedrpc.Raw, int]("outcome.both")
	)
	for _, down := range []bool{false, true} {
		lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
			is := is.New(t)
			var began atomic.Int32
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, up, func(_ context.Context, _ int, items iter.Seq2[typedrpc.Raw, error]) (int, error) {
				began.Add(1)
				for _, err := range items {
					if err != nil {
						return 0, err
					}
				}
				return 1, nil
			})
			typedrpc.Handle(mux, both, func(ctx context.Context, _ int, _ *typedrpc.Stream[int, typedrpc.Raw]) error {
				began.Add(1)
				<-ctx.Done()
				return ctx.Err()
			})
			near, far := lab.TwoWays(t, d, mux, mux, typedrpc.Limits{MaxDepth: 5, MaxMessage: 2000})
			defer near.Close()
			if down {
				near = far
			}
			var ran int32
			saw := func(err error, codes ...typedrpc.Code) {
				t.Helper()
				is.True(slices.Contains(codes, typedrpc.CodeOf(err)))
				is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
				synctest.Wait()
				ran++
				is.Equal(began.Load(), ran)
			}
			for _, m := range []typedrpc.Raw{long, deep, typedrpc.Raw("{")} {
				if d == typedrpc.Binary && string(m) == string(deep) {
					continue // in which nobody asks for depth
				}
				_, err := typedrpc.SendAll(t.Context(), near, up, 1, func(yield func(typedrpc.Raw, error) bool) {
					synctest.Wait()
					if yield(typedrpc.Raw("1"), nil) {
						yield(m, nil)
					}
				})
				saw(err, typedrpc.ResourceExhausted, typedrpc.InvalidArgument)
				s, err := typedrpc.Open(t.Context(), near, both, 1)
				is.NoErr(err)
				synctest.Wait()
				saw(s.Send(m), typedrpc.ResourceExhausted, typedrpc.InvalidArgument)
				s.Cancel()
			}
			s, err := typedrpc.Open(t.Context(), near, both, 1)
			is.NoErr(err)
			synctest.Wait()
			s.CloseSend()
			saw(s.Send(typedrpc.Raw("1")), typedrpc.FailedPrecondition)
			s.Cancel()
		})
	}
}
