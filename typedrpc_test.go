package typedrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The end-to-end suite runs the same cases over every transport and in every
// dialect. What concerns one file's subject is in that file's test, and uses
// overAll too.

// over is one column of the table: how the two ends are connected.
type over struct {
	socket  bool // loopback WebSocket; else the pipe
	dialect typedrpc.Dialect
}

// plain reports that nothing beyond JSON-RPC 2.0 crosses: no metadata, no
// limits, no deadlines, no outcome of a refusal.
func (o over) plain() bool { return o.dialect == typedrpc.PlainJSONRPC }

func (o over) String() string {
	transport := "pipe"
	if o.socket {
		transport = "socket"
	}
	return transport + "/" + [...]string{"binary", "jsonrpc", "plain"}[o.dialect]
}

// overAll runs a test once for each transport and dialect.
func overAll(t *testing.T, test func(t *testing.T, o over)) {
	t.Helper()
	for _, socket := range []bool{false, true} {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.JSONRPC, typedrpc.PlainJSONRPC} {
			o := over{socket, d}
			t.Run(o.String(), func(t *testing.T) { test(t, o) })
		}
	}
}

// overTyped leaves out plain JSON-RPC.
func overTyped(t *testing.T, test func(t *testing.T, o over)) {
	t.Helper()
	overAll(t, func(t *testing.T, o over) {
		if !o.plain() {
			test(t, o)
		}
	})
}

// connect connects a client to srv and returns both ends, which are closed when
// the test ends.
func (o over) connect(t *testing.T, srv *typedrpc.Server, opts *typedrpc.DialOptions) (client, server *typedrpc.Conn) {
	t.Helper()
	if opts == nil {
		opts = &typedrpc.DialOptions{}
	}
	opts.Dialect = o.dialect
	quiet(srv, opts)
	if !o.socket {
		return typedrpctest.Pair(t, srv, opts)
	}
	is := is.New(t)
	accepted := make(chan *typedrpc.Conn, 1)
	onConnect := srv.OnConnect
	srv.OnConnect = func(c *typedrpc.Conn) {
		select {
		case accepted <- c:
		default:
		}
		if onConnect != nil {
			onConnect(c)
		}
	}
	hs := httptest.NewServer(srv)
	client, err := typedrpc.Dial(t.Context(), hs.URL, opts)
	is.NoErr(err) // Dial over loopback
	server = <-accepted
	t.Cleanup(func() {
		client.Close()
		server.Close()
		hs.Close()
	})
	return client, server
}

// dial is connect for handshakes that fail.
func (o over) dial(t *testing.T, srv *typedrpc.Server, opts *typedrpc.DialOptions) (*typedrpc.Conn, error) {
	t.Helper()
	opts.Dialect = o.dialect
	quiet(srv, opts)
	if !o.socket {
		client, _, err := typedrpctest.Dial(srv, opts)
		return client, err
	}
	hs := httptest.NewServer(srv)
	t.Cleanup(hs.Close)
	return typedrpc.Dial(t.Context(), hs.URL, opts)
}

