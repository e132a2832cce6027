package e2e_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Goroutines that send on one stream take turns: a large item is not passed for ever by
// small ones.
func TestStream_largeItemAmongSmall(t *testing.T) {
	flood := func(is *is.I, send func(string) error) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // a large item that starves goes then
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				for ctx.Err() == nil {
					is.NoErr(send(strings.Repeat("x", 8000)))
				}
			})
		}
		time.Sleep(time.Second)
		for _, n := range []int{30 << 10, 60 << 10, 200 << 10} { // the last is more than the window
			began := time.Now()
			is.NoErr(send(strings.Repeat("y", n)))
			is.True(time.Since(began) < 2*time.Second) // some 300 went before
		}
		cancel()
		wg.Wait()
	}
	receive := func(s *typedrpc.Stream[string, string]) (err error) {
		for err == nil {
			_, err = s.Recv()
			time.Sleep(time.Millisecond)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		for _, up := range []bool{true, false} {
			is := is.New(t)
			mux := lab.Bidi(func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
				if up {
					return receive(s)
				}
				flood(is, s.Send)
				return nil
			})
			c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
			stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
			is.NoErr(err)
			if up {
				flood(is, stream.Send)
				stream.CloseSend()
			}
			is.NoErr(receive(stream))
			lab.Settled(t, c, s)
		}
	})
}

// A large reply that waits for room in what may wait for the socket is not passed for ever by small
// ones: they leave it room.
func TestReply_largeAmongSmall(t *testing.T) {
	text := typedrpc.NewMethod[int, string]("text")
	for _, d := range []typedrpc.Dialect{typedrpc.Binary} { // what waits is the same in both
		synctest.Test(t, func(t *testing.T) {
			is := is.New(t)
			path := typedrpctest.Conditions{Latency: time.Millisecond, Bandwidth: 1 << 20, Buffer: 16 << 10}
			n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: path, Down: path})
			defer n.Close()
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, text, func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
			quiet := slog.New(slog.DiscardHandler)
			srv := &typedrpc.Server{Mux: mux, Logger: quiet, Limits: typedrpc.Limits{MaxBuffered: 1 << 20, MaxUnacked: 256 << 10}}
			h := n.Host("fair")
			h.Serve(http.HandlerFunc(srv.ServeHTTP))
			c, err := typedrpc.Dial(t.Context(), h.URL(), &typedrpc.DialOptions{Dialect: d, HTTPClient: n.HTTPClient(), Logger: quiet})
			is.NoErr(err)
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second) // what starves goes then
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			for range 400 {
				wg.Go(func() {
					for ctx.Err() == nil {
						typedrpc.Call(ctx, c, text, 8000)
					}
				})
			}
			time.Sleep(time.Second)
			began := time.Now()
			_, err = typedrpc.Call(t.Context(), c, text, 800<<10)
			is.NoErr(err)
			is.True(time.Since(began) < 15*time.Second)
		})
	}
}

