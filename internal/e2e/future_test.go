package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// futures connects a client to a server with ask, which answers n and fails
// for a negative one, and hang.
func futures(t *testing.T, o lab.Over) (*typedrpc.Conn, lab.Hanging) {
	t.Helper()
	h := lab.NewHanging()
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Stay, h.Handle)
	typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
	typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
		switch {
		case n == 0: // 0 hangs
			h.Begun <- struct{}{}
			<-ctx.Done()
			h.Ended <- ctx.Err()
			return 0, ctx.Err()
		case n < 0:
			return 0, typedrpc.Errorf(typedrpc.Code(100-n), "no negatives")
		}
		return n, nil
	})
	client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	return client, h
}

func TestFuture_await(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, _ := futures(t, o)
		f := typedrpc.Go(t.Context(), client, lab.Ask, 5)
		for range 3 {
			n, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(n, 5)
		}
		<-f.Done()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		n, err := f.Await(ended)
		is.NoErr(err) // it is here already
		is.Equal(n, 5)
		f.Cancel() // and stays
		n, err = f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 5)
	})
}

func TestFuture_awaitByMany(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, _ := futures(t, o)
		f := typedrpc.Go(t.Context(), client, lab.Ask, 5)
		errs := make(chan error, 50)
		for range cap(errs) {
			go func() {
				n, err := f.Await(t.Context())
				if err == nil && n != 5 {
					err = fmt.Errorf("got %d", n)
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			is.NoErr(<-errs)
		}
	})
}

func TestFuture_error(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, _ := futures(t, o)
		f := typedrpc.Go(t.Context(), client, lab.Ask, -1)
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Code(101)))
		_, again := f.Await(t.Context())
		is.True(err == again)
	})
}

func TestFuture_awaitGivesUp(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		f := typedrpc.Go(t.Context(), client, lab.Ask, 0)
		<-h.Begun
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.Await(ctx)
		is.True(errors.Is(err, context.Canceled))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		select {
		case <-f.Done():
			t.Error("giving up the wait ended the call")
		case <-h.Ended:
			t.Error("giving up the wait ended the handler")
		default:
		}
		f.Cancel()
		_, err = f.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
		is.Equal(lab.AsError(t, err).Message, "the future was cancelled")
		is.Equal(<-h.Ended, context.Canceled)
	})
}

func TestFuture_contextOfGo(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		f := typedrpc.Go(ctx, client, lab.Ask, 0)
		<-h.Begun
		cancel()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
		is.Equal(<-h.Ended, context.Canceled)
	})
}

func TestFuture_cancelWithInterceptors(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		var l trail
		caller := client.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{l.interceptor("x")}})
		f := typedrpc.Go(t.Context(), caller, lab.Ask, 0)
		<-h.Begun
		f.Cancel()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
		is.Equal(<-h.Ended, context.Canceled)
		is.Equal(l.String(), "x> <x")
	})
}

// A future that nobody awaits costs memory and no goroutine.
func TestFuture_neverAwaited(t *testing.T) {
	is := is.New(t)
	begun, release := make(chan struct{}, 1000), make(chan struct{})
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ordered, func(context.Context, int) (int, error) { // Serial: one handler at a time
		begun <- struct{}{}
		<-release
		return 0, nil
	})
	client, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	typedrpc.Go(t.Context(), client, lab.Ordered, 0)
	<-begun
	before := runtime.NumGoroutine()
	var last *typedrpc.Future[int]
	for i := range 500 {
		last = typedrpc.Go(t.Context(), client, lab.Ordered, i)
	}
	is.True(runtime.NumGoroutine() < before+50)
	close(release)
	_, err := last.Await(t.Context())
	is.NoErr(err)
}