// quiet keeps the logs of tests that do not look at them out of sight.
func quiet(srv *typedrpc.Server, opts *typedrpc.DialOptions) {
	if srv.Logger == nil {
		srv.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
}

// logs is a log that a test can look at.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// asError returns err as the *Error that every verb promises.
func asError(t *testing.T, err error) *typedrpc.Error {
	t.Helper()
	is := is.New(t)
	is.Helper()
	var e *typedrpc.Error
	is.True(errors.As(err, &e)) // the error is an *Error
	return e
}

// The API of the suite.
type (
	pairOf struct{ A, B int }
	total  struct{ Sum int }
)

var (
	sum     = typedrpc.NewMethod[pairOf, total]("math.sum")
	shout   = typedrpc.NewMethod[string, string]("text.shout")
	hang    = typedrpc.NewMethod[typedrpc.Empty, typedrpc.Empty]("hang")
	ask     = typedrpc.NewMethod[int, int]("ask")
	tell    = typedrpc.NewNotification[int]("tell")
	ordered = typedrpc.NewMethod[int, int]("ordered", typedrpc.Serial)
)

func handleSum(_ context.Context, p pairOf) (total, error) { return total{p.A + p.B}, nil }

func handleShout(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }

// hanging is a handler of hang that says when it has begun and why it ended.
type hanging struct {
	begun chan struct{}
	ended chan error
}

func newHanging() hanging { return hanging{make(chan struct{}, 100), make(chan error, 100)} }

func (h hanging) handle(ctx context.Context, _ typedrpc.Empty) (typedrpc.Empty, error) {
	h.begun <- struct{}{}
	<-ctx.Done()
	h.ended <- ctx.Err()
	return typedrpc.Empty{}, ctx.Err()
}

// echoed is one type that goes there and back.
type echoed struct {
	name string
	add  func(*typedrpc.Mux)
	call func(context.Context, typedrpc.Caller) (sent, got string, err error)
}

func echoOf[T any](name string, v T, traits ...typedrpc.Trait) echoed {
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
		echoOf("empty", typedrpc.Empty{}),
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
	overAll(t, func(t *testing.T, o over) {
		mux := typedrpc.NewMux()
		for _, e := range echoes() {
			e.add(mux)
		}
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
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
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		pass := typedrpc.NewMethod[typedrpc.Raw, typedrpc.Raw]("pass")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, pass, func(_ context.Context, r typedrpc.Raw) (typedrpc.Raw, error) { return r, nil })
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)

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
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		broken := typedrpc.NewMethod[typedrpc.Empty, typedrpc.Raw]("broken")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, broken, func(context.Context, typedrpc.Empty) (typedrpc.Raw, error) {
			return typedrpc.Raw(`1,"jsonrpc":"2.0"`), nil
		})
		typedrpc.Handle(mux, sum, handleSum)
		var log logs
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux, Logger: log.logger()}, nil)

		_, err := typedrpc.Call(t.Context(), client, broken, typedrpc.Empty{})
		is.True(errors.Is(err, typedrpc.Internal)) // it never reached the wire
		is.True(log.has("Raw is no JSON value"))
		_, err = typedrpc.Call(t.Context(), client, sum, pairOf{1, 2})
		is.NoErr(err) // the link lives on
	})
}

func TestCall_bothWays(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		serverMux, clientMux := typedrpc.NewMux(), typedrpc.NewMux()
		typedrpc.Handle(serverMux, sum, handleSum)
		typedrpc.Handle(clientMux, shout, handleShout)
		client, server := o.connect(t, &typedrpc.Server{Mux: serverMux}, &typedrpc.DialOptions{Mux: clientMux})

		r, err := typedrpc.Call(t.Context(), client, sum, pairOf{3, 4})
		is.NoErr(err)
		is.Equal(r.Sum, 7)
		s, err := typedrpc.Call(t.Context(), server, shout, "hey")
		is.NoErr(err)
		is.Equal(s, "HEY")
	})
}

func TestCall_nested(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		// Each side answers ask(n) with 1 + what the other says of n-1.
		bounce := func(ctx context.Context, n int) (int, error) {
			if n == 0 {
				return 0, nil
			}
			below, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), ask, n-1)
			return below + 1, err
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, bounce)
		client, server := o.connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		for _, c := range []*typedrpc.Conn{client, server} {
			depth, err := typedrpc.Call(t.Context(), c, ask, 40)
			is.NoErr(err)
			is.Equal(depth, 40)
		}
	})
}

func TestConnFrom_theOtherEnd(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		seen := make(chan *typedrpc.Conn, 1)
		typedrpc.Handle(mux, shout, func(ctx context.Context, s string) (string, error) {
			seen <- typedrpc.ConnFrom(ctx)
			r := typedrpc.RequestFrom(ctx)
			return fmt.Sprint(r.Method, " ", r.Kind, " ", r.Conn == typedrpc.ConnFrom(ctx)), nil
		})
		client, server := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		got, err := typedrpc.Call(t.Context(), client, shout, "")
		is.NoErr(err)
		is.Equal(got, "text.shout call true")
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
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		const n = 300
		var got []string // one goroutine at a time: no lock, the race detector watches
		done := make(chan []string, 1)
		mux := typedrpc.NewMux()
		typedrpc.HandleNotification(mux, tell, func(_ context.Context, i int) { got = append(got, fmt.Sprint("first ", i)) })
		typedrpc.HandleNotification(mux, tell, func(_ context.Context, i int) {
			got = append(got, fmt.Sprint("second ", i))
			if i == n-1 {
				done <- got
			}
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		var want []string
		for i := range n {
			is.NoErr(typedrpc.Notify(t.Context(), client, tell, i))
			want = append(want, fmt.Sprint("first ", i), fmt.Sprint("second ", i))
		}
		is.Equal(<-done, want)
	})
}

