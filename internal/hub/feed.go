package hub

import (
	"context"
	"errors"
	"sync"

	"github.com/typedrpc/typedrpc/internal/logs"
	"github.com/typedrpc/typedrpc/internal/status"
)

func brokerError(ctx context.Context, err error, text string) *status.Error {
	var e *status.Error
	switch {
	case errors.As(err, &e):
		return e
	case ctx.Err() != nil:
		return status.Ended(ctx, status.MayHaveRun)
	}
	return &status.Error{Code: status.Unavailable, Message: text, Outcome: status.MayHaveRun, Cause: err}
}

// feed is a room's subscription to one channel of the broker. nil: the hub is alone, and
// its publishers find the room.
type feed struct {
	hub     *Hub
	channel string
	deliver func([]byte)

	mu      sync.Mutex
	opening *opening // nil: nobody needed it yet, or it failed, or it is open
	cancel  func()   // not nil while it is open
}

// opening is an attempt to subscribe, which many may wait for.
type opening struct {
	done chan struct{}
	err  error
	left bool // who made it left: the others need another
}

func (f *feed) init(h *Hub, channel string, deliver func([]byte)) {
	f.hub, f.channel, f.deliver = h, channel, deliver
}

// open subscribes if that has not been done: the first who asks does it, with
// its context, and the others wait.
func (f *feed) open(ctx context.Context) error {
	if f == nil {
		return nil
	}
	for {
		f.mu.Lock()
		if f.cancel != nil {
			f.mu.Unlock()
			return nil
		}
		o := f.opening
		first := o == nil
		if first {
			o = &opening{done: make(chan struct{}), err: status.Errorf(status.Internal, "the broker panicked")}
			f.opening = o
		}
		f.mu.Unlock()
		if first {
			return f.subscribe(ctx, o)
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return status.Ended(ctx, status.NotSent)
		}
		if !o.left {
			return o.err
		}
	}
}

func (f *feed) subscribe(ctx context.Context, o *opening) error {
	var cancel func()
	defer func() {
		f.mu.Lock()
		f.cancel, f.opening = cancel, nil
		f.mu.Unlock()
		close(o.done)
	}()
	stop, err := f.hub.broker.Subscribe(ctx, f.channel, f.deliver)
	if err != nil {
		o.err, o.left = brokerError(ctx, err, "the broker could not be subscribed to"), ctx.Err() != nil
		return o.err
	}
	cancel, o.err = stop, nil
	return nil
}

func (f *feed) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	cancel := f.cancel
	f.cancel, f.opening = nil, nil
	f.mu.Unlock()
	if cancel != nil {
		f.hub.apart(func() error { cancel(); return nil })
	}
}

// apart runs a function of the broker's on a goroutine of its own, which it may end, and
// waits for it: this one has more to do. A panic is logged.
func (h *Hub) apart(f func() error) error {
	err := error(errBrokerExited)
	var run sync.WaitGroup
	run.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				err = errBrokerPanicked
				h.log.Error("typedrpc: the hub's broker panicked", "panic", logs.Panic{Value: p}, "stack", logs.Stack{})
			}
		}()
		err = f()
	})
	run.Wait()
	return err
}

var (
	errBrokerPanicked = errors.New("the broker panicked") // which is logged
	errBrokerExited   = errors.New("the broker ended its goroutine")
)
