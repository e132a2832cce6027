package hub

import "context"

// A Broker carries messages between the hubs of several processes. It is the
// API's, whose comment says what each method has to keep.
type Broker interface {
	Publish(ctx context.Context, channel string, msg []byte) error
	Subscribe(ctx context.Context, channel string, deliver func(msg []byte)) (cancel func(), err error)
	Close() error
}