func TestNotify_fromServer(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		got := make(chan int, 1)
		mux := typedrpc.NewMux()
		typedrpc.HandleNotification(mux, tell, func(_ context.Context, i int) { got <- i })
		_, server := o.connect(t, &typedrpc.Server{}, &typedrpc.DialOptions{Mux: mux})
		is.NoErr(typedrpc.Notify(t.Context(), server, tell, 5))
		is.Equal(<-got, 5)
	})
}

func TestNotify_nobodyListens(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, sum, handleSum)
		unheard := typedrpc.NewNotification[[]byte]("unheard")
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{Window: 1024}}, nil)
		for range 100 { // far beyond the window: the dropped are credited too
			is.NoErr(typedrpc.Notify(t.Context(), client, unheard, make([]byte, 200)))
		}
		_, err := typedrpc.Call(t.Context(), client, sum, pairOf{})
		is.NoErr(err)
	})
}

func TestNotify_waitsForWindow(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		release := make(chan struct{})
		mux := typedrpc.NewMux()
		typedrpc.HandleNotification(mux, tell, func(context.Context, int) { <-release })
		srv := &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{Window: 1024}}
		client, _ := o.connect(t, srv, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		sent := 0
		var err error
		for err == nil && sent < 1000 {
			if err = typedrpc.Notify(ctx, client, tell, sent); err == nil {
				sent++
			}
		}
		is.True(errors.Is(err, context.DeadlineExceeded)) // the window was spent
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(sent <= 1024/64)
		close(release)
		is.NoErr(typedrpc.Notify(t.Context(), client, tell, 1)) // and given back
	})
}

func TestSerial_order(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		var order []int // unlocked on purpose
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ordered, func(_ context.Context, i int) (int, error) {
			order = append(order, i)
			return len(order), nil
		})
		typedrpc.HandleNotification(mux, tell, func(_ context.Context, i int) { order = append(order, i) })
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		var futures []*typedrpc.Future[int]
		var want []int
		for i := range 100 {
			if i%3 == 0 {
				is.NoErr(typedrpc.Notify(t.Context(), client, tell, i))
			} else {
				futures = append(futures, typedrpc.Go(t.Context(), client, ordered, i))
			}
			want = append(want, i)
		}
		// The last one comes after all others.
		_, err := typedrpc.Call(t.Context(), client, ordered, 100)
		is.NoErr(err)
		is.Equal(order, append(want, 100))
		_, err = typedrpc.All(t.Context(), futures...)
		is.NoErr(err)
	})
}

func TestCall_concurrent(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		const n = 100
		var inside sync.WaitGroup // every handler waits until all of them run
		inside.Add(n)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, func(_ context.Context, i int) (int, error) {
			inside.Done()
			inside.Wait()
			return i * i, nil
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		errs := make(chan error, n)
		for i := range n {
			go func() {
				got, err := typedrpc.Call(t.Context(), client, ask, i)
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
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		h := newHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, hang, h.handle)
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		errs := make(chan error, 1)
		go func() {
			_, err := typedrpc.Call(ctx, client, hang, typedrpc.Empty{})
			errs <- err
		}()
		<-h.begun
		cause := errors.New("changed my mind")
		cancel(cause)
		err := <-errs
		is.True(errors.Is(err, context.Canceled))
		is.True(errors.Is(err, cause)) // the local cause is at hand
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun)
		is.Equal(<-h.ended, context.Canceled) // in the handler
	})
}

// Contexts that a handler derives end with its own.
func TestHandle_derivedContexts(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		begun, ended := make(chan struct{}), make(chan error, 3)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, hang, func(ctx context.Context, _ typedrpc.Empty) (typedrpc.Empty, error) {
			unused, cancel := context.WithCancel(ctx)
			cancel() // unties itself
			derived, cancel := context.WithTimeout(context.WithValue(ctx, tenantKey{}, "x"), time.Hour)
			defer cancel()
			context.AfterFunc(ctx, func() { ended <- unused.Err() })
			close(begun)
			<-derived.Done()
			ended <- derived.Err()
			context.AfterFunc(ctx, func() { ended <- ctx.Err() }) // it has ended
			return typedrpc.Empty{}, nil
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		f := typedrpc.Go(t.Context(), client, hang, typedrpc.Empty{})
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
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		left := make(chan context.Context, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, sum, func(ctx context.Context, p pairOf) (total, error) {
			left <- ctx
			return handleSum(ctx, p)
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, sum, pairOf{})
		is.NoErr(err)
		ctx := <-left
		<-ctx.Done()
		is.Equal(ctx.Err(), context.Canceled)
	})
}

