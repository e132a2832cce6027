package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

var reach = typedrpc.NewMethod[counted, int]("reach", typedrpc.Timeout(time.Minute))

// devices are n clients of srv, of which the i-th answers with what answer makes of i.
func devices(t *testing.T, srv *typedrpc.Server, n int, answer func(ctx context.Context, i int) (int, error)) (servers []*typedrpc.Conn) {
	t.Helper()
	for i := range n {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, reach, func(ctx context.Context, _ counted) (int, error) { return answer(ctx, i) })
		_, s := typedrpctest.Pair(t, srv, &typedrpc.DialOptions{Mux: mux, Logger: slog.New(slog.DiscardHandler)})
		servers = append(servers, s)
	}
	return servers
}

func TestCallAll_thousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		n := testkit.Crowd(1000, 1000, 200)
		servers := devices(t, &typedrpc.Server{BeginRate: -1}, n, func(ctx context.Context, i int) (int, error) {
			switch i {
			case 3: // silent
				<-ctx.Done()
				return 0, ctx.Err()
			case 5:
				return 0, typedrpc.NotFound
			}
			return i, nil
		})
		began := time.Now()
		encoded := new(atomic.Int32)
		seen := map[int]bool{}
		errs := 0
		for c, f := range typedrpc.CallAll(t.Context(), slices.Values(servers), reach, counted{"hi", encoded}) {
			got, err := f.Await(t.Context())
			i := slices.Index(servers, c)
			is.True(i >= 0 && !seen[i]) // each once
			seen[i] = true
			switch {
			case i == 3:
				is.True(errors.Is(err, context.DeadlineExceeded))
				is.Equal(len(seen), n) // the last
				is.Equal(time.Since(began), time.Minute)
				errs++
				continue
			case i == 5:
				is.True(errors.Is(err, typedrpc.NotFound))
				is.Equal(got, 0)
				errs++
			default:
				is.NoErr(err)
				is.Equal(got, i)
			}
			is.Equal(time.Since(began), time.Duration(0)) // the silent one delays nobody
		}
		is.Equal(len(seen), n)
		is.Equal(errs, 2)
		is.Equal(encoded.Load(), int32(1))
	})
}

func TestCallAll_overAll(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{}
	var got atomic.Int32
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
		for range 3 {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, reach, func(_ context.Context, c counted) (int, error) { got.Add(1); return len(c.text), nil })
			lab.Over{Dialect: d}.Connect(t, srv, &typedrpc.DialOptions{Mux: mux})
		}
	}
	encoded := new(atomic.Int32)
	n := 0
	for _, f := range typedrpc.CallAll(t.Context(), srv.Conns(), reach, counted{"hello", encoded}) {
		length, err := f.Await(t.Context())
		is.NoErr(err)
		is.Equal(length, 5)
		n++
	}
	is.Equal(n, 9)
	is.Equal(got.Load(), int32(9))
	is.True(encoded.Load() <= 2) // as a Broadcast's
}

// A loop that is left asks nobody else, and cancels what is in flight.
func TestCallAll_left(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		var running, cancelled atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Echo, func(ctx context.Context, _ int) (int, error) {
			if n := int(running.Add(1)); n == 2 {
				return n, nil
			}
			<-ctx.Done()
			cancelled.Add(1)
			return 0, ctx.Err()
		})
		c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Dialect: d})
		asked := 0
		all := func(yield func(*typedrpc.Conn) bool) {
			for asked < 5 && yield(c) {
				asked++
				synctest.Wait()
			}
		}
		for _, f := range typedrpc.CallAll(t.Context(), iter.Seq[*typedrpc.Conn](all), lab.Echo, 1) {
			got, err := f.Await(t.Context())
			is.NoErr(err)
			is.Equal(got, 2)
			break
		}
		synctest.Wait()
		is.True(asked <= 2)                          // the answer of the second was there by then
		is.Equal(cancelled.Load(), running.Load()-1) // the third may not have left
	})
}

