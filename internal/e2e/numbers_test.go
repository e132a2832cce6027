package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// A plain peer's number is its own, but for those that JSON-RPC has: it is neither the
// end of a context nor a reason to try again, and it says nothing of how far the call got.
func TestPlain_numbersOfForeignErrors(t *testing.T) {
	twice := typedrpc.NewMethod[int, int]("twice", typedrpc.Idempotent)
	own := map[int64]typedrpc.Code{
		-32700: typedrpc.InvalidArgument, -32600: typedrpc.InvalidArgument, -32602: typedrpc.InvalidArgument,
		-32601: typedrpc.Unimplemented, -32603: typedrpc.Internal,
	}
	numbers := []int64{-32700, -32603, -32602, -32601, -32600, -32099, -32000, -1, 100, 404, 4001, 1 << 40, -1 << 40}
	for n := range int64(100) {
		numbers = append(numbers, n)
	}
	everything := &typedrpc.RetryPolicy{MaxAttempts: 3}
	for c := range typedrpc.Unauthenticated {
		everything.Codes = append(everything.Codes, c+1)
	}
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		for _, n := range numbers {
			is := is.New(t)
			for _, policy := range []*typedrpc.RetryPolicy{nil, {}, everything} {
				if policy == everything && own[n] != 0 {
					continue // who asks for that gets it
				}
				f := typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{Retry: policy}), twice, 1)
				id := callID(t, s.Only(t))
				s.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"m","retryAfter":1},"notRun":true}`, id, n))
				_, err := f.Await(t.Context())
				is.Equal(len(s.Got()), 0) // no further attempt
				e := lab.AsError(t, err)
				is.Equal(e.Number, n)
				is.Equal(e.Outcome, typedrpc.Answered)
				is.True(!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded))
				is.True(!errors.Is(err, typedrpc.Canceled) && !errors.Is(err, typedrpc.DeadlineExceeded) && !errors.Is(err, typedrpc.Unavailable))
				is.Equal(e.RetryAfter.Nanoseconds(), int64(0))
				switch {
				case own[n] != 0:
					is.Equal(e.Code, own[n])
				case n == 0 || n == 1 || n == 4 || n == 14:
					is.Equal(e.Code, typedrpc.Unknown)
				default:
					is.Equal(e.Code, typedrpc.Code(n))
				}
			}
		}
		// Only what was made here is the end of a context.
		is := is.New(t)
		f := typedrpc.Go(t.Context(), c, twice, 1)
		s.Only(t)
		f.Cancel()
		_, err := f.Await(t.Context())
		is.True(errors.Is(err, context.Canceled))
		is.Equal(lab.AsError(t, err).Number, int64(0))
	})
}

// A policy may name a number of the peer's that cannot be taken for one of ours.
func TestPlain_retriesOfNamedNumbers(t *testing.T) {
	twice := typedrpc.NewMethod[int, int]("twice", typedrpc.Idempotent)
	lab.Strangers(t, nil, typedrpc.Limits{}, func(t *testing.T, s *lab.Stranger, c *typedrpc.Conn, _ *lab.Logs) {
		is := is.New(t)
		f := typedrpc.Go(t.Context(), c.With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{Codes: []typedrpc.Code{-32005}, Backoff: typedrpc.Backoff{Min: 1, Max: 1}}}), twice, 1)
		s.Send(`{"jsonrpc":"2.0","id":` + callID(t, s.Only(t)) + `,"error":{"code":-32005,"message":"limit exceeded"}}`)
		time.Sleep(time.Second)
		s.Send(`{"jsonrpc":"2.0","id":` + callID(t, s.Only(t)) + `,"result":4}`)
		got, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(got, 4)
	})
}

// A handler chooses the number that plain callers are told, over WebSocket, in batches
// and over POST.
func TestPlain_handlersChooseNumbers(t *testing.T) {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.Ask, func(_ context.Context, n int) (int, error) {
		return 0, &typedrpc.Error{Code: typedrpc.FailedPrecondition, Number: int64(n), Message: "execution reverted", Data: typedrpc.Raw(`"0x"`)}
	})
	url := serve(t, &typedrpc.Server{Mux: mux})
	p := dialRaw(t, url)
	for _, n := range []int{1, 3, 12, 13, 14, -32000, -32700, 404, 1 << 40} {
		is := is.New(t)
		call := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"ask","params":[%d]}`, n)
		want := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"error":{"code":%d,"message":"execution reverted","data":"0x"}}`, n)
		p.send(call)
		is.Equal(p.receive(), want)
		p.send("[" + call + "]")
		is.Equal(p.receive(), "["+want+"]")
		_, text := post(t, url, call)
		is.Equal(text, want)
	}
	is := is.New(t)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"ask","params":[0]}`) // none was chosen
	is.Equal(p.receive(), `{"jsonrpc":"2.0","id":1,"error":{"code":9,"message":"execution reverted","data":"0x"}}`)
}

