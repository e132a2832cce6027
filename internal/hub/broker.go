package hub

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// A Broker carries messages between the hubs of several processes. It is the
// API's, whose comment says what each method has to keep.
type Broker interface {
	Publish(ctx context.Context, channel string, msg []byte) error
	Subscribe(ctx context.Context, channel string, deliver func(msg []byte)) (cancel func(), err error)
	Close() error
}

var errBrokerClosed = errors.New("the broker was closed")

// memoryBroker is the broker of a hub that is alone. It delivers on the
// publisher's goroutine.
type memoryBroker struct {
	mu       sync.Mutex
	channels map[string]*memoryChannel // those with subscriptions; nil: closed
}

type memoryChannel struct {
	turn chan struct{}       // capacity 1: full while somebody delivers, which makes the order; nil: nobody has
	subs []*func(msg []byte) // copied on write
}

func newMemoryBroker() *memoryBroker {
	return &memoryBroker{channels: map[string]*memoryChannel{}}
}

func (b *memoryBroker) Publish(ctx context.Context, channel string, msg []byte) error {
	b.mu.Lock()
	ch, closed := b.channels[channel], b.channels == nil
	if ch != nil && ch.turn == nil {
		ch.turn = make(chan struct{}, 1)
	}
	b.mu.Unlock()
	switch {
	case closed:
		return errBrokerClosed
	case ch == nil:
		return nil
	}
	select {
	case ch.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-ch.turn }()
	b.mu.Lock()
	subs := ch.subs
	b.mu.Unlock()
	for _, deliver := range subs {
		(*deliver)(msg)
	}
	return nil
}

func (b *memoryBroker) Subscribe(_ context.Context, channel string, deliver func(msg []byte)) (cancel func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.channels == nil {
		return nil, errBrokerClosed
	}
	ch := b.channels[channel]
	if ch == nil {
		ch = &memoryChannel{}
		b.channels[channel] = ch
	}
	ch.subs = append(slices.Clip(ch.subs), &deliver)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		ch.subs = slices.DeleteFunc(slices.Clone(ch.subs), func(d *func([]byte)) bool { return d == &deliver })
		if len(ch.subs) == 0 && b.channels[channel] == ch {
			delete(b.channels, channel)
		}
	}, nil
}

func (b *memoryBroker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.channels = nil
	return nil
}
