package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/topic"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// What misled programs that were written against an early version. What does not compile
// any more is in testdata/compile; what still compiles is here.

// The interceptors of a Server and of a client's options are of what they make, and see
// nothing of what comes in, of any kind; those of a Mux the other way round. Each can
// tell by Request.Outgoing.
func TestTrap_whoseInterceptors(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var mu sync.Mutex
		seen := map[string]int{}
		look := func(where string) typedrpc.Interceptor {
			return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
				mu.Lock()
				seen[fmt.Sprint(where, " ", r.Kind, " outgoing=", r.Outgoing)]++
				mu.Unlock()
				return next(ctx, r)
			}
		}
		flow := typedrpc.NewServerStream[int, int]("flow")
		mux := func(where string) *typedrpc.Mux {
			m := typedrpc.NewMux(look(where))
			typedrpc.Handle(m, lab.Ask, func(_ context.Context, n int) (int, error) { return n, nil })
			typedrpc.Handle(m, lab.Tell, func(context.Context, int) error { return nil })
			typedrpc.Handle(m, flow, func(context.Context, int, func(int) error) error { return nil })
			return m
		}
		srv := &typedrpc.Server{Mux: mux("server's mux"), OutgoingInterceptors: []typedrpc.Interceptor{look("server")}}
		client, server := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{
			Dialect: d, Mux: mux("client's mux"), OutgoingInterceptors: []typedrpc.Interceptor{look("client")},
		})
		defer client.Close()
		for _, side := range []struct {
			from    *typedrpc.Conn
			out, in string
		}{{client, "client", "server's mux"}, {server, "server", "client's mux"}} {
			mu.Lock()
			clear(seen)
			mu.Unlock()
			_, err := typedrpc.Call(t.Context(), side.from, lab.Ask, 1)
			is.NoErr(err)
			is.NoErr(typedrpc.Notify(t.Context(), side.from, lab.Tell, 1))
			is.NoErr(last(typedrpc.Receive(t.Context(), side.from, flow, 1)))
			synctest.Wait()
			want := map[string]int{}
			for _, kind := range []string{"method", "notification", "server stream"} {
				want[side.out+" "+kind+" outgoing=true"] = 1
				want[side.in+" "+kind+" outgoing=false"] = 1
			}
			mu.Lock()
			is.Equal(seen, want)
			mu.Unlock()
		}
	})
}

// Contradictions are refused where they are declared, or by Check and Dial, with a
// sentence that names the field; none of them waits for the call that it spoils.
func TestTrap_contradictions(t *testing.T) {
	none := []typedrpc.Interceptor{nil}
	bad := &typedrpc.RetryPolicy{MaxAttempts: -1}
	for want, check := range map[string]func() error{
		"Server.OutgoingInterceptors: interceptor 0 is nil": func() error {
			return (&typedrpc.Server{OutgoingInterceptors: none}).Check()
		},
		"DialOptions.OutgoingInterceptors: interceptor 0 is nil": func() error { return dialed(&typedrpc.DialOptions{OutgoingInterceptors: none}) },
		"Server.OutgoingRetry: ":                                 func() error { return (&typedrpc.Server{OutgoingRetry: bad}).Check() },
		"DialOptions.OutgoingRetry: ":                            func() error { return dialed(&typedrpc.DialOptions{OutgoingRetry: bad}) },
		"CallOptions.Interceptors: interceptor 0 is nil": func() error {
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, nil)
			_, err := typedrpc.Call(t.Context(), client.With(typedrpc.CallOptions{Interceptors: none}), lab.Ask, 1)
			return err
		},
		"CallOptions.Retry: ": func() error {
			client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, nil)
			_, err := typedrpc.Call(t.Context(), client.With(typedrpc.CallOptions{Retry: bad}), lab.Ask, 1)
			return err
		},
	} {
		t.Run(want, func(t *testing.T) {
			is := is.New(t)
			err := check()
			is.True(err != nil)
			is.True(strings.Contains(err.Error(), want))
		})
	}
}

func dialed(o *typedrpc.DialOptions) error {
	c, _, err := typedrpctest.Dial(&typedrpc.Server{}, o)
	if err == nil {
		c.Close()
	}
	return err
}

