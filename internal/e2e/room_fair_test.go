package e2e_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
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

// fairHost is a server behind a line of a mebibyte in a second, and a client of it.
func fairHost(t *testing.T, d typedrpc.Dialect, mux, cmux *typedrpc.Mux, server, client typedrpc.Limits) *typedrpc.Conn {
	path := typedrpctest.Conditions{Latency: time.Millisecond, Bandwidth: 1 << 20, Buffer: 16 << 10}
	n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: path, Down: path})
	t.Cleanup(func() { n.Close() })
	quiet := slog.New(slog.DiscardHandler)
	srv := &typedrpc.Server{Mux: mux, Logger: quiet, Limits: server}
	h := n.Host("fair")
	h.Serve(http.HandlerFunc(srv.ServeHTTP))
	c, err := typedrpc.Dial(t.Context(), h.URL(), &typedrpc.DialOptions{Dialect: d, Mux: cmux, HTTPClient: n.HTTPClient(), Logger: quiet, Limits: client})
	is.New(t).NoErr(err)
	t.Cleanup(func() { c.Close() })
	return c
}

// Replies, items and notifications that wait for room in what may wait for the socket have one
// line: a large one is not passed for ever by small ones of another kind.
func TestOutgoing_largeAmongOthers(t *testing.T) {
	text := typedrpc.NewMethod[int, string]("text")
	flood := typedrpc.NewServerStream[int, string]("flood")
	news := typedrpc.NewNotification[string]("news")
	tell := typedrpc.NewMethod[int, struct{}]("tell", typedrpc.Timeout(time.Minute))
	some := strings.Repeat("s", 8000)
	floods := map[string]func(ctx context.Context, c *typedrpc.Conn){
		"items": func(ctx context.Context, c *typedrpc.Conn) {
			for range typedrpc.Receive(ctx, c, flood, 0) {
			}
		},
		"notifications": func(ctx context.Context, c *typedrpc.Conn) { typedrpc.Call(ctx, c, tell, 0) },
		"replies": func(ctx context.Context, c *typedrpc.Conn) {
			for ctx.Err() == nil {
				typedrpc.Call(ctx, c, text, 8000)
			}
		},
	}
	large := map[string]func(is *is.I, c *typedrpc.Conn){
		"a small reply": func(is *is.I, c *typedrpc.Conn) {
			_, err := typedrpc.Call(context.Background(), c, text, 1)
			is.NoErr(err)
		},
		"a reply": func(is *is.I, c *typedrpc.Conn) {
			_, err := typedrpc.Call(context.Background(), c, text, 400<<10)
			is.NoErr(err)
		},
		"an item": func(is *is.I, c *typedrpc.Conn) {
			for s, err := range typedrpc.Receive(context.Background(), c, flood, 400<<10) {
				is.NoErr(err)
				is.Equal(len(s), 400<<10)
				break
			}
		},
		"a notification": func(is *is.I, c *typedrpc.Conn) {
			_, err := typedrpc.Call(context.Background(), c, tell, 400<<10)
			is.NoErr(err)
		},
	}
	crowd := func(of string) int {
		if of == "items" {
			return 20 // streams share the line: of what has left each has its part
		}
		return 100
	}
	for among, others := range floods {
		for what, one := range large {
			t.Run(what+" among "+among, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					mux, cmux := typedrpc.NewMux(), typedrpc.NewMux()
					typedrpc.Handle(mux, text, func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
					typedrpc.Handle(mux, flood, func(ctx context.Context, n int, send func(string) error) error {
						if n > 0 {
							return send(strings.Repeat("y", n))
						}
						for ctx.Err() == nil {
							send(some)
						}
						return nil
					})
					typedrpc.Handle(mux, tell, func(ctx context.Context, n int) (struct{}, error) {
						if n > 0 {
							return struct{}{}, typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), news, strings.Repeat("z", n))
						}
						for ctx.Err() == nil {
							typedrpc.Notify(ctx, typedrpc.ConnFrom(ctx), news, some)
						}
						return struct{}{}, nil
					})
					typedrpc.Handle(cmux, news, func(context.Context, string) error { return nil })
					roomy := typedrpc.Limits{Window: 64 << 20, MaxBuffered: 256 << 20}
					c := fairHost(t, typedrpc.Binary, mux, cmux, typedrpc.Limits{MaxBuffered: 512 << 10, MaxUnacked: 128 << 10}, roomy)
					ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // what starves goes then
					var wg sync.WaitGroup
					defer wg.Wait()
					defer cancel()
					for range crowd(among) {
						wg.Go(func() { others(ctx, c) })
					}
					time.Sleep(time.Second)
					began := time.Now()
					one(is, c)
					is.True(time.Since(began) < 15*time.Second) // half a megabyte, and what waited
				})
			})
		}
	}
}

// Streams that send what a peer's budget has no room for have it in turn.
func TestBudget_streamsHaveTheirShare(t *testing.T) {
	flood := typedrpc.NewServerStream[int, string]("flood")
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		some := strings.Repeat("s", 8000)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, flood, func(ctx context.Context, n int, send func(string) error) error {
			for ctx.Err() == nil {
				send(some)
			}
			return nil
		})
		path := typedrpctest.Conditions{Latency: time.Millisecond}
		n := typedrpctest.NewNetwork(&typedrpctest.NetworkOptions{Up: path, Down: path})
		defer n.Close()
		quiet := slog.New(slog.DiscardHandler)
		srv := &typedrpc.Server{Mux: mux, Logger: quiet}
		h := n.Host("fair")
		h.Serve(http.HandlerFunc(srv.ServeHTTP))
		c, err := typedrpc.Dial(t.Context(), h.URL(), &typedrpc.DialOptions{Dialect: d, HTTPClient: n.HTTPClient(), Logger: quiet,
			Limits: typedrpc.Limits{Window: 256 << 10, MaxBuffered: 256 << 10}})
		is.NoErr(err)
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		got := make([]int, 60)
		for i := range got {
			wg.Go(func() {
				for _, err := range typedrpc.Receive(ctx, c, flood, 0) {
					if err != nil {
						return
					}
					got[i]++
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		slices.Sort(got)
		is.True(got[0] > got[len(got)-1]/2)
	})
}
