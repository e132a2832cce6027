package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What was sent before Close arrives before the goodbye.
func TestConn_closeFlushes(t *testing.T) {
	is := is.New(t)
	received := make(chan int)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if c, err := websocket.Accept(w, r, nil); err == nil {
			for err == nil {
				if _, _, err = c.Read(r.Context()); err == nil {
					n++
				}
			}
			if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				n = -1
			}
		}
		received <- n
	}))
	defer hs.Close()
	client, err := typedrpc.Dial(t.Context(), hs.URL, &typedrpc.DialOptions{Dialect: typedrpc.JSONRPC})
	is.NoErr(err)
	const n = 500
	for i := range n {
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, i))
	}
	client.Close()
	is.Equal(<-received, n)
}

func TestServer_shutdownFinishesCalls(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		begun, release := make(chan struct{}), make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
			close(begun)
			<-release
			return n, nil
		})
		srv := &typedrpc.Server{Mux: mux}
		client, server := o.Connect(t, srv, nil)
		call := typedrpc.Go(t.Context(), client, lab.Ask, 9)
		<-begun
		down := make(chan error, 1)
		go func() { down <- srv.Shutdown(t.Context()) }()
		// The server refuses to begin anything itself from some moment on.
		for {
			err := typedrpc.Notify(t.Context(), server, lab.Tell, 1)
			if errors.Is(err, typedrpc.Unavailable) {
				break
			}
			is.NoErr(err)
			time.Sleep(time.Millisecond) // plain peers have no window that would slow this down
		}
		close(release)
		got, err := call.Await(t.Context())
		is.NoErr(err) // it was in flight, so it finished
		is.Equal(got, 9)
		is.NoErr(<-down)
		<-server.Context().Done()
		is.True(errors.Is(server.Err(), typedrpc.Unavailable))
	})
}

func TestConn_shutdownOfClient(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		begun, release := make(chan struct{}), make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
			close(begun)
			<-release
			return n, nil
		})
		client, server := o.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		call := typedrpc.Go(t.Context(), server, lab.Ask, 9)
		<-begun
		down := make(chan error, 1)
		go func() { down <- client.Shutdown(t.Context()) }()
		for typedrpc.Notify(t.Context(), client, lab.Tell, 1) == nil {
			time.Sleep(time.Millisecond)
		}
		close(release)
		got, err := call.Await(t.Context())
		is.NoErr(err)
		is.Equal(got, 9)
		is.NoErr(<-down)
		<-client.Context().Done()
		is.Equal(client.State(), typedrpc.StateClosed)
		<-server.Context().Done()
		is.Equal(server.State(), typedrpc.StateClosed)
	})
}

func TestConn_shutdownEndsWithContext(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, h.Handle)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		call := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-h.Begun
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		is.Equal(client.Shutdown(ctx), context.DeadlineExceeded)
		_, err := call.Await(t.Context())
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(<-h.Ended, context.Canceled)
	})
}

func TestConn_closeInsideHandler(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		closing := func(ctx context.Context, n int) (int, error) {
			return n, typedrpc.ConnFrom(ctx).Close()
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, closing)
		client, server := o.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		_, err := typedrpc.Call(t.Context(), server, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		<-client.Context().Done()
		<-server.Context().Done()

		client, server = o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Backoff: typedrpc.Backoff{Min: time.Hour, Max: time.Hour}})
		_, err = typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.True(errors.Is(err, typedrpc.Unavailable))
		<-server.Context().Done()
	})
}

func TestConn_closeInsideNotification(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		ended := make(chan error, 1)
		typedrpc.Handle(mux, lab.Tell, func(ctx context.Context, _ int) error {
			typedrpc.ConnFrom(ctx).Close()
			ended <- ctx.Err()
			return nil
		})
		client, server := o.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		is.NoErr(typedrpc.Notify(t.Context(), server, lab.Tell, 1))
		is.Equal(<-ended, context.Canceled)
		<-client.Context().Done()
		<-server.Context().Done()
	})
}

func TestConn_callAfterClose(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		client, server := o.Connect(t, &typedrpc.Server{}, nil)
		is.NoErr(client.Err())
		is.NoErr(client.Close())
		is.NoErr(client.Close()) // again
		_, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(typedrpc.Notify(t.Context(), client, lab.Tell, 1), typedrpc.Unavailable))
		is.True(errors.Is(client.Err(), typedrpc.Unavailable))
		is.True(client.Context().Err() != nil)
		<-server.Context().Done()
		_, err = typedrpc.Call(t.Context(), server, lab.Sum, lab.Pair{})
		is.True(errors.Is(err, typedrpc.Unavailable))
	})
}

// A client whose Dial has returned is among the server's Conns: a Broadcast
// right after it once missed some.
func TestServer_connsAfterDial(t *testing.T) {
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		is := is.New(t)
		srv := &typedrpc.Server{}
		for i := range 200 {
			lab.Over{Dialect: d}.Connect(t, srv, nil)
			is.Equal(len(slices.Collect(srv.Conns())), i+1)
		}
	}
}

func TestServer_connsAndHooks(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		connected := make(chan *typedrpc.Conn, 1)
		disconnected := make(chan error, 1)
		greeted := make(chan string, 1)
		var srv *typedrpc.Server
		srv = &typedrpc.Server{
			OnConnect: func(c *typedrpc.Conn) {
				s, err := typedrpc.Call(c.Context(), c, lab.Shout, "welcome") // may call at once
				greeted <- fmt.Sprint(s, err)
				connected <- c
			},
			OnDisconnect: func(c *typedrpc.Conn, err error) {
				disconnected <- fmt.Errorf("%v: %w", len(slices.Collect(srv.Conns())), err)
			},
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Shout, lab.HandleShout)
		client, server := o.Connect(t, srv, &typedrpc.DialOptions{Mux: mux})
		is.Equal(<-greeted, "WELCOME<nil>")
		is.True(<-connected == server)
		is.Equal(len(slices.Collect(srv.Conns())), 1)
		client.Close()
		err := <-disconnected
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.True(strings.HasPrefix(err.Error(), "0: ")) // it is not listed any more
	})
}

// Idle links held the buffer of their last message, however large.
func TestConn_idleHoldsNoLargeBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		upload := typedrpc.NewMethod[string, struct{}]("upload")
		l := lab.New()
		typedrpc.Handle(l.Mux, upload, func(context.Context, string) (struct{}, error) { return struct{}{}, nil })
		heap := func() int64 {
			time.Sleep(10 * time.Second) // writers rest
			synctest.Wait()
			runtime.GC() // twice: what is pooled survives one
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		conns := make([]*typedrpc.Conn, 100)
		for i := range conns {
			c, _, err := typedrpctest.Dial(l.Server, nil)
			is.NoErr(err)
			conns[i] = c
		}
		before := heap()
		body := strings.Repeat("x", 100<<10)
		for _, c := range conns {
			_, err := typedrpc.Call(t.Context(), c, upload, body)
			is.NoErr(err)
		}
		for _, c := range conns { // a second, small one: the reader has begun anew
			_, err := typedrpc.Call(t.Context(), c, upload, "")
			is.NoErr(err)
		}
		is.True(heap()-before < int64(len(conns))*20<<10)
		for _, c := range conns {
			is.NoErr(c.Close())
		}
	})
}
