package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var (
	placeDown = typedrpc.NewServerStream[int, int]("place.down")
	placeUp   = typedrpc.NewClientStream[int, int, int]("place.up")
	placeBoth = typedrpc.NewBidiStream[int, int, int]("place.both")
	placeNews = topic.New[string]("place.news")
)

// placesMux answers calls at once, and streams when they are cancelled.
func placesMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, lab.Ordered, func(_ context.Context, n int) (int, error) { return n, nil })
	typedrpc.Handle(mux, lab.Stay, func(ctx context.Context, _ struct{}) (struct{}, error) {
		<-ctx.Done()
		return struct{}{}, ctx.Err()
	})
	typedrpc.Handle(mux, placeDown, func(ctx context.Context, _ int, _ func(int) error) error {
		<-ctx.Done()
		return ctx.Err()
	})
	typedrpc.Handle(mux, placeUp, func(ctx context.Context, _ int, _ iter.Seq2[int, error]) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	typedrpc.Handle(mux, placeBoth, func(ctx context.Context, _ int, _ *typedrpc.Stream[int, int]) error {
		<-ctx.Done()
		return ctx.Err()
	})
	topic.Handle(mux, new(topic.Hub), placeNews, topic.Everybody)
	return mux
}

// crowd begins streams of all kinds until n are there, and returns what ends one.
func crowd(t *testing.T, c *typedrpc.Conn, n int) (endOne func(), endAll func()) {
	t.Helper()
	all, endAll := context.WithCancel(t.Context())
	one, endOne := context.WithCancel(all)
	for i := range n {
		ctx := all
		if i == n/2 {
			ctx = one
		}
		go func() {
			switch i % 4 {
			case 0:
				for range typedrpc.Receive(ctx, c, placeDown, 1) {
				}
			case 1:
				typedrpc.SendAll(ctx, c, placeUp, 1, func(func(int, error) bool) { <-ctx.Done() })
			case 2:
				if s, err := typedrpc.Open(ctx, c, placeBoth, 1); err == nil {
					<-ctx.Done()
					s.Cancel()
				}
			case 3:
				for range topic.Subscribe(ctx, c, placeNews, "x") {
				}
			}
		}()
		if i == n/2 {
			synctest.Wait() // whichever ends is in flight
		}
	}
	synctest.Wait()
	return endOne, endAll
}

// bothWays runs a test in a bubble for each dialect and direction. Each side's log is
// that of who calls.
func bothWays(t *testing.T, limits typedrpc.Limits, mux func() *typedrpc.Mux, test func(t *testing.T, caller, callee *typedrpc.Conn, log *lab.Logs)) {
	t.Helper()
	for name, d := range map[string]typedrpc.Dialect{"binary": typedrpc.Binary, "jsonrpc": typedrpc.Text} {
		for _, down := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/toClient=%v", name, down), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var logs [2]lab.Logs
					srv := &typedrpc.Server{Mux: mux(), Limits: limits, Logger: logs[1].Logger()}
					c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Mux: mux(), Limits: limits, Logger: logs[0].Logger()})
					is.New(t).NoErr(err)
					defer c.Close()
					if down {
						test(t, s, c, &logs[1])
					} else {
						test(t, c, s, &logs[0])
					}
					lab.Settled(t, c, s)
				})
			})
		}
	}
}

func streamPlaces(calls int) int { return max(1, calls-(calls+7)/8) }

func TestPlaces_streamsLeaveCallsTheirShare(t *testing.T) {
	for _, limit := range []int{2, 3, 7, 8, 9, 1024} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			bothWays(t, typedrpc.Limits{MaxCalls: limit}, placesMux, func(t *testing.T, caller, callee *typedrpc.Conn, log *lab.Logs) {
				is := is.New(t)
				_, end := crowd(t, caller, limit+3) // more than there are places for
				is.Equal(hook.Conn(callee).Inbound, streamPlaces(limit))

				for i := range 3 * limit {
					n, err := typedrpc.Call(t.Context(), caller, lab.Ask, i)
					is.NoErr(err) // a call
					is.Equal(n, i)
				}
				_, err := typedrpc.Go(t.Context(), caller, lab.Ask, 1).Await(t.Context())
				is.NoErr(err) // a future
				_, err = typedrpc.Call(t.Context(), caller, lab.Ordered, 1)
				is.NoErr(err) // one of a Serial method
				policy := typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}
				_, err = typedrpc.Call(t.Context(), caller.With(policy), lab.Ask, 1)
				is.NoErr(err) // one with a policy
				end()
				synctest.Wait()
			})
		})
	}
}

// With one place there is no share to keep, and a stream can have it.
func TestPlaces_onePlaceIsForStreamsToo(t *testing.T) {
	bothWays(t, typedrpc.Limits{MaxCalls: 1}, placesMux, func(t *testing.T, caller, callee *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		endOne, end := crowd(t, caller, 1)
		is.Equal(hook.Conn(callee).Inbound, 1)
		f := typedrpc.Go(t.Context(), caller, lab.Ask, 7)
		synctest.Wait()
		endOne()
		n, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(n, 7)
		end()
	})
}

