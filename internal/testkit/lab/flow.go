package lab

import (
	"context"
	"testing"

	"github.com/typedrpc/typedrpc"
)

var (
	FlowDown = typedrpc.NewServerStream[int, string]("flow.down")
	FlowUp   = typedrpc.NewClientStream[int, string, int]("flow.up")
	FlowBoth = typedrpc.NewBidiStream[string, string, string]("flow.both")
	FlowCall = typedrpc.NewMethod[string, string]("flow.call")
	FlowNote = typedrpc.NewNotification[string]("flow.note")
)

// Bidi is a Mux with one handler of FlowBoth, and an echo.
func Bidi(fn func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error) *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, FlowBoth, fn)
	typedrpc.Handle(mux, FlowCall, func(_ context.Context, s string) (string, error) { return s, nil })
	return mux
}

// EchoItems sends back what comes.
func EchoItems(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
	for v, err := range s.All() {
		if err != nil {
			return err
		}
		if err := s.Send(v); err != nil {
			return err
		}
	}
	return nil
}

// Lingers is a handler of FlowBoth that waits for its context.
func Lingers(ctx context.Context, _ string, _ *typedrpc.Stream[string, string]) error {
	<-ctx.Done()
	return ctx.Err()
}

// Joined connects a client and a server that have the same Mux and limits.
func Joined(t *testing.T, d typedrpc.Dialect, mux *typedrpc.Mux, limits typedrpc.Limits) (c, s *typedrpc.Conn) {
	t.Helper()
	c, s = TwoWays(t, d, mux, mux, limits)
	t.Cleanup(func() { c.Close() })
	return c, s
}
