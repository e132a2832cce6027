package e2e_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestCall_contextEndedBefore(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		ran := make(chan struct{}, 1)
		typedrpc.Handle(mux, lab.Stay, func(context.Context, struct{}) (struct{}, error) {
			ran <- struct{}{}
			return struct{}{}, nil
		})
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := typedrpc.Call(ctx, client, lab.Stay, struct{}{})
		is.True(errors.Is(err, context.Canceled))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(typedrpc.Notify(ctx, client, lab.Tell, 1), context.Canceled))
		_, err = typedrpc.Go(ctx, client, lab.Stay, struct{}{}).Await(t.Context())
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.NoErr(err)
		is.Equal(len(ran), 0) // the handler never saw them
	})
}

func TestCall_deadlineTravels(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		// ask(n): the time left in milliseconds after n more hops.
		left := func(ctx context.Context, n int) (int, error) {
			d, ok := ctx.Deadline()
			switch {
			case !ok:
				return -1, nil
			case n == 0:
				return int(time.Until(d).Milliseconds()), nil
			}
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Ask, n-1)
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, left)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		got, err := typedrpc.Call(ctx, client, lab.Ask, 3)
		is.NoErr(err)
		is.True(got > 0)
		is.True(got <= int(time.Hour.Milliseconds()))

		got, err = typedrpc.Call(t.Context(), client, lab.Ask, 3)
		is.NoErr(err)
		is.Equal(got, -1) // no deadline, none made up
	})
}

func TestCall_deadlineShrinks(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		serverMux, clientMux := typedrpc.NewMux(), typedrpc.NewMux()
		typedrpc.Handle(clientMux, lab.Stay, h.Handle)
		typedrpc.Handle(serverMux, lab.Ask, func(ctx context.Context, _ int) (int, error) {
			_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Stay, struct{}{})
			return 0, err
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: serverMux}, &typedrpc.DialOptions{Mux: clientMux})
		for patience := 100 * time.Millisecond; len(h.Begun) == 0; patience *= 2 { // on a busy machine it may be over before the last hop
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err := typedrpc.Call(ctx, client, lab.Ask, 0)
			cancel()
			is.True(errors.Is(err, context.DeadlineExceeded))
		}
		is.True(<-h.Ended != nil) // the innermost handler was told
	})
}

func TestTimeout_boundsCall(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		brief := typedrpc.NewMethod[struct{}, struct{}]("brief", typedrpc.Timeout(20*time.Millisecond))
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, brief, h.Handle)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, brief, struct{}{})
		is.True(errors.Is(err, context.DeadlineExceeded))
		_, err = typedrpc.Go(t.Context(), client, brief, struct{}{}).Await(t.Context())
		is.True(errors.Is(err, context.DeadlineExceeded))
	})
}