func TestPlaces_errorsAndOneLineSayWhoHasThem(t *testing.T) {
	bothWays(t, typedrpc.Limits{MaxCalls: 16}, placesMux, func(t *testing.T, caller, callee *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		_, end := crowd(t, caller, 14)
		is.Equal(log.Text(), "") // that is what they may have

		soon := func(d time.Duration) context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			t.Cleanup(cancel)
			return ctx
		}
		says := func(err error, text string) {
			t.Helper()
			e := lab.AsError(t, err)
			is.Equal(e.Code, typedrpc.DeadlineExceeded)
			is.Equal(e.Outcome, typedrpc.NotSent)
			is.True(errors.Is(err, context.DeadlineExceeded))
			if !strings.Contains(e.Message, text) {
				t.Errorf("%q does not say %q", e.Message, text)
			}
		}
		const streams = "all 14 places that streams may have are taken, the others of 16 are for calls; see Limits.MaxCalls"
		for _, err := range typedrpc.Receive(soon(time.Second), caller, placeDown, 1) {
			says(err, streams)
		}
		_, err := typedrpc.SendAll(soon(time.Second), caller, placeUp, 1, func(func(int, error) bool) {})
		says(err, streams)
		s, err := typedrpc.Open(soon(time.Second), caller, placeBoth, 1)
		is.NoErr(err)
		_, err = s.Recv()
		says(err, streams)
		for _, err := range topic.Subscribe(soon(time.Second), caller, placeNews, "x") {
			says(err, streams)
		}
		is.Equal(strings.Count(log.Text(), "\n"), 1)
		is.True(strings.Contains(log.Text(), "streams have all places that they may have at the peer"))
		is.True(strings.Contains(log.Text(), "MaxCalls"))
		is.True(strings.Contains(log.Text(), "places=16 streams=14"))

		// The rest is taken by calls.
		busy := soon(time.Hour)
		for range 2 {
			typedrpc.Go(busy, caller, lab.Stay, struct{}{})
		}
		synctest.Wait()
		is.Equal(hook.Conn(callee).Inbound, 16)
		const calls = "all 16 places are taken, 14 of them by streams; see Limits.MaxCalls"
		_, err = typedrpc.Call(soon(time.Second), caller, lab.Ask, 1)
		says(err, calls)
		_, err = typedrpc.Go(soon(time.Second), caller, lab.Ask, 1).Await(t.Context())
		says(err, calls)
		_, err = typedrpc.Call(soon(time.Second), caller.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{}}), lab.Ask, 1)
		says(err, calls)
		for _, err := range typedrpc.Receive(soon(time.Second), caller, placeDown, 1) {
			says(err, calls)
		}
		is.Equal(strings.Count(log.Text(), "\n"), 1)
		time.Sleep(2 * time.Hour)
		end()
		synctest.Wait()
	})
}

// A handler that finds no place is told at once, by the same text.
func TestPlaces_handlersAreToldWhoHasThem(t *testing.T) {
	mux := func() *typedrpc.Mux {
		mux := placesMux()
		typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, kind string) (string, error) {
			c := typedrpc.ConnFrom(ctx)
			if kind == "call" {
				n, err := typedrpc.Call(ctx, c, lab.Ask, 3)
				return fmt.Sprint(n, err), nil
			}
			_, err := typedrpc.Open(ctx, c, placeBoth, 1)
			return fmt.Sprint(err), nil
		})
		return mux
	}
	bothWays(t, typedrpc.Limits{MaxCalls: 8}, mux, func(t *testing.T, caller, callee *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		_, end := crowd(t, callee, 9)
		text, err := typedrpc.Call(t.Context(), caller, lab.Shout, "call")
		is.NoErr(err)
		is.Equal(text, "3 <nil>") // the share of calls
		text, err = typedrpc.Call(t.Context(), caller, lab.Shout, "stream")
		is.NoErr(err)
		is.True(strings.Contains(text, "all 7 places that streams may have are taken, the others of 8 are for calls; see Limits.MaxCalls"))
		is.True(strings.Contains(text, "a handler of the same connection must not wait"))
		ctx, cancel := context.WithCancel(t.Context())
		typedrpc.Go(ctx, callee, lab.Stay, struct{}{})
		synctest.Wait()
		text, err = typedrpc.Call(t.Context(), caller, lab.Shout, "call")
		is.NoErr(err)
		is.True(strings.Contains(text, "all 8 places are taken, 7 of them by streams; see Limits.MaxCalls"))
		cancel()
		end()
		synctest.Wait()
	})
}

