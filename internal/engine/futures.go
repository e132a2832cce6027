package engine

import (
	"context"
	"runtime"
	"sync"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// futures counts what those futures take that handlers have made, and their answers: how many
// there are, and how many of them are refused at once, their callers choose. Each counts for
// as long as the program has it, and no longer than handlers of the connection run: the
// next ones have a record of their own. It is not a part of the connection, which
// its cleanups would keep. Its lock is below Conn.mu.
type futures struct {
	mu      sync.Mutex
	account *flow.Account // nil: no handler runs any more
	held    int           // bytes of the account
}

const (
	// futureOverhead is what a future takes beside what its call counts while it is under way:
	// 1,267 bytes when that has ended.
	futureOverhead = 3 << 9
	// refusedOverhead is what one takes that failed before it was a call: 256 bytes, and its cleanup.
	refusedOverhead = 1 << 9
	// interceptedOverhead is what it takes more while interceptors run on its goroutine.
	interceptedOverhead = 8 << 10
)

// counted is a future that is counted, or the answer to one or to a stream. bytes are under
// the futures' lock.
type counted struct {
	of    *futures
	bytes int
}

// futuresLocked are those of the handlers that run.
func (c *Conn) futuresLocked() *futures {
	if c.futures == nil {
		c.futures = &futures{account: &c.account}
	}
	return c.futures
}

// hold counts n bytes, which the account has, until p is dropped.
func hold[T any](f *futures, p *T, n int) *counted {
	f.mu.Lock()
	f.held += n
	f.mu.Unlock()
	x := &counted{f, n}
	runtime.AddCleanup(p, (*counted).gone, x)
	return x
}

// more counts n bytes more, if handlers still run.
func (x *counted) more(n int) bool {
	f := x.of
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.account == nil {
		return false
	}
	f.held += n
	x.bytes += n
	return true
}

// gone is called when the program has dropped the future, or has taken its answer.
func (x *counted) gone() {
	f := x.of
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.account != nil {
		f.held -= x.bytes
		f.account.Give(x.bytes)
	}
	x.bytes = 0
}

// forget gives everything back: no handler runs.
func (f *futures) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.account.Give(f.held)
	f.account, f.held = nil, 0
}

// Made counts the future whose call cl is, if a handler of c makes it. It is called once,
// before the call begins. What is intercepted has a goroutine.
func (cl *Call) Made(c *Conn, ctx context.Context, intercepted bool) {
	n := futureOverhead
	if intercepted {
		n += interceptedOverhead
	}
	made(c, ctx, cl, n)
}

// Refused counts the future p, as Made does, that failed before there was a call: a handler
// that goes on when its context has ended may make any number of them.
func Refused[T any](p *T, c *Conn, ctx context.Context) { made(c, ctx, p, refusedOverhead) }

func made[T any](c *Conn, ctx context.Context, p *T, n int) {
	if c.config.Ledger == nil || !From(ctx).nestedOn(c) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running > 0 {
		c.account.Force(n)
		hold(c.futuresLocked(), p, n)
	}
}

// Answered counts what interceptors have answered a future of a handler of c with, and says
// why it cannot be taken.
func (cl *Call) Answered(c *Conn, ctx context.Context, n int) *status.Error {
	in := From(ctx)
	if c.config.Ledger == nil || !in.nestedOn(c) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.held <= 0 { // it has returned
		return nil
	}
	if !c.account.Take(n) {
		return answersFull()
	}
	c.answeredLocked(cl, n)
	return nil
}

// answeredLocked counts n bytes of the answer to a future or a stream, which the account has
// taken.
func (c *Conn) answeredLocked(cl *Call, n int) {
	if cl.answer == nil || !cl.answer.more(n) { // else there was an earlier attempt
		cl.answer = hold(c.futuresLocked(), cl, n)
	}
}
