package engine

import (
	"context"
	"sync"
	"testing"

	"github.com/matryer/is"
)

// What Err has said once it says for ever, whoever ends the context meanwhile.
func TestInbound_errNeverChanges(t *testing.T) {
	is := is.New(t)
	for range 20_000 {
		in := &Inbound{conn: &Conn{life: life{ctx: t.Context()}}, deadline: clock() - 1}
		var g sync.WaitGroup
		g.Go(in.cancel)
		g.Go(in.over)
		var first, second error
		g.Go(func() { first = in.Err(); second = in.Err() })
		g.Wait()
		is.Equal(first, second)
		is.Equal(second, in.Err())
	}
}

func TestInbound_causeKey(t *testing.T) {
	is := is.New(t)
	is.True(causeKey != nil) // package context asks for it
	cause := context.DeadlineExceeded
	ctx, cancel := context.WithCancelCause(t.Context())
	in := &Inbound{conn: &Conn{life: life{ctx: ctx}}}
	is.Equal(context.Cause(in), nil)
	in.cancel()
	is.Equal(context.Cause(in), context.Canceled)
	cancel(cause)
	is.Equal(context.Cause(in), context.Canceled) // what ended it first
	in = &Inbound{conn: in.conn}
	in.cancel()
	is.Equal(context.Cause(in), cause) // it ended with its connection
}
