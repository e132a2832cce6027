package typedrpc

import (
	"context"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/jsoncodec"
	"github.com/typedrpc/typedrpc/internal/session"
)

// Hub is where the topics of a process meet: what is published to it goes to
// the subscribers that HandleTopic gives it, and through its broker to other
// hubs. All of it may be used by any number of goroutines.
type Hub struct {
	h     *hub.Hub
	codec Codec
}

// HubOptions are what a Hub can be told. The zero value of every field is its
// default; a negative one makes NewHub panic.
type HubOptions struct {
	// Broker connects the hub with those of other processes. The hub closes
	// it. nil: the hub is alone.
	Broker Broker
	// Codec is what messages are encoded in on their way through the broker;
	// all hubs of one broker need the same. Subscribers whose connection has
	// the same codec get the bytes as they come, for others messages are
	// encoded once more for each codec. nil: JSON.
	Codec Codec
	// HistoryBytes bounds what a topic with History keeps for one key, each
	// message counted with 64 bytes more. Default 256 KiB; one message fits
	// always.
	HistoryBytes int
	// IdleKeys is for how many keys without subscribers a history is kept;
	// beyond that the one that was not used for longest is forgotten. Default
	// 1,024.
	IdleKeys int
	// MaxHistory bounds what the histories of all keys take together, each
	// message counted with 320 bytes more, and again in each codec that it was
	// given in. The histories without subscribers that were not used for longest are
	// forgotten first; after them a key that is published to forgets its own
	// oldest messages, all but one. Default 64 MiB.
	MaxHistory int64
}

// NewHub makes a hub; nil options are fine.
func NewHub(o *HubOptions) *Hub {
	if o == nil {
		o = &HubOptions{}
	}
	if o.HistoryBytes < 0 || o.IdleKeys < 0 || o.MaxHistory < 0 {
		panic("typedrpc: NewHub: HistoryBytes, IdleKeys and MaxHistory must not be negative")
	}
	h := &Hub{codec: o.Codec}
	if h.codec == nil {
		h.codec = JSON
	}
	opts := hub.Options{Codec: h.codec.Name(), HistoryBytes: o.HistoryBytes, IdleKeys: o.IdleKeys, MaxHistory: o.MaxHistory}
	if o.Broker != nil {
		opts.Broker = broker{o.Broker}
	}
	h.h = hub.New(opts)
	return h
}

// Close ends all subscriptions with Unavailable, forgets every history and
// closes the broker, whose error it returns. What is published or subscribed
// to afterwards fails with Unavailable. Closing again does nothing.
// Server.Shutdown ends the subscriptions of its connections by itself; close
// the hub after it.
func (h *Hub) Close() error {
	return lift(h.h.Close(), nil)
}

// peer is what a hub knows of a subscriber's connection.
func peer(c *Conn, s *spec, coder *hub.Coder) hub.Peer {
	limits := c.e.Peer()
	return hub.Peer{
		Subject: c.Identity().Subject, Codec: c.codec.Name(), Text: c.e.Dialect() != session.Binary,
		Depth: int16(min(limits.Depth, jsoncodec.RawDepth)),
		Limit: int32(s.decl.Limit(int(min(limits.Message, flow.MaxMessageCeiling)))),
		Coder: coder,
	}
}

// coder encodes what a topic's subscribers get.
func (h *Hub) coder(s *spec) *hub.Coder {
	return &hub.Coder{
		Recode: func(c *engine.Conn, msg []byte) ([]byte, error) {
			v := s.down.New()
			if err := s.decode(h.codec, msg, v); err != nil {
				return nil, err
			}
			return s.encode(connOf(c).codec, nil, v)
		},
		Name: func(c *engine.Conn, dst []byte, name string) ([]byte, error) {
			return s.topic.presence.encode(connOf(c).codec, dst, &name)
		},
	}
}

// broker is a program's Broker as a hub calls it.
type broker struct{ Broker }

func (b broker) Publish(ctx context.Context, channel string, msg []byte) error {
	return down(b.Broker.Publish(ctx, channel, msg))
}

func (b broker) Subscribe(ctx context.Context, channel string, deliver func(msg []byte)) (func(), error) {
	cancel, err := b.Broker.Subscribe(ctx, channel, deliver)
	return cancel, down(err)
}

// A Broker carries messages between the hubs of several processes. Its methods
// are called by many goroutines at once. A channel is any UTF-8 string of at
// most 600 bytes; a broker whose own names are more limited translates them,
// one to one.
type Broker interface {
	// Publish gives msg to all subscriptions of channel, the publisher's own
	// too. msg may be empty, is not nil, and belongs to the caller again when
	// Publish returns.
	Publish(ctx context.Context, channel string, msg []byte) error
	// Subscribe has deliver called for every message of channel that is
	// published from now on, until cancel is called; ctx bounds the
	// subscribing alone. A channel may have several subscriptions.
	//
	// deliver is called for one message at a time, in the order of
	// publication within the channel; between channels there is no order.
	// It may take a while (see WaitAtMost), during which other channels go
	// on, and it publishes nothing itself. msg is read only, and valid until deliver
	// returns. A nil msg says that messages may have been lost here and that
	// the subscription goes on; an empty message is not nil. cancel does not
	// wait for a deliver that is running, and may be called at any time,
	// also after Close.
	Subscribe(ctx context.Context, channel string, deliver func(msg []byte)) (cancel func(), err error)
	// Close ends all subscriptions and releases what the broker holds.
	Close() error
}
