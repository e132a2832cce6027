package typedrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// echoed is one type that goes there and back.
type echoed struct {
	name string
	add  func(*typedrpc.Mux)
	call func(context.Context, typedrpc.Caller) (sent, got string, err error)
}

func echoOf[T any](name string, v T, traits ...typedrpc.MethodTrait) echoed {
	m := typedrpc.NewMethod[T, T]("echo."+strings.ReplaceAll(name, " ", "-"), traits...)
	return echoed{
		name: name,
		add: func(mux *typedrpc.Mux) {
			typedrpc.Handle(mux, m, func(_ context.Context, v T) (T, error) { return v, nil })
		},
		call: func(ctx context.Context, c typedrpc.Caller) (string, string, error) {
			got, err := typedrpc.Call(ctx, c, m, v)
			// As JSON, so that pointers are followed and nil differs from empty.
			want, wantErr := json.Marshal(v)
			have, haveErr := json.Marshal(got)
			return string(want), string(have), errors.Join(err, wantErr, haveErr)
		},
	}
}

func echoes() []echoed {
	type tree struct {
		Name string            `json:"name"`
		Kids []*tree           `json:"kids,omitempty"`
		Tags map[string]string `json:"tags"`
	}
	oak := tree{"oak ☃ \"quoted\" \u2028", []*tree{{Name: "twig"}}, map[string]string{"k": "v"}}
	return []echoed{
		echoOf("struct", oak),
		echoOf("pointer", &oak),
		echoOf("pointer with Alloc", &oak, typedrpc.Alloc[tree]()),
		echoOf[*tree]("nil pointer", nil),
		echoOf("int", -1<<31),
		echoOf("int zero", 0),
		echoOf("int32", int32(-1<<31)),
		echoOf("int64", int64(1<<63-1)),
		echoOf("int64 lowest", int64(-1<<63)),
		echoOf("uint", uint(7)),
		echoOf("uint32", uint32(1<<32-1)),
		echoOf("uint64", uint64(1<<64-1)),
		echoOf("float64", 3.25e-9),
		echoOf("float64 whole", 1e6),
		echoOf("float64 huge", 1.5e300),
		echoOf("float64 negative", -2.5),
		echoOf("string", "a\x00b\n\"\\ ünïcödé 🎈"),
		echoOf("string empty", ""),
		echoOf("bool", true),
		echoOf("bool false", false),
		echoOf("bytes", []byte{0, 255, 1}),
		echoOf("bytes empty", []byte{}),
		echoOf("bytes nil", []byte(nil)),
		echoOf("empty", struct{}{}),
		echoOf("raw", json.RawMessage(`{"a":[1,2,{"b":null}]}`)),
		echoOf("slice", []int{3, 1, 2}),
		echoOf("slice of one", []int{3}),
		echoOf("slice of slices", [][]int{{1}, {2, 3}}),
		echoOf("slice empty", []string{}),
		echoOf("slice nil", []string(nil)),
		echoOf("array", [2]string{"x", "y"}),
		echoOf("map", map[string]int{"one": 1, "two": 2}),
		echoOf("map nil", map[string]int(nil)),
		echoOf[any]("any", map[string]any{"list": []any{"x", 1.5, nil, true}}),
		echoOf[any]("any nil", nil),
		echoOf("time", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)),
		echoOf("large", strings.Repeat("0123456789abcdef", 20_000)),
	}
}

func TestCall_types(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		mux := typedrpc.NewMux()
		for _, e := range echoes() {
			e.add(mux)
		}
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, e := range echoes() {
			t.Run(e.name, func(t *testing.T) {
				is := is.New(t)
				sent, got, err := e.call(t.Context(), client)
				is.NoErr(err)
				is.Equal(got, sent) // what came back
			})
		}
	})
}

