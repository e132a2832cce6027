package typedrpc

import (
	"context"
	"sync"
)

// Pick makes a Caller of a function that chooses a connection, asked once for
// every attempt of every call: a pool, a router by method, the leader. It may
// be called by many goroutines at once. Its error fails the call, as
// Unavailable unless it is an *Error or a Code. All its connections must speak one codec:
// a call that is made again on one of another codec than the first fails with
// FailedPrecondition. And they must have one Identity at their peers, where Keyed calls
// are made again: an idempotency key is one subject's.
func Pick(fn func(ctx context.Context, method string) (*Conn, error)) Caller {
	if fn == nil {
		panic("typedrpc: Pick needs a function")
	}
	return picker{pick: fn, budget: sync.OnceValue(newBudget)}
}

type picker struct {
	pick   func(context.Context, string) (*Conn, error)
	opts   CallOptions
	budget func() *RetryBudget // of policies without one
}

func (p picker) With(o CallOptions) Caller { return picker{p.pick, p.opts.and(o, p.budget), p.budget} }

func (p picker) target(ctx context.Context, method string) (target, *Error) {
	t := target{pick: p.pick, opts: p.opts}
	if p.opts.fault != nil {
		return t, p.opts.fault
	}
	conn, err := t.next(ctx, method)
	if err != nil {
		return t, err
	}
	t.conn = conn
	return t, nil
}
