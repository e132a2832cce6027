package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestBroadcast_encodedOnce(t *testing.T) {
	is := is.New(t)
	srv := &typedrpc.Server{}
	got := make(chan string, 100)
	const each = 3
	for i := range each {
		for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text, typedrpc.JSONRPC} {
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, news, func(_ context.Context, c counted) error { got <- fmt.Sprint(d, i, c.text); return nil })
			lab.Over{Dialect: d}.Connect(t, srv, &typedrpc.DialOptions{Mux: mux})
		}
	}
	encoded := new(atomic.Int32)
	is.NoErr(typedrpc.Broadcast(t.Context(), srv.Conns(), news, counted{"hello", encoded}))
	seen := map[string]bool{}
	for range 3 * each {
		seen[<-got] = true
	}
	is.Equal(len(seen), 3*each)                          // every client, once
	is.True(encoded.Load() <= 2)                         // once for each dialect that wants it checked, at most
	is.True(strings.Contains(fmt.Sprint(seen), "hello")) // and readable
}

var news = typedrpc.NewNotification[counted]("news")

// counted counts how often it is encoded.
type counted struct {
	text string
	n    *atomic.Int32
}

func (c *counted) AppendJSON(dst []byte) ([]byte, error) {
	if c.n != nil {
		c.n.Add(1)
	}
	return fmt.Appendf(dst, "%q", c.text), nil
}

func (c *counted) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &c.text) }

func TestBroadcast_joinsErrors(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		got := make(chan int, 1)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Tell, func(_ context.Context, i int) error { got <- i; return nil })
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux}, nil)
		dead, _ := lab.Over{}.Connect(t, &typedrpc.Server{}, nil)
		dead.Close()
		err := typedrpc.Broadcast(t.Context(), slices.Values([]*typedrpc.Conn{dead, client}), lab.Tell, 8)
		is.True(errors.Is(err, typedrpc.Unavailable)) // of the dead one
		is.Equal(<-got, 8)                            // the living one was served
		is.NoErr(typedrpc.Broadcast(t.Context(), slices.Values([]*typedrpc.Conn{server}), lab.Tell, 8))
	})
}

// Each error of a Broadcast says which connection it is of, and is an *Error for all that:
// of those that fail at once, that are behind, whose interceptors fail, and of clients.
func TestBroadcast_saysWhose(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		srv := &typedrpc.Server{Logger: slog.New(slog.DiscardHandler), SignIn: lab.Sign.Verify(func(_ context.Context, _ *http.Request, name *string) (typedrpc.Identity, int, error) {
			return typedrpc.Identity{Subject: *name}, 0, nil
		})}
		hold := make(chan struct{})
		mux := typedrpc.NewMux()
		news := typedrpc.NewNotification[string]("news")
		typedrpc.Handle(mux, news, func(context.Context, string) error { <-hold; return nil })
		dial := func(name string) (c, s *typedrpc.Conn) {
			c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{
				Dialect: d, Mux: mux,
				SignIn: lab.Sign.Present(func(context.Context) (string, error) { return name, nil }),
			})
			is.NoErr(err)
			return c, s
		}
		slow, ann := dial("ann")
		gone, bob := dial("bob")
		gone.Close()
		<-bob.Context().Done()
		well, carl := dial("carl")
		nameless, nobody := dial("")
		nameless.Close()
		<-nobody.Context().Done()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for typedrpc.Notify(ctx, ann, news, strings.Repeat("x", 10_000)) == nil {
		}
		refuses := func(end func()) typedrpc.Caller {
			return carl.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
				end()
				return nil, typedrpc.PermissionDenied
			}}})
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := typedrpc.Broadcast(ctx, slices.Values([]typedrpc.Caller{ann, bob, refuses(func() {}), refuses(func() { panic("no") }), nobody, nil}), news, strings.Repeat("y", 10_000))
		lines := strings.Split(err.Error(), "\n")
		whose := []string{
			`"bob" at pipe: unavailable: `,
			`"carl" at pipe: permission denied`,
			`"carl" at pipe: internal: `,
			"pipe: unavailable: ",
			`connection 6: invalid argument: `,
			`"ann" at pipe: deadline exceeded`, // after the others
		}
		is.Equal(len(lines), len(whose))
		for i, want := range whose {
			is.True(strings.HasPrefix(lines[i], want))
		}
		for _, each := range err.(interface{ Unwrap() []error }).Unwrap() {
			var e *typedrpc.Error
			is.True(errors.As(each, &e))
		}
		is.True(errors.Is(err, context.DeadlineExceeded))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.MayHaveRun) // the panic

		err = typedrpc.Broadcast(t.Context(), slices.Values([]*typedrpc.Conn{well, gone}), lab.Tell, 1) // clients know no subjects
		is.True(strings.HasPrefix(err.Error(), "connection 2: unavailable"))
		close(hold)
		for _, c := range []*typedrpc.Conn{slow, well} {
			c.Close()
		}
	})
}

