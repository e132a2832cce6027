package lab

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/idempotency"
	"github.com/typedrpc/typedrpc/internal/wire"
)

var (
	KeyAdd   = typedrpc.NewMethod[int, int]("key.add", typedrpc.Keyed)
	KeySub   = typedrpc.NewMethod[int, int]("key.sub", typedrpc.Keyed)
	KeyHang  = typedrpc.NewMethod[int, int]("key.hang", typedrpc.Keyed)
	KeyText  = typedrpc.NewMethod[string, string]("key.text", typedrpc.Keyed)
	KeyLane  = typedrpc.NewMethod[int, int]("key.lane", typedrpc.Keyed, typedrpc.Serial)
	KeyFault = typedrpc.NewFault[int]("key.fault", typedrpc.Aborted)
)

// Metadata of keyed calls.
const (
	KeyHeader = "idempotency-key"
	AgeHeader = wire.MetaAge
)

// Ledger is a lab whose Keyed methods note which key ran how often.
type Ledger struct {
	*Lab
	KeysMu sync.Mutex
	Runs   map[string]int
	Ages   []string
	Sum    int
	CtxErr []error // how hanging handlers' contexts ended
}

func NewLedger(interceptors ...typedrpc.Interceptor) *Ledger {
	l := &Ledger{Lab: New(), Runs: map[string]int{}}
	l.Mux = typedrpc.NewMux(interceptors...)
	typedrpc.Handle(l.Mux, Echo, func(_ context.Context, n int) (int, error) { return n, nil })
	l.Register(l.Mux)
	return l
}

func (l *Ledger) Register(mux *typedrpc.Mux) {
	typedrpc.Handle(mux, KeyAdd, func(ctx context.Context, n int) (int, error) { return l.Note(ctx, n), nil })
	typedrpc.Handle(mux, KeySub, func(ctx context.Context, n int) (int, error) { return l.Note(ctx, -n), nil })
	typedrpc.Handle(mux, KeyLane, func(ctx context.Context, n int) (int, error) { return l.Note(ctx, n), nil })
	typedrpc.Handle(mux, KeyHang, func(ctx context.Context, n int) (int, error) {
		l.Note(ctx, n)
		l.Running.Add(1)
		defer l.Running.Add(-1)
		select {
		case <-ctx.Done():
			l.KeysMu.Lock()
			l.CtxErr = append(l.CtxErr, ctx.Err())
			l.KeysMu.Unlock()
			return 0, ctx.Err()
		case <-l.Release:
			return n, nil
		}
	})
	typedrpc.Handle(mux, KeyText, func(ctx context.Context, s string) (string, error) {
		n := l.Note(ctx, 1)
		typedrpc.RequestFrom(ctx).ReplyMetadata.Set("run", strconv.Itoa(n))
		switch {
		case s == "panic":
			panic("asked for")
		case s == "exit":
			runtime.Goexit()
		case s == "fault":
			err := KeyFault.Errorf(7, "a fault of key.text")
			err.RetryAfter = time.Second
			return "", err
		case s == "foreign":
			return "", errors.New("a secret")
		}
		return s + strconv.Itoa(n), nil
	})
}

func (l *Ledger) Note(ctx context.Context, n int) int {
	l.KeysMu.Lock()
	defer l.KeysMu.Unlock()
	m := typedrpc.RequestFrom(ctx).Metadata
	l.Runs[m[KeyHeader]]++
	l.Ages = append(l.Ages, m[AgeHeader])
	l.Sum += n
	return l.Sum
}

// Ran is how many runs there were, and how many keys.
func (l *Ledger) Ran() (runs, keys int) {
	l.KeysMu.Lock()
	defer l.KeysMu.Unlock()
	for _, n := range l.Runs {
		runs += n
	}
	return runs, len(l.Runs)
}

func (l *Ledger) Ended() []error {
	l.KeysMu.Lock()
	defer l.KeysMu.Unlock()
	return append([]error(nil), l.CtxErr...)
}

// KeyedTest runs f in a bubble for each dialect that knows keys.
func KeyedTest(t *testing.T, f func(t *testing.T, is *is.I, o *typedrpc.DialOptions)) {
	t.Helper()
	for _, d := range []typedrpc.Dialect{typedrpc.Binary, typedrpc.Text} {
		t.Run([]string{"binary", "jsonrpc"}[d], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, is.New(t), &typedrpc.DialOptions{Dialect: d, Backoff: Steady}) })
		})
	}
}

func WithKey(c typedrpc.Caller, k idempotency.Key) typedrpc.Caller {
	return c.With(typedrpc.CallOptions{Key: k})
}

func ErrorOf(t *testing.T, err error, code typedrpc.Code, o typedrpc.Outcome) *typedrpc.Error {
	t.Helper()
	var e *typedrpc.Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != o {
		t.Fatalf("got %v (%v), want %v, %v", err, OutcomeOf(err), code, o)
	}
	return e
}