// So many are in flight, and each gets its error when the context ends.
func TestCallAll_bound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		var running atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Echo, func(ctx context.Context, _ int) (int, error) {
			running.Add(1)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxCalls: 5000}}, nil)
		const all = 3000
		asked := 0
		conns := func(yield func(*typedrpc.Conn) bool) {
			for asked < all && yield(c) {
				asked++
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(time.Second, func() {
			is.Equal(asked, 1023) // the 1,024th is being asked
			is.Equal(running.Load(), int32(1024))
			cancel()
		})
		n := map[typedrpc.Outcome]int{}
		for _, f := range typedrpc.CallAll(ctx, iter.Seq[*typedrpc.Conn](conns), lab.Echo, 1) {
			_, err := f.Await(t.Context())
			is.True(errors.Is(err, context.Canceled))
			n[typedrpc.OutcomeOf(err)]++
		}
		is.Equal(n, map[typedrpc.Outcome]int{typedrpc.MayHaveRun: 1024, typedrpc.NotSent: all - 1024})
	})
}

// What one of them does not take, or does wrong, is its own error.
func TestCallAll_each(t *testing.T) {
	is := is.New(t)
	text := typedrpc.NewMethod[string, string]("text")
	srv := &typedrpc.Server{}
	connect := func(limits typedrpc.Limits, meta *string) *typedrpc.Conn {
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, text, func(ctx context.Context, s string) (string, error) {
			if meta != nil {
				*meta = typedrpc.RequestFrom(ctx).Metadata["k"]
			}
			return strings.ToUpper(s), nil
		})
		_, s := lab.Over{}.Connect(t, srv, &typedrpc.DialOptions{Mux: mux, Limits: limits})
		return s
	}
	var meta string
	roomy, small, with := connect(typedrpc.Limits{}, nil), connect(typedrpc.Limits{MaxMessage: 64}, nil), connect(typedrpc.Limits{}, &meta)
	gone := connect(typedrpc.Limits{}, nil)
	gone.Close()
	panics := roomy.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) { panic("no") }}})
	callers := []typedrpc.Caller{roomy, small, with.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": "v"}}), gone, panics, nil, (*typedrpc.Conn)(nil)}
	codes := map[typedrpc.Code]int{}
	for c, f := range typedrpc.CallAll(t.Context(), slices.Values(callers), text, strings.Repeat("a", 100)) {
		upper, err := f.Await(t.Context())
		codes[typedrpc.CodeOf(err)]++
		switch c {
		case small:
			is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted)
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		case gone:
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unavailable)
		case roomy:
			is.NoErr(err)
		}
		if err == nil {
			is.Equal(len(upper), 100)
		} else {
			is.True(errors.As(err, new(*typedrpc.Error)))
		}
	}
	is.Equal(codes, map[typedrpc.Code]int{typedrpc.OK: 2, typedrpc.ResourceExhausted: 1, typedrpc.Unavailable: 1, typedrpc.Internal: 1, typedrpc.InvalidArgument: 2})
	is.Equal(meta, "v")
}

func TestCallAll_refused(t *testing.T) {
	is := is.New(t)
	one := func(answers iter.Seq2[*typedrpc.Conn, *typedrpc.Future[int]]) (n int, code typedrpc.Code) {
		for c, f := range answers {
			is.Equal(c, nil)
			<-f.Done()
			f.Cancel()
			_, err := f.Await(t.Context())
			n++
			code = typedrpc.CodeOf(err)
		}
		return n, code
	}
	n, code := one(typedrpc.CallAll[*typedrpc.Conn](t.Context(), nil, lab.Echo, 1))
	is.Equal(n, 1)
	is.Equal(code, typedrpc.InvalidArgument)
	n, code = one(typedrpc.CallAll(t.Context(), slices.Values([]*typedrpc.Conn{}), typedrpc.Method[int, int]{}, 1))
	is.Equal(n, 1)
	is.Equal(code, typedrpc.InvalidArgument)
	n, _ = one(typedrpc.CallAll(t.Context(), new(typedrpc.Server).Conns(), lab.Echo, 1))
	is.Equal(n, 0) // nobody is there
}