// A loop that goes on at the gap of what is not opened again gets one more pair, the last,
// which is no gap and says why: it does not end as if all were well. So it is of streams
// and topics, at a client that fails fast, and at a server that calls its client.
func TestTrap_loopGoesOnBehindGap(t *testing.T) {
	plain := typedrpc.NewServerStream[int, int]("trap.flow")
	again := plain.Restartable(func(n int, _ *int) int { return n })
	news := topic.New[int]("trap.news")
	newsAgain := topic.New[int]("trap.again", topic.Restartable)
	type pair struct {
		gap bool
		err error
	}
	// pairs are those with an error of a loop that goes on at every one.
	receive := func(s typedrpc.ServerStream[int, int], o typedrpc.CallOptions) func(ctx context.Context, c *typedrpc.Conn) []pair {
		return func(ctx context.Context, c *typedrpc.Conn) (got []pair) {
			for _, err := range typedrpc.Receive(ctx, c.With(o), s, 1) {
				if err != nil {
					got = append(got, pair{errors.Is(err, typedrpc.Gap), err})
				}
			}
			return got
		}
	}
	subscribe := func(tp topic.Topic[int], o typedrpc.CallOptions) func(ctx context.Context, c *typedrpc.Conn) []pair {
		return func(ctx context.Context, c *typedrpc.Conn) (got []pair) {
			for _, err := range topic.Subscribe(ctx, c.With(o), tp, "key") {
				if err != nil {
					got = append(got, pair{errors.Is(err, typedrpc.Gap), err})
				}
			}
			return got
		}
	}
	failFast := typedrpc.CallOptions{FailFast: true}
	for name, row := range map[string]struct {
		loop     func(ctx context.Context, c *typedrpc.Conn) []pair
		atServer bool
		why      string
	}{
		"a stream":                                 {receive(plain, typedrpc.CallOptions{}), false, "not Restartable"},
		"a stream that a server calls":             {receive(plain, typedrpc.CallOptions{}), true, "not Restartable"},
		"a restartable stream, FailFast":           {receive(again, failFast), false, "FailFast"},
		"a restartable stream that a server calls": {receive(again, typedrpc.CallOptions{}), true, "does not dial"},
		"a topic":                       {subscribe(news, typedrpc.CallOptions{}), false, "not Restartable"},
		"a restartable topic, FailFast": {subscribe(newsAgain, failFast), false, "FailFast"},
	} {
		t.Run(name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				var hub topic.Hub
				defer hub.Close()
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, plain, func(ctx context.Context, _ int, send func(int) error) error {
					if err := send(1); err != nil {
						return err
					}
					<-ctx.Done()
					return ctx.Err()
				})
				topic.Handle(mux, &hub, news, topic.Everybody)
				topic.Handle(mux, &hub, newsAgain, topic.Everybody)
				client, server := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Dialect: d, Mux: mux})
				defer client.Close()
				from, leaves := client, server
				if row.atServer {
					from, leaves = server, client
				}
				time.AfterFunc(time.Second, func() { leaves.Close() })     // the peer's doing: a gap
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // of no loop here
				defer cancel()
				got := row.loop(ctx, from)
				is.Equal(len(got), 2)
				is.True(got[0].gap)
				is.True(!got[1].gap)
				is.True(errors.Is(got[1].err, typedrpc.Unavailable))
				is.Equal(typedrpc.OutcomeOf(got[1].err), typedrpc.MayHaveRun)
				is.True(strings.Contains(got[1].err.Error(), row.why))
				is.NoErr(ctx.Err())
			})
		})
	}
}

// The same of streams that are in a program's hands, on both sides.
func TestTrap_streamGoesOnBehindGap(t *testing.T) {
	both := typedrpc.NewBidiStream[int, int, int]("trap.both")
	up := typedrpc.NewClientStream[int, int, int]("trap.up")
	loop := func(items iter.Seq2[int, error]) (got []error) {
		for _, err := range items {
			if err != nil {
				got = append(got, err)
			}
		}
		return got
	}
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		handled := make(chan []error, 2)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, both, func(_ context.Context, _ int, s *typedrpc.Stream[int, int]) error {
			handled <- loop(s.All())
			return nil
		})
		typedrpc.Handle(mux, up, func(_ context.Context, _ int, items iter.Seq2[int, error]) (int, error) {
			handled <- loop(items)
			return 0, nil
		})
		client, server := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Dialect: d, Mux: mux})
		defer client.Close()
		s, err := typedrpc.Open(t.Context(), client, both, 1)
		is.NoErr(err)
		uploaded := make(chan error, 1)
		go func() {
			_, err := typedrpc.SendAll(t.Context(), client, up, 1, func(yield func(int, error) bool) {
				yield(1, nil)
				<-client.Context().Done()
			})
			uploaded <- err
		}()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { server.Close() })
		check := func(got []error) {
			is.Equal(len(got), 2)
			is.True(errors.Is(got[0], typedrpc.Gap))
			is.True(!errors.Is(got[1], typedrpc.Gap))
			is.Equal(typedrpc.CodeOf(got[1]), typedrpc.Unavailable)
			is.Equal(typedrpc.OutcomeOf(got[1]), typedrpc.MayHaveRun)
		}
		check(loop(s.All()))
		client.Close()
		is.True(<-uploaded != nil)
		for range 2 { // this side closed: no gap there
			is.True(len(<-handled) > 0)
		}
	})
}