func TestCall_raw(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		pass := typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw]("pass")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, pass, func(_ context.Context, r typedrpc.Raw) (typedrpc.Raw, error) { return r, nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)

		const text = `{"b": 1, "a":[2.50,"\u0041"]}`
		got, err := typedrpc.Call(t.Context(), client, pass, typedrpc.Raw(text))
		is.NoErr(err)
		is.Equal(string(got), text) // byte for byte

		_, err = typedrpc.Call(t.Context(), client, pass, typedrpc.Raw(`{"a":`))
		is.True(errors.Is(err, typedrpc.InvalidArgument)) // a Raw that is no JSON stays here
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)

		_, err = typedrpc.Call(t.Context(), client, pass, nil)
		is.NoErr(err) // nothing is null
	})
}

func TestCall_rawResponseInvalid(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		broken := typedrpc.NewMethod[struct{}, typedrpc.Raw]("broken")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, broken, func(context.Context, struct{}) (typedrpc.Raw, error) {
			return typedrpc.Raw(`1,"jsonrpc":"2.0"`), nil
		})
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		var log lab.Logs
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Logger: log.Logger()}, nil)

		_, err := typedrpc.Call(t.Context(), client, broken, struct{}{})
		is.True(errors.Is(err, typedrpc.Internal)) // it never reached the wire
		is.True(log.Has("Raw is no JSON value"))
		_, err = typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 1, B: 2})
		is.NoErr(err) // the link lives on
	})
}

func TestCall_bothWays(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		serverMux, clientMux := typedrpc.NewMux(), typedrpc.NewMux()
		typedrpc.Handle(serverMux, lab.Sum, lab.HandleSum)
		typedrpc.Handle(clientMux, lab.Shout, lab.HandleShout)
		client, server := o.Connect(t, &typedrpc.Server{Mux: serverMux}, &typedrpc.DialOptions{Mux: clientMux})

		r, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{A: 3, B: 4})
		is.NoErr(err)
		is.Equal(r.Sum, 7)
		s, err := typedrpc.Call(t.Context(), server, lab.Shout, "hey")
		is.NoErr(err)
		is.Equal(s, "HEY")
	})
}

func TestCall_nested(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		// Each side answers ask(n) with 1 + what the other says of n-1.
		bounce := func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			below, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), lab.Ask, n-1)
			return below + 1, err
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, bounce)
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		for _, c := range []*typedrpc.Conn{client, server} {
			depth, err := typedrpc.Call(t.Context(), c, lab.Ask, 40)
			is.NoErr(err)
			is.Equal(depth, 40)
		}
	})
}

func TestConnFrom_theOtherEnd(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		seen := make(chan *typedrpc.Conn, 1)
		typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, s string) (string, error) {
			seen <- typedrpc.ConnFrom(ctx)
			r := typedrpc.RequestFrom(ctx)
			return fmt.Sprint(r.Method, " ", r.Kind, " ", r.Conn == typedrpc.ConnFrom(ctx)), nil
		})
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		got, err := typedrpc.Call(t.Context(), client, lab.Shout, "")
		is.NoErr(err)
		is.Equal(got, "text.shout method true")
		is.True(<-seen == server)
	})
}

func TestConnFrom_outsideHandler(t *testing.T) {
	is := is.New(t)
	defer func() {
		is.True(strings.Contains(fmt.Sprint(recover()), "the context that a handler was given"))
	}()
	typedrpc.ConnFrom(t.Context())
	t.Error("ConnFrom did not panic")
}

func TestNotify_order(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		const n = 300
		var got []string // one goroutine at a time: no lock, the race detector watches
		done := make(chan []string, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, i int) error { got = append(got, fmt.Sprint("first ", i)); return nil })
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, i int) error {
			got = append(got, fmt.Sprint("second ", i))
			if i == n-1 {
				done <- got
			}
			return nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		var want []string
		for i := range n {
			is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, i))
			want = append(want, fmt.Sprint("first ", i), fmt.Sprint("second ", i))
		}
		is.Equal(<-done, want)
	})
}

func TestNotify_fromServer(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		got := make(chan int, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, i int) error { got <- i; return nil })
		_, server := o.Connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		is.NoErr(typedrpc.Notify(t.Context(), server, lab.Tell, 5))
		is.Equal(<-got, 5)
	})
}

