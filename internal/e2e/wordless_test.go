package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

// wordless are handlers' errors that have no text of their own.
var wordless = map[string]func(ctx context.Context) error{
	"a time-out of the handler's own call": func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Stay, struct{}{})
		return err
	},
	"a call that it gave up": func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Stay, struct{}{})
		return err
	},
	"an Error without a text": func(context.Context) error { return &typedrpc.Error{Code: typedrpc.NotFound} },
	"of its own code":         func(context.Context) error { return &typedrpc.Error{Code: 1234} },
	"with a number":           func(context.Context) error { return &typedrpc.Error{Number: 3} },
	"of nothing":              func(context.Context) error { return new(typedrpc.Error) },
	"text that is no UTF-8":   func(context.Context) error { return &typedrpc.Error{Code: typedrpc.NotFound, Message: "\xff\xfe"} },
	"a context's":             func(context.Context) error { return context.DeadlineExceeded },
	"a code":                  func(context.Context) error { return typedrpc.Aborted },
	"a code of its own":       func(context.Context) error { return typedrpc.Code(1234) },
	"a fault's":               func(context.Context) error { return lab.NoStock.Errorf(lab.Shortage{}, "") },
}

// No error leaves without a sentence: readers of JSON-RPC show nothing else.
func TestError_neverWithoutText(t *testing.T) {
	ticks := typedrpc.NewServerStream[int, int]("ticks")
	for name, fails := range wordless {
		t.Run(name, func(t *testing.T) {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, _ int) (int, error) { return 0, fails(ctx) })
			typedrpc.Handle(mux, ticks, func(ctx context.Context, _ int, _ func(int) error) error { return fails(ctx) })
			lab.OverAll(t, func(t *testing.T, o lab.Over) {
				is := is.New(t)
				client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
				_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
				is.True(lab.AsError(t, err).Message != "")
				if o.Plain() {
					return
				}
				for _, err := range typedrpc.Receive(t.Context(), client, ticks, 1) {
					is.True(lab.AsError(t, err).Message != "")
				}
			})
			is := is.New(t)
			_, text := post(t, serve(t, &typedrpc.Server{Mux: mux}), `[{"jsonrpc":"2.0","id":1,"method":"ask","params":[1]},{"jsonrpc":"2.0","id":2,"method":"ask","params":[1]}]`)
			is.Equal(strings.Count(text, `"message":"`), 2)
			is.Equal(strings.Count(text, `"message":""`), 0)
		})
	}
}

// Neither does one that MapError made, that a client's handler returns, that refuses a
// sign-in, or that ends a call which ran out of time.
func TestError_neverWithoutTextElsewhere(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return 0, fmt.Errorf("foreign") })
	typedrpc.Handle(mux, lab.Stay, func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	mapped := func(context.Context, error) *typedrpc.Error { return &typedrpc.Error{Code: typedrpc.Aborted} }
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux, MapError: mapped}, &typedrpc.DialOptions{Mux: mux, MapError: mapped})
		for _, c := range []*typedrpc.Conn{client, server} {
			_, err := typedrpc.Call(t.Context(), c, lab.Ask, 1)
			is.Equal(lab.AsError(t, err).Message, "aborted")
		}
	})
	url := serve(t, &typedrpc.Server{Mux: mux, SignIn: typedrpc.NewSignIn[string, int]().Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
		return typedrpc.Identity{}, 0, &typedrpc.Error{Code: typedrpc.Unauthenticated}
	})})
	_, err := typedrpc.Dial(t.Context(), url, nil)
	is.True(strings.Contains(err.Error(), "unauthenticated"))
	is.True(lab.AsError(t, err).Message != "")
	p := dialRaw(t, serve(t, &typedrpc.Server{Mux: mux}))
	p.send(`{"jsonrpc":"2.0","id":1,"method":"hang","timeout":1}`)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"error":{"code":4,"message":"deadline exceeded"}}`)
}

// Through a proxy a time-out has a text as well.
func TestForward_timeoutHasText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		foreign, up, _ := lab.ForeignServer(t, &typedrpc.DialOptions{})
		mux := typedrpc.NewMux()
		mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return typedrpc.Forward(ctx, up, r)
		})
		page, c := lab.Page(t, &typedrpc.Server{Mux: mux})
		page.Send(`{"jsonrpc":"2.0","id":1,"method":"slow"}`)
		foreign.Only(t)
		time.Sleep(time.Minute)
		is.Equal(page.Only(t), `{"jsonrpc":"2.0","id":1,"error":{"code":4,"message":"deadline exceeded"}}`)
		c.Close()
		up.Close()
	})
}