// A stream that waits for its place gets the next one, and a call does not take it.
func TestPlaces_streamsGoOnInTheirOrder(t *testing.T) {
	bothWays(t, typedrpc.Limits{MaxCalls: 8}, placesMux, func(t *testing.T, caller, callee *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		endOne, end := crowd(t, caller, 7)
		var mu sync.Mutex
		var begun []int
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			go func() {
				if s, err := typedrpc.Open(ctx, caller, placeBoth, i); err == nil {
					if s.Send(1) == nil { // once it has a place
						mu.Lock()
						begun = append(begun, i)
						mu.Unlock()
					}
				}
			}()
			synctest.Wait()
		}
		is.Equal(hook.Conn(caller).Waiting, 3)
		endOne()
		synctest.Wait()
		mu.Lock()
		is.Equal(begun, []int{0})
		mu.Unlock()
		is.Equal(hook.Conn(caller).Waiting, 2)
		is.Equal(hook.Conn(callee).Inbound, 7)
		end()
		synctest.Wait()
		mu.Lock()
		is.Equal(len(begun), 3)
		mu.Unlock()
		cancel()
		synctest.Wait()
	})
}

// Who announces nothing of the share keeps none: it is refused, and calls go on.
func TestPlaces_calleeKeepsTheShare(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		p, c := lab.RawClient(t, d, &typedrpc.Server{Mux: placesMux(), Limits: typedrpc.Limits{MaxCalls: 8}})
		for id := range uint64(20) {
			p.Send(wire.Frame{Type: wire.Call, ID: id + 1, Method: "place.down", Kind: wire.ServerStream, Flags: wire.NoItems, Payload: []byte("1")})
		}
		fails := p.Got(wire.Fail)
		is.Equal(len(fails), 13)
		for i, f := range fails {
			is.Equal(f.ID, uint64(i+8))
			is.Equal(f.Code, int64(typedrpc.ResourceExhausted))
			is.True(f.Flags&wire.NotRun != 0)
			is.Equal(f.Message, "all 7 places that streams may have are taken, the others of 8 are for calls; see Limits.MaxCalls")
		}
		p.Send(wire.Frame{Type: wire.Call, ID: 30, Method: "ask", Payload: []byte("7")})
		is.Equal(string(p.Got(wire.Result)[0].Payload), "7")
		p.Send(wire.Frame{Type: wire.Call, ID: 31, Method: "hang", Payload: []byte("{}")})
		p.Send(wire.Frame{Type: wire.Call, ID: 32, Method: "ask", Payload: []byte("7")})
		is.Equal(p.Got(wire.Fail)[0].Message, "all 8 places are taken, 7 of them by streams; see Limits.MaxCalls")
		p.Send(wire.Frame{Type: wire.Cancel, ID: 3, Flags: wire.FromCaller})
		p.Got()
		p.Send(wire.Frame{Type: wire.Call, ID: 33, Method: "place.down", Kind: wire.ServerStream, Flags: wire.NoItems, Payload: []byte("1")})
		is.Equal(len(p.Got(wire.Fail)), 0)
		is.True(p.Alive())
		c.Close()
	})
}

// Plain peers have no streams, and their calls every place.
func TestPlaces_plainPeersHaveAllForCalls(t *testing.T) {
	lab.Strangers(t, placesMux(), typedrpc.Limits{MaxCalls: 8}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, log *lab.Logs) {
		is := is.New(t)
		for id := range 8 {
			s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"hang","params":[{}]}`, id))
		}
		is.Equal(len(s.Got()), 0)
		s.Send(`{"jsonrpc":"2.0","id":"more","method":"ask","params":[1]}`)
		is.Equal(s.Only(t), `{"jsonrpc":"2.0","id":"more","error":{"code":8,"message":"all 8 places are taken, 0 of them by streams; see Limits.MaxCalls"}}`)
		s.Send(`{"jsonrpc":"2.0","id":"news","method":"place.news","params":["x"]}`)
		is.True(strings.Contains(s.Only(t), `"id":"news","error"`)) // no streams

		// Ours to them, too: every place, and the error says so.
		for range 8 {
			typedrpc.Go(t.Context(), c, lab.Ask, 1)
		}
		is.Equal(len(s.Got()), 8)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := typedrpc.Call(ctx, c, lab.Ask, 1)
		is.True(strings.Contains(err.Error(), "all 8 places are taken, 0 of them by streams; see Limits.MaxCalls"))
		is.True(!log.Has("streams have all"))
	})
}

// After a lost session places are counted anew: at the next server, with its limits.
func TestPlaces_ofTheNextSession(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		l := lab.New()
		l.Server.Mux, l.Server.Limits = placesMux(), typedrpc.Limits{MaxCalls: 16}
		w := &lab.Town{Srv: l.Server}
		c := w.Dial(t, &typedrpc.DialOptions{Dialect: d, Backoff: lab.Steady, Logger: slog.New(slog.DiscardHandler)})
		_, end := crowd(t, c, 20)
		is.Equal(hook.Conn(c).Flowing, 14)
		next := lab.New()
		next.Server.Mux, next.Server.Limits = placesMux(), typedrpc.Limits{MaxCalls: 4}
		w.Serve(next.Server)
		w.Healed()
		s := hook.Conn(c)
		is.Equal(s.Flowing, 3) // of those that waited
		is.Equal(s.Waiting, 20-14-3)
		_, err := typedrpc.Call(t.Context(), c, lab.Ask, 1)
		is.NoErr(err)
		end()
		synctest.Wait()
		lab.Settled(t, c)
		is.NoErr(c.Close())
	})
}
