package hub

import (
	"context"
	"slices"
	"sync"
)

// memoryBroker is one for the hubs of one process. It delivers on the publisher's goroutine.
type memoryBroker struct {
	mu       sync.Mutex
	channels map[string][]*func(msg []byte) // copied on write
}

func newMemoryBroker() *memoryBroker { return &memoryBroker{channels: map[string][]*func([]byte){}} }

func (b *memoryBroker) Publish(_ context.Context, channel string, msg []byte) error {
	b.mu.Lock()
	subs := b.channels[channel]
	b.mu.Unlock()
	for _, deliver := range subs {
		(*deliver)(msg)
	}
	return nil
}

func (b *memoryBroker) Subscribe(_ context.Context, channel string, deliver func(msg []byte)) (cancel func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.channels[channel] = append(slices.Clip(b.channels[channel]), &deliver)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.channels[channel] = slices.DeleteFunc(slices.Clone(b.channels[channel]), func(d *func([]byte)) bool { return d == &deliver })
	}, nil
}

func (b *memoryBroker) Close() error { return nil }