func TestMetadata(t *testing.T) {
	is := is.New(t)
	var m typedrpc.Metadata
	is.Equal(m.Get("k"), "")
	is.Equal(len(m.Keys()), 0)
	m.Set("a", "1")
	m.Set("b", "2")
	keys := m.Keys()
	slices.Sort(keys)
	is.Equal(keys, []string{"a", "b"})
	got := typedrpc.Metadata{}
	for k, v := range m.All() {
		got[k] = v
	}
	is.Equal(got, m)
}

func TestCall_contextEndedBefore(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		ran := make(chan struct{}, 1)
		typedrpc.Handle(mux, hang, func(context.Context, typedrpc.Empty) (typedrpc.Empty, error) {
			ran <- struct{}{}
			return typedrpc.Empty{}, nil
		})
		typedrpc.Handle(mux, sum, handleSum)
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := typedrpc.Call(ctx, client, hang, typedrpc.Empty{})
		is.True(errors.Is(err, context.Canceled))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(typedrpc.Notify(ctx, client, tell, 1), context.Canceled))
		_, err = typedrpc.Go(ctx, client, hang, typedrpc.Empty{}).Await(t.Context())
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		_, err = typedrpc.Call(t.Context(), client, sum, pairOf{})
		is.NoErr(err)
		is.Equal(len(ran), 0) // the handler never saw them
	})
}

func TestCall_deadlineTravels(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		// ask(n): the time left in milliseconds after n more hops.
		left := func(ctx context.Context, n int) (int, error) {
			d, ok := ctx.Deadline()
			switch {
			case !ok:
				return -1, nil
			case n == 0:
				return int(time.Until(d).Milliseconds()), nil
			}
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), ask, n-1)
		}
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, left)
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{Mux: mux})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		got, err := typedrpc.Call(ctx, client, ask, 3)
		is.NoErr(err)
		is.True(got > 0)
		is.True(got <= int(time.Hour.Milliseconds()))

		got, err = typedrpc.Call(t.Context(), client, ask, 3)
		is.NoErr(err)
		is.Equal(got, -1) // no deadline, none made up
	})
}

func TestCall_deadlineShrinks(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		h := newHanging()
		serverMux, clientMux := typedrpc.NewMux(), typedrpc.NewMux()
		typedrpc.Handle(clientMux, hang, h.handle)
		typedrpc.Handle(serverMux, ask, func(ctx context.Context, _ int) (int, error) {
			_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), hang, typedrpc.Empty{})
			return 0, err
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: serverMux}, &typedrpc.DialOptions{Mux: clientMux})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := typedrpc.Call(ctx, client, ask, 0)
		is.True(errors.Is(err, context.DeadlineExceeded))
		<-h.begun
		is.True(<-h.ended != nil) // the innermost handler was told
	})
}

func TestTimeout_boundsCall(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		h := newHanging()
		brief := typedrpc.NewMethod[typedrpc.Empty, typedrpc.Empty]("brief", typedrpc.Timeout(20*time.Millisecond))
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, brief, h.handle)
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, brief, typedrpc.Empty{})
		is.True(errors.Is(err, context.DeadlineExceeded))
		_, err = typedrpc.Go(t.Context(), client, brief, typedrpc.Empty{}).Await(t.Context())
		is.True(errors.Is(err, context.DeadlineExceeded))
	})
}

func TestCall_metadata(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, func(ctx context.Context, n int) (int, error) {
			r := typedrpc.RequestFrom(ctx)
			r.Reply.Set("echo", r.Metadata.Get("trace")+"/"+r.Metadata.Get("tenant"))
			if n < 0 {
				return 0, typedrpc.NotFound
			}
			return len(r.Metadata), nil
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		var reply typedrpc.Metadata
		caller := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"trace": "t\"1\"", "tenant": "acme"}, Reply: &reply})
		want, entries := typedrpc.Metadata{"echo": "t\"1\"/acme"}, 2
		if o.plain() {
			want, entries = nil, 0 // it has no place for them
		}

		n, err := typedrpc.Call(t.Context(), caller, ask, 1)
		is.NoErr(err)
		is.Equal(n, entries)
		is.Equal(reply, want)

		reply = nil
		_, err = typedrpc.Call(t.Context(), caller, ask, -1)
		is.True(errors.Is(err, typedrpc.NotFound))
		is.Equal(reply, want) // also with an error

		reply = nil
		_, err = typedrpc.Go(t.Context(), caller, ask, 1).Await(t.Context())
		is.NoErr(err)
		is.Equal(reply, want) // also of a future
	})
}

