package topic

import (
	"context"
	"sync"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/stats"
)

// Hub is where the topics of a process meet: what is published to it goes to the
// subscribers that Handle gives it, and through its broker to other hubs. Its zero
// value works. All of it may be used by any number of goroutines; its fields must not
// be changed after its first use, and it must not be copied. The zero value of every
// field is its default; a negative one makes Handle panic, and everything else fail
// with FailedPrecondition.
type Hub struct {
	// Broker connects the hub with those of other processes. The hub closes it. nil:
	// the hub is alone.
	Broker Broker
	// Codec is what messages are encoded in on their way through the broker; all hubs
	// of one broker need the same. Subscribers whose connection has the same codec get
	// the bytes as they come, for others messages are encoded once more for each
	// codec. nil: JSON.
	Codec typedrpc.Codec
	// MaxKeyHistory bounds what a topic with History keeps for one key, each message
	// counted with 64 bytes more. Default 256 KiB; one message fits always.
	MaxKeyHistory int
	// MaxIdleKeys is for how many keys without subscribers a history is kept; beyond that
	// the one that was not used for longest is forgotten. Default 1,024.
	MaxIdleKeys int
	// MaxHistory bounds what the histories of all keys take together, each message
	// counted with 320 bytes more, and again in each codec that it was given in. The
	// histories without subscribers that were not used for longest are forgotten
	// first; after them a key that is published to forgets its own oldest messages,
	// all but one. Default 64 MiB.
	MaxHistory int64
	// Recorder is told of subscriptions and messages, by the names of their topics. nil:
	// nobody is told.
	Recorder stats.Recorder

	once  sync.Once
	hub   *hub.Hub
	codec typedrpc.Codec
	err   error // what is wrong with the fields
}

// use is h's inside, made when it is first needed.
func (h *Hub) use() (*hub.Hub, error) {
	if h == nil {
		return nil, unsent(typedrpc.InvalidArgument, "the Hub is nil")
	}
	h.once.Do(h.init)
	return h.hub, h.err
}

func (h *Hub) init() {
	if h.MaxKeyHistory < 0 || h.MaxIdleKeys < 0 || h.MaxHistory < 0 {
		h.err = unsent(typedrpc.FailedPrecondition, "topic.Hub has MaxKeyHistory %d, MaxIdleKeys %d and MaxHistory %d, they must not be negative", h.MaxKeyHistory, h.MaxIdleKeys, h.MaxHistory)
		return
	}
	if h.codec = h.Codec; h.codec == nil {
		h.codec = typedrpc.JSON
	}
	o := hub.Options{Codec: h.codec.Name(), MaxKeyHistory: h.MaxKeyHistory, MaxIdleKeys: h.MaxIdleKeys, MaxHistory: h.MaxHistory, Recorder: h.Recorder}
	if h.Broker != nil {
		o.Broker = broker{h.Broker}
	}
	h.hub = hub.New(o)
}

// both is h's inside and t's declaration.
func both[T any](h *Hub, t Topic[T]) (*hub.Hub, *declared, error) {
	d, err := t.declared()
	if err != nil {
		return nil, nil, err
	}
	x, err := h.use()
	return x, d, err
}

// Close ends all subscriptions with Unavailable, forgets every history and closes
// the broker, whose error it returns. What is published or subscribed to afterwards
// fails with Unavailable. Closing again does nothing. Server.Shutdown ends the
// subscriptions of its connections by itself; close the hub after it.
func (h *Hub) Close() error {
	x, err := h.use()
	if err != nil {
		return err
	}
	return seam.Lift(x.Close())
}