func TestNotify_nobodyListens(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		unheard := typedrpc.NewNotification[[]byte]("unheard")
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{Window: 1024}}, nil)
		for range 100 { // far beyond the window: the dropped are credited too
			is.NoErr(typedrpc.Notify(t.Context(), client, unheard, make([]byte, 200)))
		}
		_, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.NoErr(err)
	})
}

func TestNotify_waitsForWindow(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		release := make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(context.Context, int) error { <-release; return nil })
		srv := &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{Window: 1024}}
		client, _ := o.Connect(t, srv, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		sent := 0
		var err error
		for err == nil && sent < 1000 {
			if err = typedrpc.Notify(ctx, client, lab.Tell, sent); err == nil {
				sent++
			}
		}
		is.True(errors.Is(err, context.DeadlineExceeded)) // the window was spent
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(sent <= 1024/64)
		close(release)
		is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, 1)) // and given back
	})
}

func TestSerial_order(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		var order []int // unlocked on purpose
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ordered, func(_ context.Context, i int) (int, error) {
			order = append(order, i)
			return len(order), nil
		})
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, i int) error { order = append(order, i); return nil })
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		var futures []*typedrpc.Future[int]
		var want []int
		for i := range 100 {
			if i%3 == 0 {
				is.NoErr(typedrpc.Notify(t.Context(), client, lab.Tell, i))
			} else {
				futures = append(futures, typedrpc.Go(t.Context(), client, lab.Ordered, i))
			}
			want = append(want, i)
		}
		// The last one comes after all others.
		_, err := typedrpc.Call(t.Context(), client, lab.Ordered, 100)
		is.NoErr(err)
		is.Equal(order, append(want, 100))
		_, err = typedrpc.All(t.Context(), futures...)
		is.NoErr(err)
	})
}

func TestCall_concurrent(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		const n = 100
		var inside sync.WaitGroup // every handler waits until all of them run
		inside.Add(n)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(_ context.Context, i int) (int, error) {
			inside.Done()
			inside.Wait()
			return i * i, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		errs := make(chan error, n)
		for i := range n {
			go func() {
				got, err := typedrpc.Call(t.Context(), client, lab.Ask, i)
				if err == nil && got != i*i {
					err = fmt.Errorf("%d got the answer %d", i, got)
				}
				errs <- err
			}()
		}
		for range n {
			is.NoErr(<-errs)
		}
	})
}

func TestCall_cancelReachesHandler(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		h := lab.NewHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, h.Handle)
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		errs := make(chan error, 1)
		go func() {
			_, err := typedrpc.Call(ctx, client, lab.Stay, struct{}{})
			errs <- err
		}()
		<-h.Begun
		cause := errors.New("changed my mind")
		cancel(cause)
		err := <-errs
		is.True(errors.Is(err, context.Canceled))
		is.True(errors.Is(err, cause)) // the local cause is at hand
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(<-h.Ended, context.Canceled) // in the handler
	})
}

// Contexts that a handler derives end with its own.
func TestHandle_derivedContexts(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		begun, ended := make(chan struct{}), make(chan error, 3)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Stay, func(ctx context.Context, _ struct{}) (struct{}, error) {
			unused, cancel := context.WithCancel(ctx)
			cancel() // unties itself
			derived, cancel := context.WithTimeout(context.WithValue(ctx, lab.TenantKey{}, "x"), time.Hour)
			defer cancel()
			context.AfterFunc(ctx, func() { ended <- unused.Err() })
			close(begun)
			<-derived.Done()
			ended <- derived.Err()
			context.AfterFunc(ctx, func() { ended <- ctx.Err() }) // it has ended
			return struct{}{}, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		f := typedrpc.Go(t.Context(), client, lab.Stay, struct{}{})
		<-begun
		f.Cancel()
		for range 3 {
			is.Equal(<-ended, context.Canceled)
		}
	})
}

