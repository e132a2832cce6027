package main

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// patience is how long an honest call waits.
const patience = 5 * time.Second

// honest is a client that minds its own business: a small call every two
// milliseconds, whether the one before was answered or not.
type honest struct {
	conn *typedrpc.Conn
	stop context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex
	took  []time.Duration
	fails []error
	lost  []error // why links were lost
}

var asHonest = signIn.Present(func(context.Context) (signInRequest, error) {
	return signInRequest{Name: "honest"}, nil
})

func newHonest(ctx context.Context, addr string, auth bool) (*honest, error) {
	h := &honest{}
	o := &typedrpc.DialOptions{
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		OnState: func(c typedrpc.StateChange) {
			if c.State == typedrpc.StateWaiting {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.lost = append(h.lost, c.Err)
			}
		},
	}
	if auth {
		o.SignIn = asHonest
	}
	conn, err := typedrpc.Dial(ctx, "ws://"+addr+"/", o)
	if err != nil {
		return nil, err
	}
	h.conn = conn
	ctx, h.stop = context.WithCancel(ctx)
	h.all.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.all.Go(func() { h.call(ctx) })
			case <-ctx.Done():
				return
			}
		}
	})
	return h, nil
}

func (h *honest) call(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	_, err := typedrpc.Call(within, h.conn, methodEcho, "hello")
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case ctx.Err() != nil: // it was told to stop
	case err != nil:
		h.fails = append(h.fails, err)
		fallthrough
	default:
		h.took = append(h.took, time.Since(began))
	}
}

// forget begins to measure anew.
func (h *honest) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took, h.fails, h.lost = nil, nil, nil
}

// latency is the median, and what 99 in 100 calls take at most.
func (h *honest) latency() (p50, p99 time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.took)
	if n := len(h.took); n > 0 {
		p50, p99 = h.took[n/2], h.took[n*99/100]
	}
	return p50, p99
}

// tell puts what was measured into a row.
func (h *honest) tell(r *result) {
	r.p50, r.p99 = h.latency()
	h.mu.Lock()
	defer h.mu.Unlock()
	r.calls, r.fails, r.lost = len(h.took), h.fails, h.lost
}

// rest makes no more calls.
func (h *honest) rest() {
	h.stop()
	h.all.Wait()
}

func (h *honest) close() {
	h.rest()
	h.conn.Close()
}
