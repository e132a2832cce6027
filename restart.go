package typedrpc

import (
	"context"
	"time"
)

// loop is a loop over a server stream, without its types: it opens the stream
// and, if that is restartable, opens it again after a gap. All of it is the
// goroutine's that runs the loop.
type loop struct {
	caller   Caller
	spec     *spec
	restarts bool

	left  bool // the loop's body left, or panicked
	gap   bool // the body was told of one, and has not seen an item since
	empty int  // openings in a row that brought no item
}

// came notes an item, and reports whether it is the first after a gap.
func (l *loop) came() (afterGap bool) {
	afterGap = l.gap
	l.gap, l.empty = false, 0
	return afterGap
}

// run opens the stream with what request returns, which is told whether this is
// the first time, and has use receive its items. fail tells the body an error,
// and reports whether it stays.
func (l *loop) run(ctx context.Context, request func(first bool) any, use func(*exchange) (Raw, error), fail func(error) bool) {
	if l.restarts && l.spec.timeout > 0 { // for all openings together
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.spec.timeout)
		defer cancel()
	}
	for first := true; ; first = false {
		began := time.Now()
		l.empty++
		t, _, err := converse(ctx, l.caller, l.spec, request(first), use)
		if err == nil || l.left {
			return
		}
		if !first && err.Outcome == NotSent { // but an earlier opening was
			err = t.reason(ctx, err).with(MayHaveRun)
		}
		if !l.restarts || !err.gap || !t.reopens() {
			if fail(err) && l.restarts && err.gap && t != nil {
				fail(errNotReopened) // for a body that goes on at gaps
			}
			return
		}
		if !l.gap {
			l.gap = true
			if !fail(err) {
				return
			}
		}
		if time.Since(began) >= lived {
			l.empty = 0
		}
		if l.empty > 0 {
			t.pause(ctx, l.empty)
		}
	}
}

// errNotReopened ends a loop over a restartable stream that is not restarted.
var errNotReopened = Errorf(Unavailable, "the stream broke off and is not opened again: the caller is FailFast, or the connection does not dial").with(MayHaveRun)

// reopens reports whether a restartable stream that broke off can be opened
// again: the connection heals, or there may be another one.
func (t *target) reopens() bool {
	return t != nil && !t.opts.FailFast && (t.pick != nil || t.conn.heals)
}

// reason is why a stream could not be opened again: when the connection has
// ended for good, what ended it.
func (t *target) reason(ctx context.Context, err *Error) *Error {
	if t == nil || ctx.Err() != nil {
		return err
	}
	c := t.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	return err
}

// pause waits, by the connection's backoff, after openings that brought no item:
// whoever breaks off every stream at once is not to be hammered. The next
// session is not waited for here, since calls do that by themselves.
func (t *target) pause(ctx context.Context, empty int) {
	var b Backoff
	if d := t.conn.dialer; d != nil {
		b = d.o.Backoff
	}
	var ended <-chan struct{} // and no other connection will be asked
	if t.pick == nil {
		ended = t.conn.ctx.Done()
	}
	timer := time.NewTimer(max(b.Delay(empty), 1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-ended:
	}
}
