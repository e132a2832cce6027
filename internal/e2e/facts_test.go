package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

type (
	role string
	cost int
)

// Tags are read by interceptors on both sides, of every kind of declaration.
func TestTag(t *testing.T) {
	is := is.New(t)
	admin := typedrpc.Tag(role("admin"))
	reset := typedrpc.NewMethod[struct{}, struct{}]("reset", admin, typedrpc.Tag(cost(3)), typedrpc.Tag(cost(5)))
	count := typedrpc.NewServerStream[int, int]("count", admin)
	tell := typedrpc.NewNotification[int]("tell", typedrpc.Tag(cost(1)))
	var seen []string
	look := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		who, tagged := typedrpc.TagOf[role](r)
		price, _ := typedrpc.TagOf[cost](r)
		_, text := typedrpc.TagOf[string](r)
		seen = append(seen, fmt.Sprintf("%v %s %s %v %d %v", r.Outgoing, r.Method, who, tagged, price, text))
		return next(ctx, r)
	}
	told := make(chan int, 1)
	mux := typedrpc.NewMux(look)
	typedrpc.Handle(mux, reset, func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })
	typedrpc.Handle(mux, count, func(_ context.Context, _ int, send func(int) error) error { return send(1) })
	typedrpc.Handle(mux, tell, func(_ context.Context, n int) error { told <- n; return nil })
	mux.HandleFallback(func(context.Context, *typedrpc.Request) (typedrpc.Raw, error) { return nil, typedrpc.Unimplemented })
	c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
	_, err := typedrpc.Call(t.Context(), c, reset, struct{}{})
	is.NoErr(err)
	for _, err := range typedrpc.Receive(t.Context(), c, count, 0) {
		is.NoErr(err)
	}
	is.NoErr(typedrpc.Notify(t.Context(), c, tell, 1))
	<-told
	_, err = typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{look}}), lab.Ask, 1)
	is.True(errors.Is(err, typedrpc.Unimplemented))
	is.Equal(seen, []string{
		"false reset admin true 5 false", "false count admin true 0 false", "false tell  false 1 false",
		"true ask  false 0 false", "false ask  false 0 false",
	})
	_, ok := typedrpc.TagOf[int](nil)
	is.True(!ok)
}

// RemoteAddr is the request's, of a connection and of a POST.
func TestConn_remoteAddr(t *testing.T) {
	is := is.New(t)
	where := typedrpc.NewMethod[struct{}, string]("where")
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, where, func(ctx context.Context, _ struct{}) (string, error) {
		return typedrpc.ConnFrom(ctx).RemoteAddr(), nil
	})
	srv := &typedrpc.Server{Mux: mux}
	c, s := typedrpctest.Pair(t, srv, nil)
	addr, err := typedrpc.Call(t.Context(), c, where, struct{}{})
	is.NoErr(err)
	is.Equal(addr, "pipe")
	is.Equal(s.RemoteAddr(), "pipe")
	is.Equal(c.RemoteAddr(), "")

	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"where"}`))
	r.Header.Set("Content-Type", "application/json")
	r.RemoteAddr = "192.0.2.7:4711"
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	is.True(strings.Contains(w.Body.String(), `"192.0.2.7:4711"`))
}

// A broadcast brings the metadata of its callers, whether they are behind or not,
// and an interceptor's panic is one failed notification.
func TestBroadcast_callers(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		type note struct{ lang string }
		got := make(chan note, 4)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(ctx context.Context, _ int) error {
			got <- note{typedrpc.RequestFrom(ctx).Metadata["lang"]}
			return nil
		})
		var log lab.Logs
		srv := &typedrpc.Server{Logger: log.Logger()}
		_, s := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Mux: mux, Dialect: d})
		panics := typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
			panic("no")
		}}}
		callers := []typedrpc.Caller{
			s.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"lang": "de"}}),
			s,
			s.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"large": strings.Repeat("x", 1<<20)}}),
			s.With(panics),
		}
		err := typedrpc.Broadcast(t.Context(), func(yield func(typedrpc.Caller) bool) {
			for _, c := range callers {
				if !yield(c) {
					return
				}
			}
		}, lab.Tell, 7)
		is.Equal(<-got, note{"de"})
		is.Equal(<-got, note{""})
		is.True(errors.Is(err, typedrpc.InvalidArgument)) // the metadata
		is.True(errors.Is(err, typedrpc.Internal))        // the interceptor
		is.True(log.Has("interceptor panicked"))
	})
}

// OnRetry is told of each attempt but the first; its panic ends the call.
func TestRetry_onRetry(t *testing.T) {
	is := is.New(t)
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
		return 0, typedrpc.Errorf(typedrpc.Unavailable, "not yet %d", n)
	})
	var log lab.Logs
	again := typedrpc.NewMethod[int, int]("ask", typedrpc.Idempotent)
	c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Logger: log.Logger()})
	var told []string
	policy := typedrpc.RetryPolicy{MaxAttempts: 3, Backoff: typedrpc.Backoff{Min: 1, Max: 1}}
	policy.OnRetry = func(ctx context.Context, method string, failed int, err error) {
		is.NoErr(ctx.Err())
		told = append(told, fmt.Sprint(method, " ", failed, " ", err))
	}
	_, err := typedrpc.Call(t.Context(), c.With(typedrpc.CallOptions{Retry: &policy}), again, 1)
	is.True(errors.Is(err, typedrpc.Unavailable))
	is.Equal(told, []string{"ask 1 unavailable: not yet 1", "ask 2 unavailable: not yet 1"})

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	policy.OnRetry = func(context.Context, string, int, error) { panic("no") }
	_, err = typedrpc.Call(ctx, c.With(typedrpc.CallOptions{Retry: &policy}), again, 1)
	is.True(errors.Is(err, typedrpc.Internal))
	is.True(log.Has("retrying a call panicked"))
}
