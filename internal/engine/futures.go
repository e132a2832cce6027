package engine

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/flow"
)

// futures counts what those futures take that handlers have made: how many there are, and
// how many of them are refused at once, their callers choose. Each counts for as long as the
// program has it, and no longer than handlers of the connection run. It has a lock of its
// own, below Conn.mu.
type futures struct {
	held atomic.Int64 // bytes of the account; changed under mu

	mu   sync.Mutex
	turn uint64 // how often handlers have ceased to run while there were some
}

const (
	// futureOverhead is what a future takes beside its call, also when that was refused.
	futureOverhead = 1 << 10
	// interceptedOverhead is what it takes more while interceptors run on its goroutine.
	interceptedOverhead = 8 << 10
)

// counted is a future that is counted, or the answer to one or to a stream.
type counted struct {
	of      *futures
	account *flow.Account
	turn    uint64
	bytes   int64
}

// Made counts the future whose call cl is, if a handler of c makes it. It is called once,
// before the call begins. What is intercepted has a goroutine.
func (cl *Call) Made(c *Conn, ctx context.Context, intercepted bool) {
	if c.config.Ledger == nil || !From(ctx).nestedOn(c) {
		return
	}
	n := futureOverhead
	if intercepted {
		n += interceptedOverhead
	}
	f := &c.futures
	f.mu.Lock()
	f.held.Add(int64(n))
	c.account.Force(n)
	x := &counted{f, &c.account, f.turn, int64(n)}
	f.mu.Unlock()
	runtime.AddCleanup(cl, (*counted).gone, x)
}

// answered counts n bytes of a future's answer, which the account has taken. Under
// Conn.mu.
func (f *futures) answered(cl *Call, a *flow.Account, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held.Add(int64(n))
	if x := cl.answer; x != nil && x.turn == f.turn { // an earlier attempt's
		x.bytes += int64(n)
		return
	}
	cl.answer = &counted{f, a, f.turn, int64(n)}
	runtime.AddCleanup(cl, (*counted).gone, cl.answer)
}

// gone is called when the program has dropped the future, or has taken its answer.
func (x *counted) gone() {
	x.of.mu.Lock()
	defer x.of.mu.Unlock()
	if x.turn == x.of.turn {
		x.of.held.Add(-x.bytes)
		x.account.Give(int(x.bytes))
		x.bytes = 0
	}
}

// forget gives everything back: no handler runs.
func (f *futures) forget(a *flow.Account) {
	if f.held.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a.Give(int(f.held.Swap(0)))
	f.turn++
}