func TestNotify_metadata(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		got := make(chan string, 1)
		mux := typedrpc.NewMux()
		typedrpc.HandleNotification(mux, tell, func(ctx context.Context, _ int) {
			got <- typedrpc.RequestFrom(ctx).Metadata.Get("k")
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		caller := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"k": "v"}})
		is.NoErr(typedrpc.Notify(t.Context(), caller, tell, 0))
		is.Equal(<-got, "v")
	})
}

func TestMetadata_limits(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, func(ctx context.Context, n int) (int, error) {
			typedrpc.RequestFrom(ctx).Reply.Set("big", strings.Repeat("x", 17<<10))
			return n, nil
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		for _, m := range []typedrpc.Metadata{{"k": strings.Repeat("x", 16<<10)}, {"k": "\xff"}} {
			caller := client.With(typedrpc.CallOptions{Metadata: m})
			_, err := typedrpc.Call(t.Context(), caller, ask, 1)
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
			_, err = typedrpc.Go(t.Context(), caller, ask, 1).Await(t.Context())
			is.True(errors.Is(err, typedrpc.InvalidArgument))
			is.True(errors.Is(typedrpc.Notify(t.Context(), caller, tell, 1), typedrpc.InvalidArgument))
		}
		_, err := typedrpc.Call(t.Context(), client, ask, 1)
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered) // reply metadata over the limit fails the call
		is.True(err != nil)
		is.Equal(client.State(), typedrpc.Connected)
	})
}

func TestCallOptions_merge(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, shout, func(ctx context.Context, _ string) (string, error) {
			b, err := json.Marshal(typedrpc.RequestFrom(ctx).Metadata)
			return string(b), err
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		base := client.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"a": "1", "b": "1"}})
		more := base.With(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"b": "2", "c": "2"}}).With(typedrpc.CallOptions{})
		got, err := typedrpc.Call(t.Context(), more, shout, "")
		is.NoErr(err)
		is.Equal(got, `{"a":"1","b":"2","c":"2"}`)
		got, err = typedrpc.Call(t.Context(), base, shout, "")
		is.NoErr(err)
		is.Equal(got, `{"a":"1","b":"1"}`) // unchanged by what was derived from it
	})
}

func TestMaxSize(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		small := typedrpc.NewMethod[string, string]("small", typedrpc.MaxSize(100))
		note := typedrpc.NewNotification[string]("note", typedrpc.MaxSize(100))
		ran := make(chan string, 10)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, small, func(_ context.Context, s string) (string, error) {
			ran <- s
			return strings.Repeat(s, 60), nil
		})
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)

		got, err := typedrpc.Call(t.Context(), client, small, "x")
		is.NoErr(err)
		is.Equal(len(got), 60)
		is.Equal(<-ran, "x")

		_, err = typedrpc.Call(t.Context(), client, small, strings.Repeat("x", 100)) // with quotes it is 102
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.Equal(len(ran), 0)

		_, err = typedrpc.Call(t.Context(), client, small, "xx")
		is.True(errors.Is(err, typedrpc.ResourceExhausted)) // the response of 122 bytes
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)

		err = typedrpc.Notify(t.Context(), client, note, strings.Repeat("x", 100))
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
	})
}

func TestMaxSize_checkedByReceiver(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		// The same names, declared without a bound by a careless client.
		strict := typedrpc.NewMethod[string, string]("x.call", typedrpc.MaxSize(10))
		loose := typedrpc.NewMethod[string, string]("x.call")
		strictNote := typedrpc.NewNotification[string]("x.note", typedrpc.MaxSize(10))
		looseNote := typedrpc.NewNotification[string]("x.note")
		noted := make(chan string, 2)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, strict, handleShout)
		typedrpc.HandleNotification(mux, strictNote, func(_ context.Context, s string) { noted <- s })
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux}, nil)
		_, err := typedrpc.Call(t.Context(), client, loose, "0123456789")
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.NoErr(typedrpc.Notify(t.Context(), client, looseNote, "0123456789"))
		is.NoErr(typedrpc.Notify(t.Context(), client, looseNote, "ok"))
		is.Equal(<-noted, "ok") // the large one was dropped
	})
}

