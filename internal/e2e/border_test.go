package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What crosses the border between the API and the layers below it, and must look
// to programs as if there were none.

var (
	borderCall = typedrpc.NewMethod[int, int]("border.call")
	borderBidi = typedrpc.NewBidiStream[int, int, int]("border.bidi")
	borderSign = typedrpc.NewSignIn[string, int]()
)

// Programs compare errors: what ended a connection is one value, wherever it is
// told.
func TestBorder_oneErrorForOneEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		gone, closed := make(chan error, 1), make(chan error, 1)
		srv := &typedrpc.Server{OnDisconnect: func(_ *typedrpc.Conn, err error) { gone <- err }}
		client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{OnState: func(s typedrpc.StateChange) {
			if s.State == typedrpc.StateClosed {
				closed <- s.Err
			}
		}})
		client.Close()
		is.True(client.Err() == client.Err())
		is.True(context.Cause(client.Context()) == client.Err())
		is.True(<-closed == client.Err())
		is.True(<-gone == server.Err())
		is.True(context.Cause(server.Context()) == server.Err())
		_, err := typedrpc.Call(t.Context(), client, borderCall, 1)
		is.True(errors.Is(err, client.Err()))
		is.Equal(testing.AllocsPerRun(10, func() { client.Err() }), 0.0)
	})
}

// A stream ends with one error, for who receives and for who sends.
func TestBorder_oneErrorForOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, borderBidi, func(context.Context, int, *typedrpc.Stream[int, int]) error {
			return typedrpc.Errorf(typedrpc.NotFound, "nope")
		})
		client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
		s, err := typedrpc.Open(t.Context(), client, borderBidi, 1)
		is.NoErr(err)
		_, first := s.Recv()
		_, second := s.Recv()
		is.Equal(typedrpc.CodeOf(first), typedrpc.NotFound)
		is.True(first == second)
		is.True(first == s.Send(1))
	})
}

// MapError may set reply metadata, as the handler may.
func TestBorder_replyOfMapError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, borderCall, func(context.Context, int) (int, error) { return 0, errors.New("boom") })
		client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux, MapError: func(ctx context.Context, _ error) *typedrpc.Error {
			typedrpc.RequestFrom(ctx).ReplyMetadata.Set("error-id", "42")
			return typedrpc.Errorf(typedrpc.Internal, "see error-id")
		}}, nil)
		var reply typedrpc.Metadata
		_, err := typedrpc.Call(t.Context(), client.With(typedrpc.CallOptions{ReplyMetadata: &reply}), borderCall, 1)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		is.Equal(reply["error-id"], "42")
	})
}

// When its context says that a connection is over, its calls have ended.
func TestBorder_callsEndBeforeTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var down atomic.Bool
		srv := &typedrpc.Server{SignIn: borderSign.Verify(func(context.Context, *http.Request, *string) (typedrpc.Identity, int, error) {
			if down.Load() {
				return typedrpc.Identity{}, 0, typedrpc.Unavailable
			}
			return typedrpc.Identity{}, 0, nil
		})}
		waiting := make(chan struct{}, 16)
		client, _ := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{
			Backoff: typedrpc.Backoff{Min: time.Minute, Max: time.Minute},
			OnState: func(s typedrpc.StateChange) {
				if s.State == typedrpc.StateWaiting {
					waiting <- struct{}{}
				}
			},
		})
		down.Store(true)
		client.Reconnect()
		<-waiting
		futures := make([]*typedrpc.Future[int], 2000)
		for i := range futures {
			futures[i] = typedrpc.Go(t.Context(), client, borderCall, i)
		}
		go client.Close()
		<-client.Context().Done()
		early := 0
		for _, f := range futures {
			select {
			case <-f.Done():
			default:
				early++
			}
		}
		is.Equal(early, 0)
	})
}

// OnState is told while the first handshake chooses the codec: for the race
// detector.
func TestBorder_statesOfTheFirstHandshake(t *testing.T) {
	hs := httptest.NewServer(&typedrpc.Server{})
	defer hs.Close()
	for range 20 {
		c, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{OnState: func(typedrpc.StateChange) {}})
		is.New(t).NoErr(err)
		c.Close()
	}
}

// An interceptor's OnItem looks on whenever it was set.
func TestBorder_onItemSetLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		gate := make(chan struct{})
		typedrpc.Handle(mux, borderBidi, func(_ context.Context, _ int, s *typedrpc.Stream[int, int]) error {
			<-gate
			for i := range 3 {
				if err := s.Send(i); err != nil {
					return err
				}
			}
			return nil
		})
		var saw atomic.Int64
		var request *typedrpc.Request
		client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{
			OutgoingInterceptors: []typedrpc.Interceptor{func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				request = r
				return next(ctx, r)
			}},
		})
		s, err := typedrpc.Open(t.Context(), client, borderBidi, 1)
		is.NoErr(err)
		synctest.Wait()
		request.OnItem(func(typedrpc.Raw, bool) error { saw.Add(1); return nil })
		close(gate)
		for _, err := range s.All() {
			is.NoErr(err)
		}
		is.Equal(saw.Load(), int64(3))
	})
}

// Before the first request a server may be asked for its connections, and told its
// handlers.
func TestBorder_connsBeforeTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		srv := &typedrpc.Server{}
		for range srv.Conns() {
			t.Error("nobody has connected")
		}
		srv.Mux = typedrpc.NewMux()
		typedrpc.Handle(srv.Mux, borderCall, func(_ context.Context, n int) (int, error) { return n, nil })
		client, _ := typedrpctest.Pair(t, srv, nil)
		n, err := typedrpc.Call(t.Context(), client, borderCall, 7)
		is.NoErr(err)
		is.Equal(n, 7)
	})
}

// A program's credentials may come from an HTTP server that refuses them for good.
func TestBorder_refusedWhileGettingCredentials(t *testing.T) {
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer hs.Close()
	srv := httptest.NewServer(&typedrpc.Server{})
	defer srv.Close()
	is := is.New(t)
	asked := 0
	c, err := typedrpc.Dial(t.Context(), srv.URL, &typedrpc.DialOptions{
		Backoff: typedrpc.Backoff{Min: time.Nanosecond, Max: time.Nanosecond},
		SignIn: borderSign.Present(func(ctx context.Context) (string, error) {
			if asked++; asked == 1 {
				return "", nil
			}
			_, err := typedrpc.Dial(ctx, hs.URL, nil)
			return "", err
		}),
	})
	is.NoErr(err)
	c.Reconnect()
	<-c.Context().Done() // it stays away
	var u *typedrpc.UpgradeError
	is.True(errors.As(c.Err(), &u))
	is.Equal(u.Status, http.StatusUnauthorized)
}