// Publish sends v to all subscribers of t's key, at this hub and at all others
// that share its broker. v is encoded once, whatever their number. Messages
// that one goroutine publishes to one key arrive in that order, and all
// subscribers of a hub see the messages of a key in the same order. Publish
// waits for the broker, with ctx, and never for subscribers, except with
// WaitAtMost when the hub has no broker of its own; that wait is the policy's
// and lasts as long as it says. nil says that the broker took v, not that anybody
// received it. Any number of goroutines may publish.
//
// The error is a *typedrpc.Error: Unavailable for what the broker said, and of a hub that
// was closed, the context's, and InvalidArgument for a key or a message that cannot be
// sent.
func Publish[T any](ctx context.Context, h *Hub, t Topic[T], key string, v T) error {
	x, d, err := both(h, t)
	if err != nil {
		return err
	}
	if ctx == nil {
		return errNoContext
	}
	p := d.pool.Get().(*T)
	*p = v
	err = d.publish(ctx, x, h.codec, key, p)
	var none T
	*p = none
	d.pool.Put(p)
	return err
}

// publish is Publish of what v points to.
func (d *declared) publish(ctx context.Context, x *hub.Hub, c typedrpc.Codec, key string, v any) error {
	body := buf.Get()
	defer body.Release()
	var err error
	if body.B, err = d.items.Encode(c, body.B, v); err != nil {
		return unsent(typedrpc.InvalidArgument, "cannot encode the message of %q: %w", d.name, err)
	}
	return seam.Lift(x.Publish(ctx, &d.hub, key, body.B))
}

// Members returns who subscribes to a key of t at this hub, in the order of their
// subjects, each once. It needs no WithPresence, and asks no other hub. What subscribes
// by Listen is no member. It fails with Unavailable when the hub was closed, and with
// InvalidArgument for a hub or a topic that is none.
func Members[T any](h *Hub, t Topic[T], key string) ([]Member, error) {
	x, d, err := both(h, t)
	if err != nil {
		return nil, err
	}
	here, err := x.Members(&d.hub, key)
	if err != nil {
		return nil, seam.Lift(err)
	}
	all := make([]Member, len(here))
	for i, m := range here {
		all[i] = Member{Subject: m.Subject, About: m.About}
	}
	return all, nil
}

// SetAbout changes what is said of a subject beside its name, see Member.About, from
// now on and at all hubs: a status, say. The subject has to subscribe to that key of t
// at this hub, or it fails with NotFound; when the last of its subscriptions here ends
// it is forgotten. Of what several hubs say of one subject the latest counts, by their
// clocks. It fails with InvalidArgument for more than 255 bytes, and for what is not
// UTF-8. See Introduce for what is said from the beginning.
func SetAbout[T any](h *Hub, t Topic[T], key, subject, about string) error {
	x, d, err := both(h, t)
	if err != nil {
		return err
	}
	return seam.Lift(x.Say(&d.hub, key, subject, about))
}

// Remove ends what a subject has of a key of t at this hub: its subscriptions, and
// where it Watches. They fail with reason, by the rules of a handler's error, so that one
// which is no *Error and no Code is Internal; nil: PermissionDenied. It returns how many
// there were. One that was allowed and is only beginning is not among them, and a
// client may subscribe again: have the function that Handle was given refuse it, before
// Remove is called. "" are those without a subject.
func Remove[T any](h *Hub, t Topic[T], key, subject string, reason error) (int, error) {
	x, d, err := both(h, t)
	if err != nil {
		return 0, err
	}
	if reason == nil {
		reason = typedrpc.Errorf(typedrpc.PermissionDenied, "the subscription to %q was taken away", d.name)
	}
	n, err := x.Remove(&d.hub, key, subject, seam.Lower(reason))
	return n, seam.Lift(err)
}

// broker is a program's Broker as a hub calls it.
type broker struct{ Broker }

func (b broker) Publish(ctx context.Context, channel string, msg []byte) error {
	return seam.Down(b.Broker.Publish(ctx, channel, msg))
}

func (b broker) Subscribe(ctx context.Context, channel string, deliver func(msg []byte)) (func(), error) {
	cancel, err := b.Broker.Subscribe(ctx, channel, deliver)
	return cancel, seam.Down(err)
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