// Who has waited for room, and leaves without having sent, holds up nobody any more: those who
// have room now go, although the line stands still.
func TestOutgoing_largeOneLeaves(t *testing.T) {
	text := typedrpc.NewMethod[int, string]("text")
	news := typedrpc.NewNotification[string]("news")
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		for _, what := range []string{"item", "notification"} {
			is := is.New(t)
			path := typedrpctest.Conditions{Buffer: 4 << 10}
			n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: path, Down: path})
			var s *typedrpc.Conn
			hold := make(chan struct{})
			sent := make(chan error, 1)
			mux := lab.Bidi(func(_ context.Context, _ string, x *typedrpc.Stream[string, string]) error {
				x.Recv()
				sent <- x.Send(strings.Repeat("i", 250<<10))
				<-hold // what follows is not the work of its end
				return nil
			})
			typedrpc.Handle(mux, text, func(ctx context.Context, n int) (string, error) {
				s = typedrpc.ConnFrom(ctx)
				return strings.Repeat("x", n), nil
			})
			cmux := typedrpc.NewMux()
			typedrpc.Handle(cmux, news, func(context.Context, string) error { return nil })
			quiet := slog.New(slog.DiscardHandler)
			srv := &typedrpc.Server{Mux: mux, Logger: quiet, Limits: typedrpc.Limits{MaxBuffered: 256 << 10}}
			h := n.Host("left")
			h.Serve(http.HandlerFunc(srv.ServeHTTP))
			c, err := typedrpc.Dial(t.Context(), h.URL(), &typedrpc.DialOptions{Dialect: d, Mux: cmux, HTTPClient: n.HTTPClient(), Logger: quiet,
				Limits: typedrpc.Limits{Window: 1 << 20}})
			is.NoErr(err)
			_, err = typedrpc.Call(t.Context(), c, text, 1)
			is.NoErr(err)
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := typedrpc.Open(ctx, c, lab.FlowBoth, "")
			is.NoErr(err)
			synctest.Wait()

			path.Stall = true
			n.Set(typedrpctest.Down, path)
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { typedrpc.Call(t.Context(), c, text, 30<<10) })
				synctest.Wait()
			}
			if what == "item" {
				is.NoErr(stream.Send("go on"))
			} else {
				go func() { sent <- typedrpc.Notify(ctx, s, news, strings.Repeat("n", 250<<10)) }()
			}
			synctest.Wait()
			small := make(chan error, 1)
			go func() { small <- typedrpc.Notify(t.Context(), s, news, strings.Repeat("n", 5<<10)) }()
			if what == "item" { // it leaves room for the large one
				synctest.Wait()
				is.Equal(len(small), 0)
			}
			cancel()
			is.True(<-sent != nil)
			synctest.Wait()
			is.Equal(len(small), 1)

			path.Stall = false
			n.Set(typedrpctest.Down, path)
			wg.Wait()
			is.NoErr(<-small)
			close(hold)
			c.Close()
			n.Close()
		}
	})
}

// Whoever waits in the line of a stream is told what has ended it, and what ended first.
func TestStream_sendersThatWaitAreAllTold(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		for _, first := range []string{"cancel", "close", "returns", "fails"} {
			is := is.New(t)
			hold := make(chan error, 1)
			mux := lab.Bidi(func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
				return <-hold
			})
			c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := typedrpc.Open(ctx, c, lab.FlowBoth, "")
			is.NoErr(err)
			var wg sync.WaitGroup
			errs := make(chan error, 100)
			for range 100 {
				wg.Go(func() {
					for {
						if err := stream.Send(strings.Repeat("x", 8000)); err != nil {
							errs <- err
							return
						}
					}
				})
			}
			synctest.Wait()
			is.Equal(len(errs), 0)
			want := typedrpc.Canceled
			switch first {
			case "cancel":
				cancel()
				c.Close()
			case "close":
				want = typedrpc.Unavailable
				c.Close()
			case "returns":
				want = typedrpc.FailedPrecondition
				hold <- nil
			case "fails":
				want = typedrpc.Aborted
				hold <- typedrpc.Errorf(typedrpc.Aborted, "no")
			}
			wg.Wait()
			for range 100 {
				if err := <-errs; !errors.Is(err, want) {
					t.Errorf("%s: %v", first, err)
					break
				}
			}
			close(hold)
			cancel()
			synctest.Wait()
			c.Close()
			lab.Settled(t, c, s)
		}
	})
}

// A handler's senders leave the line at once, wherever they stand in it, and so may whoever comes later.
func TestStream_handlersSendersLeaveTheLine(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		errs := make(chan error, 101)
		mux := lab.Bidi(func(ctx context.Context, _ string, s *typedrpc.Stream[string, string]) error {
			var wg sync.WaitGroup
			send := func() {
				for {
					if err := s.Send(strings.Repeat("x", 8000)); err != nil {
						errs <- err
						return
					}
				}
			}
			for range 100 {
				wg.Go(send)
			}
			wg.Wait()
			send()
			return ctx.Err()
		})
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		_, err := typedrpc.Open(ctx, c, lab.FlowBoth, "")
		is.NoErr(err)
		synctest.Wait()
		is.Equal(len(errs), 0)
		cancel()
		synctest.Wait()
		is.Equal(len(errs), 101)
		for range 101 {
			is.True(errors.Is(<-errs, typedrpc.Canceled))
		}
		lab.Settled(t, c, s)
	})
}
