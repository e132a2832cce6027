package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	stopCall   = typedrpc.NewMethod[string, string]("stop.call")
	stopInline = typedrpc.NewMethod[string, string]("stop.inline", typedrpc.Inline)
	stopKeyed  = typedrpc.NewMethod[string, string]("stop.keyed", typedrpc.Keyed)
	stopNote   = typedrpc.NewNotification[string]("stop.note")
	stopStream = typedrpc.NewServerStream[string, int]("stop.stream")
)

// stoppable is a server whose handlers shut it down, or their connection.
func stoppable(failed func(error)) *typedrpc.Server {
	srv := &typedrpc.Server{Mux: typedrpc.NewMux()}
	stop := func(ctx context.Context, what string) (string, error) {
		if what == "server" {
			failed(srv.Shutdown(ctx))
		} else {
			failed(typedrpc.ConnFrom(ctx).Shutdown(ctx))
		}
		return what, nil
	}
	for _, m := range []typedrpc.Method[string, string]{stopCall, stopInline, stopKeyed} {
		typedrpc.Handle(srv.Mux, m, stop)
	}
	typedrpc.Handle(srv.Mux, stopNote, func(ctx context.Context, what string) error { stop(ctx, what); return nil })
	typedrpc.Handle(srv.Mux, stopStream, func(ctx context.Context, what string, send func(int) error) error {
		stop(ctx, what)
		return send(1)
	})
	return srv
}

// A handler that shuts down what it is waited for by is told so at once, and nothing ends.
func TestShutdown_byItsOwnHandler(t *testing.T) {
	everyway(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		began := time.Now()
		var failed []error
		srv := stoppable(func(err error) { failed = append(failed, err) })
		client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Dialect: d})
		ctx := t.Context()
		for _, what := range []string{"conn", "server"} {
			for _, m := range []typedrpc.Method[string, string]{stopCall, stopInline, stopKeyed} {
				got, err := typedrpc.Call(ctx, client, m, what)
				is.NoErr(err)
				is.Equal(got, what)
			}
			is.NoErr(typedrpc.Notify(ctx, client, stopNote, what))
			synctest.Wait()
			if d != typedrpc.JSONRPC {
				for n, err := range typedrpc.Receive(ctx, client, stopStream, what) {
					is.NoErr(err)
					is.Equal(n, 1)
				}
			}
		}
		w := httptest.NewRecorder()
		post := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"stop.call","params":["server"]}`))
		post.Header.Set("Content-Type", "application/json")
		srv.ServeHTTP(w, post)
		is.Equal(w.Body.String(), `{"jsonrpc":"2.0","id":1,"result":"server"}`)
		is.True(len(failed) >= 9)
		for _, err := range failed {
			is.True(errors.Is(err, typedrpc.FailedPrecondition))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		}
		is.Equal(server.State(), typedrpc.StateConnected)
		is.Equal(time.Since(began), time.Duration(0)) // nobody waited
		is.NoErr(srv.Shutdown(ctx))
	})
}

// Another server's, a context that is not the handler's, and AfterReply's are no such thing.
func TestShutdown_byAnothersHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		other := &typedrpc.Server{Mux: typedrpc.NewMux()}
		_, there := typedrpctest.Pair(t, other, nil)
		srv := &typedrpc.Server{Mux: typedrpc.NewMux()}
		over := make(chan error, 1)
		typedrpc.Handle(srv.Mux, stopCall, func(ctx context.Context, what string) (string, error) {
			is.NoErr(other.Shutdown(ctx))
			is.Equal(there.State(), typedrpc.StateClosed)
			typedrpc.RequestFrom(ctx).AfterReply = func(ctx context.Context, err error) {
				is.NoErr(err)
				over <- srv.Shutdown(context.WithoutCancel(ctx))
			}
			return what, nil
		})
		client, _ := typedrpctest.Pair(t, srv, nil)
		got, err := typedrpc.Call(t.Context(), client, stopCall, "all")
		is.NoErr(err) // answered, and then shut down
		is.Equal(got, "all")
		is.NoErr(<-over)
	})
}