func TestLimits_tooBigFailsTheCall(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		grow := typedrpc.NewMethod[int, string]("grow")
		note := typedrpc.NewNotification[string]("note")
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, grow, func(_ context.Context, n int) (string, error) { return strings.Repeat("x", n), nil })
		typedrpc.Handle(mux, shout, handleShout)
		limits := typedrpc.Limits{MaxMessage: 10_000}
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Limits: limits})
		big := strings.Repeat("x", 20_000)

		_, err := typedrpc.Call(t.Context(), client, shout, big)
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent) // refused locally
		_, err = typedrpc.Call(t.Context(), client, grow, len(big))
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.Answered)
		err = typedrpc.Notify(t.Context(), client, note, big)
		is.True(errors.Is(err, typedrpc.ResourceExhausted))
		_, err = typedrpc.Go(t.Context(), client, shout, big).Await(t.Context())
		is.True(errors.Is(err, typedrpc.ResourceExhausted))

		got, err := typedrpc.Call(t.Context(), client, grow, 9_000)
		is.NoErr(err) // the link never broke
		is.Equal(len(got), 9_000)
		is.Equal(client.State(), typedrpc.Connected)
	})
}

func TestLimits_bytesInFlight(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		var running, most atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, shout, func(_ context.Context, s string) (string, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			return s[:1], nil
		})
		// Two requests of 9,000 bytes are more than the server holds: the
		// client waits with the second.
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxBuffered: 10_000}}, nil)
		var futures []*typedrpc.Future[string]
		for range 20 {
			futures = append(futures, typedrpc.Go(t.Context(), client, shout, strings.Repeat("x", 9_000)))
		}
		_, err := typedrpc.All(t.Context(), futures...)
		is.NoErr(err) // none was refused
		is.Equal(most.Load(), int32(1))
	})
}

func TestLimits_callersWait(t *testing.T) {
	overAll(t, func(t *testing.T, o over) {
		is := is.New(t)
		var running, most atomic.Int32
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, ask, func(_ context.Context, n int) (int, error) {
			now := running.Add(1)
			for {
				seen := most.Load()
				if now <= seen || most.CompareAndSwap(seen, now) {
					break
				}
			}
			defer running.Add(-1)
			return n, nil
		})
		limits := typedrpc.Limits{MaxCalls: 2}
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux, Limits: limits}, &typedrpc.DialOptions{Limits: limits})
		var futures []*typedrpc.Future[int]
		for i := range 200 {
			futures = append(futures, typedrpc.Go(t.Context(), client, ask, i))
		}
		got, err := typedrpc.All(t.Context(), futures...)
		is.NoErr(err) // none was refused
		is.Equal(got[199], 199)
		is.True(most.Load() <= 2)
	})
}

func TestLimits_waitingEndsWithContext(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		h := newHanging()
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, hang, h.handle)
		client, _ := o.connect(t, &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{MaxCalls: 1}}, nil)
		first := typedrpc.Go(t.Context(), client, hang, typedrpc.Empty{})
		<-h.begun
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := typedrpc.Call(ctx, client, hang, typedrpc.Empty{})
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		first.Cancel()
		<-h.ended
		is.Equal(len(h.begun), 0)
	})
}

func TestLimits_handlersDoNotWait(t *testing.T) {
	overTyped(t, func(t *testing.T, o over) {
		is := is.New(t)
		h := newHanging()
		serverMux, clientMux := typedrpc.NewMux(), typedrpc.NewMux()
		typedrpc.Handle(clientMux, hang, h.handle)
		typedrpc.Handle(clientMux, shout, handleShout)
		typedrpc.Handle(serverMux, shout, func(ctx context.Context, s string) (string, error) {
			return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), shout, s)
		})
		client, server := o.connect(t, &typedrpc.Server{Mux: serverMux},
			&typedrpc.DialOptions{Mux: clientMux, Limits: typedrpc.Limits{MaxCalls: 1}})
		busy := typedrpc.Go(t.Context(), server, hang, typedrpc.Empty{})
		<-h.begun
		_, err := typedrpc.Call(t.Context(), client, shout, "x")
		e := asError(t, err)
		is.Equal(e.Code, typedrpc.ResourceExhausted)
		is.Equal(e.Outcome, typedrpc.Answered)
		is.True(strings.Contains(e.Message, "a handler of the same connection must not wait"))
		busy.Cancel()
		<-h.ended
	})
}