// Peers with HELLO get code and number.
func TestError_numberCrosses(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		stock := lab.NoStock.Errorf(lab.Shortage{Left: 3}, "only 3 left")
		stock.Number = 3
		typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return 0, fmt.Errorf("wrapped: %w", stock) })
		typedrpc.Handle(mux, lab.Shout, func(context.Context, string) (string, error) { return "", errors.New("secret") })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, MapError: func(context.Context, error) *typedrpc.Error {
			return &typedrpc.Error{Code: typedrpc.Aborted, Number: -7, Message: "mapped"}
		}}, nil)
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		e := lab.AsError(t, err)
		is.Equal(e.Number, int64(3))
		is.Equal(e.Message, "only 3 left")
		s, ok := lab.NoStock.From(err)
		is.True(ok)
		is.Equal(s.Left, 3)
		if !o.Plain() {
			is.Equal(e.Code, typedrpc.FailedPrecondition)
		}
		_, err = typedrpc.Call(t.Context(), client, lab.Shout, "")
		is.Equal(lab.AsError(t, err).Number, int64(-7))
	})
}

// A keyed call's repeat is told the same number.
func TestKeyed_numberIsRemembered(t *testing.T) {
	is := is.New(t)
	buy := typedrpc.NewMethod[int, int]("buy", typedrpc.Keyed)
	runs := 0
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, buy, func(context.Context, int) (int, error) {
		runs++
		return 0, &typedrpc.Error{Code: 200, Number: 3, Message: "no"}
	})
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
	key := idempotency.NewKey()
	for range 2 {
		_, err := typedrpc.Call(t.Context(), client.With(typedrpc.CallOptions{Key: key}), buy, 1)
		is.Equal(lab.AsError(t, err).Number, int64(3))
	}
	is.Equal(runs, 1)
}

// What a foreign server says passes a proxy: to plain callers as it was, to others with
// the number.
func TestForward_numbersOfForeignServers(t *testing.T) {
	for _, n := range []int{1, 3, 4, 14, 5, 12, 13, -32700, -32600, -32601, -32602, -32603, -32000, 404} {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
			t.Run(fmt.Sprint(n, "to", d), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					is := is.New(t)
					foreign, up, _ := lab.ForeignServer(t, &typedrpc.DialOptions{})
					mux := typedrpc.NewMux()
					mux.HandleFallback(func(ctx context.Context, r *typedrpc.Request) (typedrpc.Raw, error) {
						return typedrpc.Forward(ctx, up, r)
					})
					client, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Dialect: d})
					f := typedrpc.Go(t.Context(), client, lab.Ask, 1)
					id := callID(t, foreign.Only(t))
					foreign.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"execution reverted","data":"0x08c379a0"}}`, id, n))
					_, err := f.Await(t.Context())
					e := lab.AsError(t, err)
					is.Equal(e.Number, int64(n))
					is.Equal(string(e.Data), `"0x08c379a0"`)
					is.Equal(e.Message, "execution reverted")
					is.True(!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded))
					client.Close()
					up.Close()

					// A page behind the proxy reads what the server wrote.
					foreign, up, _ = lab.ForeignServer(t, &typedrpc.DialOptions{})
					page, c := lab.Page(t, &typedrpc.Server{Mux: mux})
					page.Send(`{"jsonrpc":"2.0","id":"a","method":"eth_call","params":[1]}`)
					id = callID(t, foreign.Only(t))
					foreign.Send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"execution reverted","data":"0x08c379a0"}}`, id, n))
					is.Equal(page.Only(t), fmt.Sprintf(`{"jsonrpc":"2.0","id":"a","error":{"code":%d,"message":"execution reverted","data":"0x08c379a0"}}`, n))
					c.Close()
					up.Close()
				})
			})
		}
	}
}

// A stream of a peer with HELLO ends with the number, too.
func TestStream_numberOfItsError(t *testing.T) {
	ticks := typedrpc.NewServerStream[int, int]("ticks")
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ticks, func(context.Context, int, func(int) error) error {
			return &typedrpc.Error{Code: 200, Number: 3, Message: "no"}
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, err := range typedrpc.Receive(t.Context(), client, ticks, 1) {
			is.Equal(lab.AsError(t, err).Number, int64(3))
			is.True(strings.Contains(err.Error(), "no"))
		}
	})
}