func TestPick_askedPerAttempt(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		flaky, steady := typedrpc.NewMux(), typedrpc.NewMux()
		try := typedrpc.NewMethod[int, int]("try", typedrpc.Idempotent)
		typedrpc.Handle(flaky, try, func(context.Context, int) (int, error) { return 0, typedrpc.Code(200) })
		typedrpc.Handle(steady, try, func(_ context.Context, n int) (int, error) { return n, nil })
		a, _ := o.Connect(t, &typedrpc.Server{Mux: flaky}, nil)
		b, _ := o.Connect(t, &typedrpc.Server{Mux: steady}, nil)
		var asked []string
		pick := typedrpc.Pick(func(_ context.Context, method string) (*typedrpc.Conn, error) {
			asked = append(asked, method)
			if len(asked) < 3 {
				return a, nil
			}
			return b, nil
		}).With(typedrpc.CallOptions{Retry: &typedrpc.RetryPolicy{MaxAttempts: 5, Codes: []typedrpc.Code{200}, Backoff: typedrpc.Backoff{Min: 1, Max: 1}}})
		got, err := typedrpc.Call(t.Context(), pick, try, 6)
		is.NoErr(err)
		is.Equal(got, 6)
		is.Equal(asked, []string{"try", "try", "try"})
	})
}

func TestPick_fails(t *testing.T) {
	is := is.New(t)
	cause := errors.New("the pool is empty")
	pick := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return nil, cause })
	_, err := typedrpc.Call(t.Context(), pick, lab.Sum, lab.Pair{})
	is.True(errors.Is(err, typedrpc.Unavailable))
	is.True(errors.Is(err, cause))
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
	is.True(errors.Is(typedrpc.Notify(t.Context(), pick, lab.Tell, 1), typedrpc.Unavailable))
	_, err = typedrpc.Go(t.Context(), pick, lab.Sum, lab.Pair{}).Await(t.Context())
	is.True(errors.Is(err, cause))

	own := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
		return nil, typedrpc.Errorf(typedrpc.PermissionDenied, "not for you")
	})
	_, err = typedrpc.Call(t.Context(), own, lab.Sum, lab.Pair{})
	is.True(errors.Is(err, typedrpc.PermissionDenied))

	// A Code is an error as an *Error is, also here.
	coded := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) {
		return nil, fmt.Errorf("no room: %w", typedrpc.ResourceExhausted)
	})
	_, err = typedrpc.Call(t.Context(), coded, lab.Sum, lab.Pair{})
	is.Equal(typedrpc.CodeOf(err), typedrpc.ResourceExhausted) // errors.Is would find the cause, too
	is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)

	none := typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return nil, nil })
	_, err = typedrpc.Call(t.Context(), none, lab.Sum, lab.Pair{})
	is.True(errors.Is(err, typedrpc.Unavailable))
}

func TestFailFast_withoutLink(t *testing.T) {
	lab.OverAll(t, func(t *testing.T, o lab.Over) {
		is := is.New(t)
		mux := typedrpc.NewMux()
		typedrpc.Handle(mux, lab.Sum, lab.HandleSum)
		waiting := make(chan struct{}, 1)
		client, server := o.Connect(t, &typedrpc.Server{Mux: mux}, &typedrpc.DialOptions{
			Backoff: typedrpc.Backoff{Min: 1000 * time.Hour, Max: 1000 * time.Hour},
			OnState: func(s typedrpc.StateChange) {
				if s.State == typedrpc.StateWaiting {
					waiting <- struct{}{}
				}
			},
		})
		server.Close()
		<-waiting
		fast := client.With(typedrpc.CallOptions{FailFast: true})
		_, err := typedrpc.Call(t.Context(), fast, lab.Sum, lab.Pair{A: 1, B: 1})
		is.True(errors.Is(err, typedrpc.Unavailable))
		is.Equal(typedrpc.OutcomeOf(err), typedrpc.NotSent)
		is.True(errors.Is(typedrpc.Notify(t.Context(), fast, lab.Tell, 1), typedrpc.Unavailable))

		patient := typedrpc.Go(t.Context(), client, lab.Sum, lab.Pair{A: 1, B: 1})
		client.Reconnect()
		got, err := patient.Await(t.Context())
		is.NoErr(err) // sent on the new link
		is.Equal(got.Sum, 2)
	})
}