// A handler's context has ended when the handler has returned, for what it left
// behind.
func TestHandle_contextEndsWithHandler(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		left := make(chan context.Context, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Sum, func(ctx context.Context, p lab.Pair) (lab.Total, error) {
			left <- ctx
			return lab.HandleSum(ctx, p)
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, lab.Sum, lab.Pair{})
		is.NoErr(err)
		ctx := <-left
		<-ctx.Done()
		is.Equal(ctx.Err(), context.Canceled)
	})
}

func TestMetadata(t *testing.T) {
	is := is.New(t)
	var m typedrpc.Metadata
	is.Equal(m["k"], "")
	m.Set("a", "1")
	m.Set("b", "2")
	is.Equal(m, typedrpc.Metadata{"a": "1", "b": "2"})
}

func TestCall_metadata(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
			r := typedrpc.RequestFrom(ctx)
			r.ReplyMetadata.Set("echo", r.Metadata["trace"]+"/"+r.Metadata["tenant"])
			if n < 0 {
				return 0, typedrpc.NotFound
			}
			return len(r.Metadata), nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		var reply typedrpc.Metadata
		caller := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"trace": "t\"1\"", "tenant": "acme"}, ReplyMetadata: &reply})
		want, entries := typedrpc.Metadata{"echo": "t\"1\"/acme"}, 2
		if o.Plain() {
			want, entries = nil, 0 // it has no place for them
		}

		n, err := typedrpc.Call(t.Context(), caller, lab.Ask, 1)
		is.NoErr(err)
		is.Equal(n, entries)
		is.Equal(reply, want)

		reply = nil
		_, err = typedrpc.Call(t.Context(), caller, lab.Ask, -1)
		is.True(errors.Is(err, typedrpc.NotFound))
		is.Equal(reply, want) // also with an error

		reply = nil
		_, err = typedrpc.Go(t.Context(), caller, lab.Ask, 1).Await(t.Context())
		is.NoErr(err)
		is.Equal(reply, want) // also of a future
	})
}

func TestNotify_metadata(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		got := make(chan string, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(ctx context.Context, _ int) error {
			got <- typedrpc.RequestFrom(ctx).Metadata["k"]
			return nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		caller := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": "v"}})
		is.NoErr(typedrpc.Notify(t.Context(), caller, lab.Tell, 0))
		is.Equal(<-got, "v")
	})
}

func TestMetadata_limits(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Ask, func(ctx context.Context, n int) (int, error) {
			typedrpc.RequestFrom(ctx).ReplyMetadata.Set("big", strings.Repeat("x", 17<<10))
			return n, nil
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, m := range []typedrpc.Metadata{{"k": strings.Repeat("x", 16<<10)}, {"k": "\xff"}} {
			caller := client.With(typedrpc.CallOptions{Metadata: m})
			_, err := typedrpc.Call(t.Context(), caller, lab.Ask, 1)
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			_, err = typedrpc.Go(t.Context(), caller, lab.Ask, 1).Await(t.Context())
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.True(errors.Is(typedrpc.Notify(t.Context(), caller, lab.Tell, 1), typedrpc.InvalidArgument))
		}
		_, err := typedrpc.Call(t.Context(), client, lab.Ask, 1)
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered) // reply metadata over the limit fails the call
		is.True(err != nil)
		is.Equal(client.State(), typedrpc.StateConnected)
	})
}

func TestCallOptions_merge(t *testing.T) {
	lab.OverTyped(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Shout, func(ctx context.Context, _ string) (string, error) {
			b, err := json.Marshal(typedrpc.RequestFrom(ctx).Metadata)
			return string(b), err
		})
		client, _ := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		base := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"a": "1", "b": "1"}})
		more := base.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"b": "2", "c": "2"}}).With(typedrpc.CallOptions{})
		got, err := typedrpc.Call(t.Context(), more, lab.Shout, "")
		is.NoErr(err)
		is.Equal(got, `{"a":"1","b":"2","c":"2"}`)
		got, err = typedrpc.Call(t.Context(), base, lab.Shout, "")
		is.NoErr(err)
		is.Equal(got, `{"a":"1","b":"1"}`) // unchanged by what was derived from it
	})
}