func TestAll(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		var fs []*typedrpc.Future[int]
		for i := range 20 {
			fs = append(fs, typedrpc.Go(t.Context(), client, lab.Ask, i+1))
		}
		got, err := typedrpc.All(t.Context(), fs...)
		is.NoErr(err)
		for i, n := range got {
			is.Equal(n, i+1) // in the order of the futures
		}
		none, err := typedrpc.All[int](t.Context())
		is.NoErr(err)
		is.Equal(len(none), 0)

		hung := typedrpc.Go(t.Context(), client, lab.Ask, 0)
		<-h.Begun
		_, err = typedrpc.All(t.Context(), hung, fs[0], typedrpc.Go(t.Context(), client, lab.Ask, -3))
		is.True(errors.Is(err, typedrpc.Code(103)))
		is.Equal(<-h.Ended, context.Canceled) // the first error cancels the rest
		_, err = hung.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
	})
}

func TestAll_contextEnds(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		f := typedrpc.Go(t.Context(), client, lab.Ask, 0)
		<-h.Begun
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := typedrpc.All(ctx, f)
		is.True(errors.Is(err, context.DeadlineExceeded))
		_, err = typedrpc.Any(ctx, f)
		is.True(errors.Is(err, context.DeadlineExceeded))
		err = typedrpc.Wait(ctx, f)
		is.True(errors.Is(err, context.DeadlineExceeded))
		select {
		case <-f.Done():
			t.Error("the call did not go on")
		default:
		}
		f.Cancel()
		<-h.Ended
	})
}

func TestAny(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		hung := typedrpc.Go(t.Context(), client, lab.Ask, 0)
		<-h.Begun
		failed := typedrpc.Go(t.Context(), client, lab.Ask, -1)
		<-failed.Done()
		n, err := typedrpc.Any(t.Context(), failed, hung, typedrpc.Go(t.Context(), client, lab.Ask, 8))
		is.NoErr(err) // the failure does not count
		is.Equal(n, 8)
		is.Equal(<-h.Ended, context.Canceled) // the rest is cancelled

		_, err = typedrpc.Any(t.Context(), failed, typedrpc.Go(t.Context(), client, lab.Ask, -2))
		is.True(errors.Is(err, typedrpc.Code(101))) // joined: both are in there
		is.True(errors.Is(err, typedrpc.Code(102)))
		_, err = typedrpc.Any[int](t.Context())
		is.True(errors.Is(err, typedrpc.InvalidArgument))
	})
}

func TestWait_differentTypes(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		number := typedrpc.Go(t.Context(), client, lab.Ask, 3)
		text := typedrpc.Go(t.Context(), client, lab.Shout, "x")
		is.NoErr(typedrpc.Wait(t.Context(), number, text))
		n, err := number.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 3)
		s, err := text.Await(t.Context())
		is.NoErr(err)
		is.Equal(s, "X")

		hung := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-h.Begun
		err = typedrpc.Wait(t.Context(), hung, typedrpc.Go(t.Context(), client, lab.Ask, -1))
		is.True(errors.Is(err, typedrpc.Code(101)))
		is.Equal(<-h.Ended, context.Canceled)
	})
}

// A response that does not decode is an error of whoever waits for it.
func TestWait_undecodable(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, _ := futures(t, o)
		wrong := typedrpc.NewMethod[string, int]("text.shout")
		_, err := typedrpc.All(t.Context(), typedrpc.Go(t.Context(), client, wrong, "x"))
		is.True(errors.Is(err, typedrpc.Internal))
		err = typedrpc.Wait(t.Context(), typedrpc.Go(t.Context(), client, wrong, "x"))
		is.True(errors.Is(err, typedrpc.Internal))
		_, err = typedrpc.Any(t.Context(), typedrpc.Go(t.Context(), client, wrong, "x"))
		is.True(errors.Is(err, typedrpc.Internal))
	})
}

func TestGo_connectionCloses(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, h := futures(t, o)
		f := typedrpc.Go(t.Context(), client, lab.Ask, 0)
		<-h.Begun
		client.Close()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		<-h.Ended
	})
}
