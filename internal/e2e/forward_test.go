package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// dialedAs dials srv as somebody who is taken at their word.
func dialedAs(t *testing.T, srv *typedrpc.Server, d typedrpc.Dialect, name string) *typedrpc.Conn {
	srv.SignIn = lab.Sign.Verify(func(_ context.Context, _ *http.Request, name *string) (typedrpc.Identity, int, error) {
		return typedrpc.Identity{Subject: *name}, 0, nil
	})
	c, _ := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, SignIn: lab.Sign.Present(
		func(context.Context) (string, error) { return name, nil },
	)})
	return c
}

// What Forward's comment says that is kept is kept, and what it says that is not is not.
func TestForward_keeps(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		echo := typedrpc.NewMethod[string, string]("echo")
		stock := typedrpc.NewFault[int]("stock", typedrpc.Code(123))
		var seen *typedrpc.Request
		var subject string
		var left time.Duration
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, echo, func(ctx context.Context, s string) (string, error) {
			seen, subject = typedrpc.RequestFrom(ctx), typedrpc.ConnFrom(ctx).Identity().Subject
			if end, ok := ctx.Deadline(); ok {
				left = time.Until(end)
			}
			seen.ReplyMetadata.Set("of", "the backend")
			if s == "" {
				return "", stock.Errorf(7, "only %d", 7)
			}
			return s, nil
		})
		backend := dialedAs(t, &typedrpc.Server{Mux: mux}, d, "gate")
		defer backend.Close()
		gate := typedrpc.NewMux()
		gate.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			return typedrpc.Forward(ctx, backend.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"b": "gate's"}}), r)
		})
		c := dialedAs(t, &typedrpc.Server{Mux: gate}, d, "ann")
		defer c.Close()

		var reply typedrpc.Metadata
		with := c.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"a": "ann's", "b": "ann's"}, ReplyMetadata: &reply})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		text, err := typedrpc.Call(ctx, with, echo, "hello")
		is.NoErr(err)
		is.Equal(text, "hello")
		is.Equal(seen.Metadata["a"], "ann's")
		is.Equal(seen.Metadata["b"], "gate's") // what this side sets goes over what the caller says
		is.Equal(reply["of"], "the backend")
		is.Equal(left, time.Minute)
		is.Equal(subject, "gate") // and not who calls

		_, err = typedrpc.Call(ctx, with, echo, "")
		n, ok := stock.From(err)
		is.True(ok)
		is.Equal(n, 7)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Code(123))
		_, err = typedrpc.Call(ctx, with, lab.Ask, 1) // which the backend refuses
		is.True(errors.Is(err, typedrpc.Unimplemented))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered) // of the gate
	})
}

// What is forwarded has the traits that its declaration has at the proxy.
func TestForward_traitsAreThoseDeclaredHere(t *testing.T) {
	for name, declared := range map[string]bool{"declared": true, "a fallback": false} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				slow := typedrpc.NewMethod[int, int]("slow", typedrpc.Idempotent)
				ran := 0
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, slow, func(ctx context.Context, n int) (int, error) {
					if ran++; ran == 1 {
						<-ctx.Done()
					}
					return n, nil
				})
				srv := &typedrpc.Server{Mux: mux}
				backend := dialedAs(t, srv, d, "gate")
				defer backend.Close()
				forward := func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
					return typedrpc.Forward(ctx, backend, r)
				}
				gate := typedrpc.NewMux(func(ctx context.Context, r *typedrpc.Request, _ typedrpc.RawHandler) (typedrpc.Raw, error) {
					return forward(ctx, r)
				})
				if declared {
					typedrpc.Handle(gate, slow, func(_ context.Context, n int) (int, error) { return 0, nil })
				} else {
					gate.HandleFallback(forward)
				}
				c := dialedAs(t, &typedrpc.Server{Mux: gate}, d, "ann")
				defer c.Close()

				answer := typedrpc.Go(t.Context(), c, slow, 5)
				synctest.Wait()
				for s := range srv.Conns() {
					s.Close() // the session of the backend is lost
				}
				n, err := answer.Await(t.Context())
				if declared {
					is.NoErr(err)
					is.Equal(n, 5)
					is.Equal(ran, 2)
					return
				}
				is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
				is.Equal(ran, 1)
			})
		})
	}
}
