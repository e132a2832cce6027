package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
)

// ledger watches that keyed calls run at most once.
type ledger struct {
	mu    sync.Mutex
	last  int64
	runs  map[int64]int // of calls that may run, or may run no more
	wrong error
}

var payments = &ledger{runs: map[int64]int{}}

func (l *ledger) handle(ctx context.Context, n int64) (int64, error) {
	l.mu.Lock()
	times, known := l.runs[n]
	switch {
	case !known:
		l.wrong = wrong("a keyed call ran after its end, or though it was not sent")
	case times > 0:
		l.wrong = wrong("a keyed call ran twice")
	default:
		l.runs[n] = 1
	}
	l.mu.Unlock()
	if rand.IntN(4) == 0 {
		select {
		case <-time.After(rand.N(50 * time.Millisecond)):
		case <-ctx.Done(): // the caller gave up
		}
	}
	return -n, nil
}

func (l *ledger) call(ctx context.Context, c *typedrpc.Conn) error {
	l.mu.Lock()
	l.last++
	n := l.last
	l.runs[n] = 0
	l.mu.Unlock()
	options := typedrpc.CallOptions{}
	again := rand.IntN(3) == 0
	if again {
		options.Key = idempotency.NewKey()
	}
	got, err := typedrpc.Call(ctx, c.With(options), Pay, n)
	if err == nil && again {
		got, err = typedrpc.Call(ctx, c.With(options), Pay, n) // is answered, and does not run
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	times := l.runs[n]
	if err == nil || typedrpc.OutcomeOf(err) == typedrpc.NotSent && !again || times > 0 {
		delete(l.runs, n)
	}
	switch {
	case l.wrong != nil:
		return errors.Join(l.wrong, err)
	case err == nil && (got != -n || times != 1):
		return wrong("a keyed call was answered %d for %d, and ran %d times", got, n, times)
	}
	return err
}
