package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// unsendable is a message that no codec carries.
type unsendable struct{}

func (unsendable) MarshalJSON() ([]byte, error) { return nil, errors.New("no") }

// checked is a request that validates itself.
type checked int

func (c checked) Validate() error {
	if c < 0 {
		return errors.New("negative")
	}
	return nil
}

// The table of doc.go, row by row: what each kind of refusal, and of other ends without a
// handler's word, says of whether calling again is safe.
func TestOutcome_ofEachRefusal(t *testing.T) {
	ask := typedrpc.NewMethod[int, int]("ask")
	text := typedrpc.NewMethod[string, string]("text")
	small := typedrpc.NewMethod[string, string]("text", typedrpc.MaxSize(100))
	serial := typedrpc.NewMethod[int, int]("serial", typedrpc.Serial)
	keyed := typedrpc.NewMethod[int, int]("keyed", typedrpc.Keyed)
	sent := typedrpc.NewMethod[unsendable, int]("sent")
	got := typedrpc.NewMethod[int, unsendable]("got")
	valid := typedrpc.NewMethod[checked, int]("valid")
	hang := typedrpc.NewMethod[int, int]("hang")
	flow := typedrpc.NewServerStream[int, int]("flow")
	guarded := typedrpc.NewMethod[int, int]("guarded")

	type world struct {
		ctx    context.Context
		conn   *typedrpc.Conn
		server *typedrpc.Conn
		nested <-chan error // of the call that the handler of the client's ask makes
	}
	call := func(ctx context.Context, c typedrpc.Caller, m typedrpc.Method[int, int], n int) error {
		_, err := typedrpc.Call(ctx, c, m, n)
		return err
	}
	with := func(o typedrpc.CallOptions) func(w world) error {
		return func(w world) error { return call(w.ctx, w.conn.With(o), ask, 1) }
	}
	rows := []struct {
		name string
		do   func(w world) error
		code typedrpc.Code
		out  typedrpc.Outcome
	}{
		{"no Conn", func(w world) error { return call(w.ctx, nil, ask, 1) }, typedrpc.InvalidArgument, typedrpc.NotSent},
		{"both FailFast and WaitForLink", with(typedrpc.CallOptions{FailFast: true, WaitForLink: true}), typedrpc.InvalidArgument, typedrpc.NotSent},
		{"a key for what is not Keyed", with(typedrpc.CallOptions{Key: idempotency.NewKey()}), typedrpc.InvalidArgument, typedrpc.NotSent},
		{"metadata of over 16 KiB", with(typedrpc.CallOptions{Metadata: typedrpc.Metadata{"x": strings.Repeat("x", 17<<10)}}), typedrpc.InvalidArgument, typedrpc.NotSent},
		{"a request that cannot be encoded", func(w world) error { _, err := typedrpc.Call(w.ctx, w.conn, sent, unsendable{}); return err }, typedrpc.InvalidArgument, typedrpc.NotSent},
		{"a request over MaxSize", func(w world) error {
			_, err := typedrpc.Call(w.ctx, w.conn, small, strings.Repeat("x", 200))
			return err
		}, typedrpc.ResourceExhausted, typedrpc.NotSent},
		{"a request over the peer's MaxMessage", func(w world) error {
			_, err := typedrpc.Call(w.ctx, w.conn, text, strings.Repeat("x", 20_000))
			return err
		}, typedrpc.ResourceExhausted, typedrpc.NotSent},
		{"a context that has ended", func(w world) error {
			ctx, cancel := context.WithCancel(w.ctx)
			cancel()
			return call(ctx, w.conn, ask, 1)
		}, typedrpc.Canceled, typedrpc.NotSent},
		{"Pick's error", func(w world) error {
			return call(w.ctx, typedrpc.Pick(func(context.Context, string) (*typedrpc.Conn, error) { return nil, errors.New("none") }), ask, 1)
		}, typedrpc.Unavailable, typedrpc.NotSent},
		{"an outgoing interceptor that does not call next", with(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{refuseAll}}), typedrpc.PermissionDenied, typedrpc.NotSent},
		{"a connection that is closed", func(w world) error { w.conn.Close(); return call(w.ctx, w.conn, ask, 1) }, typedrpc.Unavailable, typedrpc.NotSent},
		{"no link, and FailFast", func(w world) error {
			w.server.Close()
			synctest.Wait() // it waits before it dials again
			return call(w.ctx, w.conn.With(typedrpc.CallOptions{FailFast: true}), ask, 1)
		}, typedrpc.Unavailable, typedrpc.NotSent},
		{"no such name", func(w world) error { return call(w.ctx, w.conn, typedrpc.NewMethod[int, int]("nobody's"), 1) }, typedrpc.Unimplemented, typedrpc.NotSent},
		{"a name of another kind", func(w world) error {
			return last(typedrpc.Receive(w.ctx, w.conn, typedrpc.NewServerStream[int, int]("ask"), 1))
		}, typedrpc.Unimplemented, typedrpc.NotSent},
		{"a Serial call that the lane waits for", func(w world) error {
			call(w.ctx, w.conn, serial, 1)
			return <-w.nested
		}, typedrpc.FailedPrecondition, typedrpc.NotSent},
		{"a request that does not decode", func(w world) error {
			_, err := typedrpc.Call(w.ctx, w.conn, typedrpc.NewMethod[string, int]("ask"), "x")
			return err
		}, typedrpc.InvalidArgument, typedrpc.Answered},
		{"Validate", func(w world) error { _, err := typedrpc.Call(w.ctx, w.conn, valid, -1); return err }, typedrpc.InvalidArgument, typedrpc.Answered},
		{"an incoming interceptor", func(w world) error { return call(w.ctx, w.conn, guarded, 1) }, typedrpc.PermissionDenied, typedrpc.Answered},
		{"a key with another request", func(w world) error {
			c := w.conn.With(typedrpc.CallOptions{Key: idempotency.NewKey()})
			if err := call(w.ctx, c, keyed, 1); err != nil {
				return err
			}
			return call(w.ctx, c, keyed, 2)
		}, typedrpc.InvalidArgument, typedrpc.NotSent},
		{"a key that belongs to another server", func(w world) error {
			other, _, err := typedrpctest.Dial(&typedrpc.Server{}, nil)
			if err != nil {
				return err
			}
			defer other.Close()
			key := idempotency.NewKey()
			if err := other.Bind(key); err != nil {
				return err
			}
			return call(w.ctx, w.conn.With(typedrpc.CallOptions{Key: key}), keyed, 1)
		}, typedrpc.FailedPrecondition, typedrpc.MayHaveRun},
		{"a handler that panics", func(w world) error { return call(w.ctx, w.conn, ask, -1) }, typedrpc.Internal, typedrpc.Answered},
		{"a response that cannot be encoded", func(w world) error { _, err := typedrpc.Call(w.ctx, w.conn, got, 1); return err }, typedrpc.Internal, typedrpc.Answered},
		{"a response over the limit", func(w world) error { _, err := typedrpc.Call(w.ctx, w.conn, text, "large"); return err }, typedrpc.ResourceExhausted, typedrpc.Answered},
		{"a response that does not decode", func(w world) error {
			_, err := typedrpc.Call(w.ctx, w.conn, typedrpc.NewMethod[string, int]("text"), "x")
			return err
		}, typedrpc.Internal, typedrpc.Answered},
		{"a context that ends while it runs", func(w world) error {
			ctx, cancel := context.WithTimeout(w.ctx, time.Second)
			defer cancel()
			return call(ctx, w.conn, hang, 1)
		}, typedrpc.DeadlineExceeded, typedrpc.MayHaveRun},
		{"a connection that is closed while it runs", func(w world) error {
			time.AfterFunc(time.Second, func() { w.conn.Close() })
			return call(w.ctx, w.conn, hang, 1)
		}, typedrpc.Unavailable, typedrpc.MayHaveRun},
		{"a session that is lost while it runs", func(w world) error {
			time.AfterFunc(time.Second, func() { w.server.Close() })
			return call(w.ctx, w.conn, hang, 1)
		}, typedrpc.Unavailable, typedrpc.MayHaveRun},
		{"a stream whose session is lost", func(w world) error {
			time.AfterFunc(time.Second, func() { w.server.Close() })
			return last(typedrpc.Receive(w.ctx, w.conn, flow, 1))
		}, typedrpc.Unavailable, typedrpc.MayHaveRun},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				mux := typedrpc.NewMux()
				typedrpc.Handle(mux, ask, func(_ context.Context, n int) (int, error) {
					if n < 0 {
						panic("negative")
					}
					return n, nil
				})
				typedrpc.Handle(mux, text, func(_ context.Context, s string) (string, error) {
					if s == "large" {
						return strings.Repeat("x", 20_000), nil
					}
					return s, nil
				})
				// It calls back, and is called Serial in turn by who waits for it.
				typedrpc.Handle(mux, serial, func(ctx context.Context, n int) (int, error) {
					return typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), ask, n)
				})
				typedrpc.Handle(mux, keyed, func(_ context.Context, n int) (int, error) { return n, nil })
				typedrpc.Handle(mux, got, func(context.Context, int) (unsendable, error) { return unsendable{}, nil })
				typedrpc.Handle(mux, valid, func(context.Context, checked) (int, error) { return 0, nil })
				typedrpc.Handle(mux, hang, func(ctx context.Context, _ int) (int, error) {
					<-ctx.Done()
					time.Sleep(time.Second) // else its answer may be there before its caller gives up, at the same time
					return 0, ctx.Err()
				})
				typedrpc.Handle(mux, flow, func(ctx context.Context, _ int, _ func(int) error) error { <-ctx.Done(); return ctx.Err() })
				typedrpc.Handle(mux.Group(refuseAll), guarded, func(context.Context, int) (int, error) { return 0, nil })
				mine := typedrpc.NewMux()
				nested := make(chan error, 1)
				typedrpc.Handle(mine, ask, func(ctx context.Context, n int) (int, error) {
					_, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), serial, n)
					nested <- err
					return n, nil
				})
				limits := typedrpc.Limits{MaxMessage: 10_000}
				quiet := slog.New(slog.DiscardHandler)
				client, server, err := typedrpctest.Dial(&typedrpc.Server{Mux: mux, Limits: limits, Logger: quiet}, &typedrpc.DialOptions{Mux: mine, Dialect: d, Limits: limits, Logger: quiet})
				is.NoErr(err)
				defer client.Close()
				err = row.do(world{t.Context(), client, server, nested})
				time.Sleep(2 * time.Second) // for the handlers
				got := fmt.Sprint(typedrpc.CodeOf(err), ", ", typedrpc.OutcomeOf(err))
				is.Equal(got, fmt.Sprint(row.code, ", ", row.out))
			})
		})
	}
}

func refuseAll(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
	return nil, typedrpc.PermissionDenied
}

// last is the last error of a stream.
func last[T any](seq func(func(T, error) bool)) (failed error) {
	for _, err := range seq {
		failed = err
	}
	return failed
}
