package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// The panic of an outgoing interceptor ended the process when the call was made
// with Go, on whose goroutine nobody else can recover.
func TestGo_interceptorPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		l := lab.New()
		c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Logger: slog.New(slog.DiscardHandler)})
		is.NoErr(err)
		for _, end := range []func(){func() { panic("oops") }, runtime.Goexit} {
			with := c.With(typedrpc.CallOptions{Interceptors: []typedrpc.Interceptor{func(context.Context, *typedrpc.Request, typedrpc.RawHandler) (typedrpc.Raw, error) {
				end()
				return nil, nil
			}}})
			_, err = typedrpc.Go(t.Context(), with, lab.Echo, 1).Await(t.Context())
			is.True(errors.Is(err, typedrpc.Internal))
		}
		is.NoErr(c.Close())
	})
}

// explosive is data of a fault that cannot be encoded.
type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("boom") }

var disaster = typedrpc.NewFault[explosive]("disaster", typedrpc.NotFound)

// The user's code that translates an error crashed the process when it panicked.
func TestHandle_errorThatPanics(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for _, err := range []error{disaster.Errorf(explosive{}, ""), errors.New("to be mapped")} {
			var log levels
			f := &flaky{fails: 2, err: err}
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, retryWrite, f.handle)
			c, _, err := typedrpctest.Dial(&typedrpc.Server{
				Mux: mux, Logger: slog.New(&log),
				MapError: func(context.Context, error) *typedrpc.Error { panic("no idea") },
			}, &typedrpc.DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			for range 2 {
				_, err = typedrpc.Call(t.Context(), c, retryWrite, struct{}{})
				is.True(errors.Is(err, typedrpc.Internal))
				is.True(!strings.Contains(err.Error(), "boom") && !strings.Contains(err.Error(), "no idea"))
			}
			n, err := typedrpc.Call(t.Context(), c, retryWrite, struct{}{})
			is.NoErr(err)
			is.Equal(n, 3)
			is.True(log.count(slog.LevelError) > 0) // not for each: they are of one cause
		}
	})
}

// A handler that ended its goroutine, as t.FailNow does, left its caller
// waiting, kept its place, and on the lane stopped all that came behind it.
func TestHandle_goexit(t *testing.T) {
	leave := typedrpc.NewMethod[struct{}, struct{}]("leave")
	leaveLane := typedrpc.NewMethod[struct{}, struct{}]("leave.lane", typedrpc.Serial)
	leaveNote := typedrpc.NewNotification[struct{}]("leave.note")
	alive := typedrpc.NewMethod[int, int]("alive", typedrpc.Serial)
	pass := func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		return next(ctx, r)
	}
	for name, mux := range map[string]func() *typedrpc.Mux{"bare": func() *typedrpc.Mux { return typedrpc.NewMux() }, "intercepted": func() *typedrpc.Mux { return typedrpc.NewMux(pass) }} {
		t.Run(name, func(t *testing.T) {
			everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
				is := is.New(t)
				l := lab.New()
				l.Mux, l.Limits = mux(), typedrpc.Limits{MaxCalls: 1, Window: 100}
				exit := func(context.Context, struct{}) (struct{}, error) {
					runtime.Goexit()
					return struct{}{}, nil
				}
				typedrpc.Handle(l.Mux, leave, exit)
				typedrpc.Handle(l.Mux, leaveLane, exit)
				typedrpc.Handle(l.Mux, leaveNote, func(context.Context, struct{}) error { runtime.Goexit(); return nil })
				typedrpc.Handle(l.Mux, alive, func(_ context.Context, n int) (int, error) { return n, nil })
				c, _, err := typedrpctest.Dial(l.Server, &typedrpc.DialOptions{Dialect: d})
				is.NoErr(err)
				defer c.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for i := range 5 {
					_, err = typedrpc.Call(ctx, c, leave, struct{}{})
					is.True(errors.Is(err, typedrpc.Internal))
					_, err = typedrpc.Call(ctx, c, leaveLane, struct{}{})
					is.True(errors.Is(err, typedrpc.Internal))
					is.NoErr(typedrpc.Notify(ctx, c, leaveNote, struct{}{}))
					is.NoErr(typedrpc.Notify(ctx, c, leaveNote, struct{}{})) // the window was given back
					n, err := typedrpc.Call(ctx, c, alive, i)
					is.NoErr(err)
					is.Equal(n, i)
				}
			})
		})
	}
}

// An error with code 0 crossed as it was, and CodeOf read it as no error.
func TestError_codeZeroIsUnknown(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for _, failure := range []error{&typedrpc.Error{}, &typedrpc.Error{Message: "failed"}, fmt.Errorf("wrapped: %w", &typedrpc.Error{}), typedrpc.Code(0), errors.New("to be mapped")} {
			f := &flaky{fails: 2, err: failure}
			mux := typedrpc.NewMux()
			typedrpc.Handle(mux, retryWrite, f.handle)
			srv := &typedrpc.Server{Mux: mux, MapError: func(context.Context, error) *typedrpc.Error { return &typedrpc.Error{} }}
			c, _, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d})
			is.NoErr(err)
			defer c.Close()
			_, err = typedrpc.Call(t.Context(), c, retryWrite, struct{}{})
			is.True(err != nil)
			is.Equal(typedrpc.CodeOf(err), typedrpc.Unknown)
			is.Equal(lab.OutcomeOf(err), typedrpc.Answered)
			p, err := testkit.Join(srv, testkit.BinaryProtocol)
			is.NoErr(err)
			_, err = p.Hello()
			is.NoErr(err)
			is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 1, Method: retryWrite.Name(), Payload: []byte("{}")}))
			f0, err := p.Until(wire.Fail)
			is.NoErr(err)
			p.T.Kill()
			is.Equal(typedrpc.Code(f0.Code), typedrpc.Unknown) // for peers that are not us
		}
	})
	synctest.Test(t, func(t *testing.T) { // also from a peer that is not us
		is := is.New(t)
		_, c := lab.Scripted(t, nil, func(_ int, p *testkit.Peer) {
			p.Welcome()
			f, _ := p.Until(wire.Call)
			p.Send(wire.Frame{Type: wire.Fail, ID: f.ID, Message: "failed"})
			p.CloseCode()
		})
		defer c.Close()
		_, err := typedrpc.Call(t.Context(), c, lab.Echo, 1)
		is.Equal(typedrpc.CodeOf(err), typedrpc.Unknown)
	})
}

// A Mux that NewMux did not make crashed what it served.
func TestMux_zeroAnswersUnimplemented(t *testing.T) {
	everyDialect(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		for _, mux := range []*typedrpc.Mux{nil, {}, new(typedrpc.Mux).Group()} {
			srv := &typedrpc.Server{Mux: mux}
			is.NoErr(srv.Check())
			c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Mux: mux})
			is.NoErr(err)
			defer c.Close()
			for _, end := range []*typedrpc.Conn{c, s} {
				is.NoErr(typedrpc.Notify(t.Context(), end, lab.Note, 1))
				_, err = typedrpc.Call(t.Context(), end, lab.Echo, 1)
				is.True(errors.Is(err, typedrpc.Unimplemented))
			}
		}
	})
}
