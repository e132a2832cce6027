package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

func TestServer_shutdownFinishesCalls(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		begun, release := make(chan struct{}), make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, func(_ context.Context, n int) (int, error) {
			close(begun)
			<-release
			return n, nil
		})
		srv := &typedrpc.Server{Mux: mux}
		client, server := o.connect(t, srv, nil)
		call := typedrpc.Go(t.Context(), client, ask, 9)
		<-begun
		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(t.Context()) }()
		// The server refuses to begin anything itself from some moment on.
		for {
			err := typedrpc.Notify(t.Context(), server, tell, 1)
			if errors.Is(err, typedrpc.Unavailable) {
				break
			}
			is.NoErr(err)
		}
		close(release)
		got, err := call.Await(t.Context())
		is.NoErr(err) // it was in flight, so it finished
		is.Equal(got, 9)
		is.NoErr(<-down)
		<-server.Done()
		is.True(errors.Is(server.Err(), typedrpc.Unavailable))
	})
}

func TestConn_shutdownOfClient(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		begun, release := make(chan struct{}), make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, func(_ context.Context, n int) (int, error) {
			close(begun)
			<-release
			return n, nil
		})
		client, server := o.connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		call := typedrpc.Go(t.Context(), server, ask, 9)
		<-begun
		down := make(chan error, 1)
		go func() { down <- client.Shutdown(t.Context()) }()
		for typedrpc.Notify(t.Context(), client, tell, 1) == nil {
		}
		close(release)
		got, err := call.Await(t.Context())
		is.NoErr(err)
		is.Equal(got, 9)
		is.NoErr(<-down)
		<-client.Done()
		is.Equal(client.State(), typedrpc.Closed)
		<-server.Done()
		is.Equal(server.State(), typedrpc.Closed)
	})
}

func TestConn_shutdownEndsWithContext(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		h := newHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, hang, h.handle)
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		call := typedrpc.Go(t.Context(), client, hang, typedrpc.Empty{})
		<-h.begun
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		is.Equal(client.Shutdown(ctx), context.DeadlineExceeded)
		_, err := call.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(<-h.ended, context.Canceled)
	})
}

func TestConn_closeInsideHandler(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		closing := func(ctx context.Context, n int) (int, error) {
			return n, typedrpc.ConnFrom(ctx).Close()
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, closing)
		client, server := o.connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		_, err := typedrpc.Call(t.Context(), server, ask, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		<-client.Done()
		<-server.Done()

		client, server = o.connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		_, err = typedrpc.Call(t.Context(), client, ask, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		<-server.Done()
	})
}

func TestConn_closeInsideNotification(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		ended := make(chan error, 1)
		typedrpc.HandleNotification(mux, tell, func(ctx context.Context, _ int) {
			typedrpc.ConnFrom(ctx).Close()
			ended <- ctx.Err()
		})
		client, server := o.connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		is.NoErr(typedrpc.Notify(t.Context(), server, tell, 1))
		is.Equal(<-ended, context.Canceled)
		<-client.Done()
		<-server.Done()
	})
}

func TestConn_callAfterClose(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		client, server := o.connect(t, &typedrpc.Server{}, nil)
		is.NoErr(client.Err())
		is.NoErr(client.Close())
		is.NoErr(client.Close()) // again
		_, err := typedrpc.Call(t.Context(), client, sum, pairOf{})
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(typedrpc.Notify(t.Context(), client, tell, 1), typedrpc.Unavailable))
		is.True(errors.Is(client.Err(), typedrpc.Unavailable))
		is.True(client.Context().Err() != nil)
		<-server.Done()
		_, err = typedrpc.Call(t.Context(), server, sum, pairOf{})
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
}

// A client whose Dial has returned is among the server's Conns: a Broadcast
// right after it once missed some.
func TestServer_connsAfterDial(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.JSONRPC, typedrpc.PlainJSONRPC} {
		is := is.New(t)
		srv := &typedrpc.Server{}
		for i := range 200 {
			over{dialect: d}.connect(t, srv, nil)
			is.Equal(len(slices.Collect(srv.Conns())), i+1)
		}
	}
}

func TestServer_connsAndHooks(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		connected := make(chan *typedrpc.Conn, 1)
		disconnected := make(chan error, 1)
		greeted := make(chan string, 1)
		var srv *typedrpc.Server
		srv = &typedrpc.Server{
			OnConnect: func(c *typedrpc.Conn) {
				s, err := typedrpc.Call(c.Context(), c, shout, "welcome") // may call at once
				greeted <- fmt.Sprint(s, err)
				connected <- c
			},
			OnDisconnect: func(c *typedrpc.Conn, err error) {
				disconnected <- fmt.Errorf("%v: %w", len(slices.Collect(srv.Conns())), err)
			},
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, shout, handleShout)
		client, server := o.connect(t, srv, &typedrpc.DialOptions{Mux: mux})
		is.Equal(<-greeted, "WELCOME<nil>")
		is.True(<-connected == server)
		is.Equal(len(slices.Collect(srv.Conns())), 1)
		client.Close()
		err := <-disconnected
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.True(strings.HasPrefix(err.Error(), "0: ")) // it is not listed any more
	})
}