// Each connection's call of a Keyed method has a key of its own.
func TestCallAll_keyed(t *testing.T) {
	is := is.New(t)
	once := typedrpc.NewMethod[int, int]("once", typedrpc.Keyed)
	mux := typedrpc.NewMux()
	var ran atomic.Int32
	typedrpc.Handle(mux, once, func(_ context.Context, n int) (int, error) { return int(ran.Add(1)), nil })
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	for _, f := range typedrpc.CallAll(t.Context(), slices.Values([]*typedrpc.Conn{c, c, c}), once, 1) {
		_, err := f.Await(t.Context())
		is.NoErr(err)
	}
	is.Equal(ran.Load(), int32(3))
}

// noted counts how often it is decoded.
type noted struct{ N int }

var decodings atomic.Int32

func (n *noted) UnmarshalJSON(data []byte) error {
	decodings.Add(1)
	return json.Unmarshal(data, &n.N)
}

func (n noted) MarshalJSON() ([]byte, error) { return json.Marshal(n.N) }

// The futures are done when they come, decoded once by then, and take all that those of Go do,
// also behind the loop and elsewhere.
func TestCallAll_futures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		note := typedrpc.NewMethod[int, noted]("note")
		mux := typedrpc.NewMux()
		var asked atomic.Int32
		typedrpc.Handle(mux, note, func(ctx context.Context, n int) (noted, error) {
			time.Sleep(time.Duration(asked.Add(1)) * time.Second)
			return noted{N: n}, nil
		})
		typedrpc.Handle(mux, lab.Ask, func(context.Context, int) (int, error) { return 0, typedrpc.NotFound })
		c, _ := typedrpctest.Pair(t, &typedrpc.Server{Mux: mux}, nil)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		decodings.Store(0)
		var all []*typedrpc.Future[noted]
		began := time.Now()
		for from, f := range typedrpc.CallAll(t.Context(), slices.Values([]*typedrpc.Conn{c, c, c}), note, 7) {
			is.Equal(from, c)
			all = append(all, f)
			is.Equal(int(decodings.Load()), len(all))
			is.Equal(time.Since(began), time.Duration(len(all))*time.Second)
			select {
			case <-f.Done():
			default:
				t.Error("it is not done")
			}
			f.Cancel() // too late
			got, err := f.Await(over)
			is.NoErr(err)
			is.Equal(got.N, 7)
		}
		is.Equal(len(all), 3)
		elsewhere := make(chan error)
		go func() { _, err := all[0].Await(t.Context()); elsewhere <- err }()
		is.NoErr(<-elsewhere)
		got, err := typedrpc.All(t.Context(), all...)
		is.NoErr(err)
		is.Equal(len(got), 3)
		one, err := typedrpc.Any(t.Context(), all...)
		is.NoErr(err)
		is.Equal(one.N, 7)
		for _, f := range typedrpc.CallAll(t.Context(), slices.Values([]*typedrpc.Conn{c}), lab.Ask, 1) {
			is.True(errors.Is(typedrpc.Wait(t.Context(), all[0], f), typedrpc.NotFound))
		}
		is.NoErr(typedrpc.Wait(t.Context(), all[1], all[2]))
		is.Equal(int(decodings.Load()), 3)
	})
}

// What of a response could be decoded before its error is none.
func TestFuture_halfDecoded(t *testing.T) {
	is := is.New(t)
	type half struct{ A, B int }
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, typedrpc.NewMethod[int, typedrpc.Raw]("half"), func(context.Context, int) (typedrpc.Raw, error) {
		return typedrpc.Raw(`{"A":1,"B":"two"}`), nil
	})
	c, _ := lab.Over{}.Connect(t, &typedrpc.Server{Mux: mux}, nil)
	m := typedrpc.NewMethod[int, half]("half")
	got, err := typedrpc.Go(t.Context(), c, m, 1).Await(t.Context())
	is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
	is.Equal(got, half{})
	for _, f := range typedrpc.CallAll(t.Context(), slices.Values([]*typedrpc.Conn{c}), m, 1) {
		got, err := f.Await(t.Context())
		is.Equal(typedrpc.CodeOf(err), typedrpc.Internal)
		is.Equal(got, half{})
	}
}
