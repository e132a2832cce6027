package e2e_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// sayNothing are the ways of sending what has no content.
func sayNothing() map[string]func(ctx context.Context, c *typedrpc.Conn) {
	call, note := typedrpc.NewMethod[struct{}, typedrpc.Raw]("call"), typedrpc.NewNotification[struct{}]("note")
	around := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	return map[string]func(ctx context.Context, c *typedrpc.Conn){
		"a call":         func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Call(ctx, c, call, struct{}{}) },
		"a future":       func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Go(ctx, c, call, struct{}{}) },
		"a notification": func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Notify(ctx, c, note, struct{}{}) },
		"a broadcast": func(ctx context.Context, c *typedrpc.Conn) {
			other, _ := typedrpctest.Pair(nil2t(ctx), &typedrpc.Server{}, &typedrpc.DialOptions{Dialect: typedrpc.Text})
			typedrpc.Broadcast(ctx, func(yield func(*typedrpc.Conn) bool) { _ = yield(other) && yield(c) }, note, struct{}{})
		},
		"an intercepted call": func(ctx context.Context, c *typedrpc.Conn) {
			typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{around}}), call, struct{}{})
		},
	}
}

type testKey struct{}

func nil2t(ctx context.Context) *testing.T { return ctx.Value(testKey{}).(*testing.T) }

// To a plain peer a request without content has no params: who takes them by position
// would refuse an object.
func TestEmpty_hasNoParams(t *testing.T) {
	for name, say := range sayNothing() {
		t.Run(name, func(t *testing.T) {
			lab.Strangers(t, typedrpc.NewMux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
				is := is.New(t)
				ctx, cancel := context.WithCancel(context.WithValue(t.Context(), testKey{}, t))
				done := make(chan struct{})
				go func() { defer close(done); say(ctx, c) }()
				got := s.Only(t)
				is.True(strings.Contains(got, `"method":"`))
				is.True(!strings.Contains(got, "params"))
				cancel()
				<-done
			})
		})
	}
}

// What a program made an object is sent as one, also without members, and by a proxy.
func TestEmpty_objectsAreObjects(t *testing.T) {
	type options struct{}
	lab.Strangers(t, typedrpc.NewMux(), typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[options]("note"), options{}))
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[typedrpc.Raw]("note"), typedrpc.Raw("{}")))
		is.NoErr(typedrpc.Notify(t.Context(), c, typedrpc.NewNotification[map[string]int]("note"), map[string]int{}))
		for _, text := range s.Got() {
			is.Equal(text, `{"jsonrpc":"2.0","method":"note","params":{}}`)
		}
	})
}

// A proxy in front of a plain server has clients of every kind.
func TestEmpty_forwarded(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		testkit.Bubble(t, []string{"binary", "text", "plain"}[d], func(t *testing.T, is *is.I) {
			foreign, up, _ := lab.ForeignServer(t, &typedrpc.DialOptions{})
			mux := typedrpc.NewMux()
			mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
				return typedrpc.Forward(ctx, up, r)
			})
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Dialect: d})
			f := typedrpc.Go(t.Context(), client, typedrpc.NewMethod[struct{}, int]("call"), struct{}{})
			synctest.Wait()
			is.Equal(foreign.Only(t), `{"jsonrpc":"2.0","id":1,"method":"call"}`)
			foreign.Send(`{"jsonrpc":"2.0","id":1,"result":7}`)
			n, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(n, 7)
			client.Close()
			up.Close()
		})
	}
}

// A handler of ours takes what has no params, in a message, a batch, and a POST.
func TestEmpty_isTaken(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typedrpc.NewMethod[struct{}, int]("call"), func(context.Context, struct{}) (int, error) { return 7, nil })
	url := serve(t, &typedrpc.Server{Mux: mux})
	const one = `{"jsonrpc":"2.0","id":1,"method":"call"}`
	_, text := post(t, url, "["+one+"]")
	is.Equal(text, `[{"jsonrpc":"2.0","id":1,"result":7}]`)
	p := dialRaw(t, url)
	p.send(one)
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"result":7}`)
}

// Nor has one that goes to a plain peer at its second attempt.
func TestEmpty_retriedElsewhere(t *testing.T) {
	call := typedrpc.NewMethod[struct{}, int]("call")
	around := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	retry := &typedrpc.RetryPolicy{MaxAttempts: 2, Codes: []typedrpc.Code{typedrpc.Unimplemented}}
	for name, do := range map[string]func(ctx context.Context, c typedrpc.Caller, in *typedrpc.Request) (int, error){
		"a call": func(ctx context.Context, c typedrpc.Caller, _ *typedrpc.Request) (int, error) {
			return typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Retry: retry}), call, struct{}{})
		},
		"a future": func(ctx context.Context, c typedrpc.Caller, _ *typedrpc.Request) (int, error) {
			return typedrpc.Go(ctx, c.With(typedrpc.CallOptions{Retry: retry}), call, struct{}{}).Await(ctx)
		},
		"an intercepted call": func(ctx context.Context, c typedrpc.Caller, _ *typedrpc.Request) (int, error) {
			return typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Retry: retry, Interceptors: []typedrpc.Interceptor{around}}), call, struct{}{})
		},
		"a forwarded call": func(ctx context.Context, c typedrpc.Caller, in *typedrpc.Request) (int, error) {
			raw, err := typedrpc.Forward(ctx, c.With(typedrpc.CallOptions{Retry: retry}), in)
			return len(raw), err
		},
	} {
		testkit.Bubble(t, name, func(t *testing.T, is *is.I) {
			foreign, plain, _ := lab.ForeignServer(t, &typedrpc.DialOptions{})
			other, _ := typedrpctest.Pair(t, &typedrpc.Server{}, &typedrpc.DialOptions{}) // which has no such method
			mux := typedrpc.NewMux()
			mux.HandleFallback(func(ctx context.Context, in *typedrpc.Request) (typedrpc.Raw, error) {
				attempts := 0
				_, err := do(ctx, typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
					if attempts++; attempts == 1 {
						return other, nil
					}
					return plain, nil
				}), in)
				return typedrpc.Raw("7"), err
			})
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{})
			f := typedrpc.Go(t.Context(), client, call, struct{}{})
			synctest.Wait()
			time.Sleep(time.Minute) // of the bubble's: the backoff
			is.Equal(foreign.Only(t), `{"jsonrpc":"2.0","id":1,"method":"call"}`)
			foreign.Send(`{"jsonrpc":"2.0","id":1,"result":7}`)
			_, err := f.Await(t.Context())
			is.NoErr(err)
			client.Close()
			other.Close()
			plain.Close()
		})
	}
}
