package lab

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/typedrpc/typedrpc"
)

var NestedPing = typedrpc.NewMethod[int, int]("nested.ping")

// PingPong is a Mux whose handler calls its caller back until n is 0.
func PingPong() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, NestedPing, func(ctx context.Context, n int) (int, error) {
		if n == 0 {
			return 0, nil
		}
		depth, err := typedrpc.Call(ctx, typedrpc.ConnFrom(ctx), NestedPing, n-1)
		return depth + 1, err
	})
	return mux
}

var (
	Echo      = typedrpc.NewMethod[int, int]("lab.echo")
	Hang      = typedrpc.NewMethod[struct{}, struct{}]("lab.hang")
	HangTwice = typedrpc.NewMethod[struct{}, struct{}]("lab.hang.idempotent", typedrpc.Idempotent)
	Note      = typedrpc.NewNotification[int]("lab.note")
)

// Lab is a server whose handlers can be watched.
type Lab struct {
	*typedrpc.Server
	Hung    atomic.Int64 // hanging handlers that began
	Running atomic.Int64 // and have not ended
	Most    atomic.Int64 // at once
	Release chan struct{}

	Mu    sync.Mutex
	notes []int
}

func New() *Lab {
	l := &Lab{Release: make(chan struct{})}
	mux := typedrpc.NewMux()
	l.Server = &typedrpc.Server{Mux: mux, Logger: slog.New(slog.DiscardHandler)}
	typedrpc.Handle(mux, Echo, func(_ context.Context, n int) (int, error) { return n, nil })
	hang := func(ctx context.Context, _ struct{}) (struct{}, error) {
		l.Hung.Add(1)
		n := l.Running.Add(1)
		defer l.Running.Add(-1)
		for most := l.Most.Load(); n > most && !l.Most.CompareAndSwap(most, n); most = l.Most.Load() {
		}
		select {
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		case <-l.Release:
			return struct{}{}, nil
		}
	}
	typedrpc.Handle(mux, Hang, hang)
	typedrpc.Handle(mux, HangTwice, hang)
	typedrpc.Handle(mux, Note, func(_ context.Context, n int) error {
		l.Mu.Lock()
		defer l.Mu.Unlock()
		l.notes = append(l.notes, n)
		return nil
	})
	return l
}

func (l *Lab) Noted() []int {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	return slices.Clone(l.notes)
}
