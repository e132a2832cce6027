package topic

import (
	"context"
	"iter"
	"math"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Event is a message of a topic as a subscriber gets it.
type Event[T any] struct {
	Value T
	// Missed is how many messages were lost to this subscriber before this
	// one: it was too slow for them, see DropOldest, or could not be given
	// them, because they were larger than it takes. Test for != 0: -1 is an unknown
	// number, none perhaps, because the broker lost its connection, or the
	// subscription of a Restartable topic its session.
	Missed int
	// History says that the message was published before the subscription.
	History bool
}

// missed is Event.Missed.
func missed(dropped uint64) int {
	if dropped >= flow.MissedUnknown {
		return -1
	}
	return int(min(dropped, math.MaxInt))
}

// Subscribe subscribes to a key of t and ranges over its messages. Each loop
// over the result is a subscription of its own. All that is said of typedrpc.Receive
// holds here too: leaving the loop ends the subscription, an error is the last
// pair, and a loop whose session is lost ends with a Gap. To go on then,
// subscribe again; a topic with History repeats what it has. As long as it lasts a
// subscription has one of the places of Limits.MaxCalls.
//
// A topic that is Restartable does so by itself. The loop gets the gap as a pair
// of no event and an error, at once, and may go on. The first event after it has
// Missed -1. What the topic remembers comes first, with History set, also what
// the loop has seen before the gap.
func Subscribe[T any](ctx context.Context, c typedrpc.Caller, t Topic[T], key string) iter.Seq2[Event[T], error] {
	d, err := t.declared()
	if err != nil {
		return failed[Event[T]](err)
	}
	return follow(ctx, c, d, d.items, key, func(v T, about engine.Item, afterGap bool) (Event[T], error) {
		e := Event[T]{Value: v, Missed: missed(about.Dropped), History: about.Flags&wire.History != 0}
		if afterGap {
			e.Missed = -1
		}
		return e, nil
	})
}

// Member is somebody who subscribes to a key of a topic, or does so no more.
type Member struct {
	Subject string // of the connection's Identity; "": those without
	// About is what the server says of the member, with Introduce or SetAbout: a name or
	// a status, at most 255 bytes. "": nothing. No client can say it of itself.
	About string
	Left  bool
	// Changed says that the member was there, and that About is another one now.
	Changed bool
	// History says that the member was there when Watch began, or began again after
	// a gap, and has not left since.
	History bool
}

// Watch ranges over those who subscribe to a key of t: first the ones who
// are there, then everybody who comes or leaves. A subject with several
// subscriptions comes with the first and leaves with the last; all connections
// without a subject are one. A member comes again, with Changed, when something else is
// said About it. A loop that is slow need not be told of somebody who came and left
// again meanwhile, and of the things said of a member is told the last; of one who left
// and came back it may be told nothing, or that it Changed. When more changes than twice the members, 512 at
// least, wait for slow loops together, the slowest end with ResourceExhausted;
// they may ask again. Members at other hubs that share the broker
// come as soon as those have answered, and at the latest 40 s after such a hub
// was lost its members leave. Watching is not a subscription. It ends as
// Subscribe does.
//
// For a Restartable topic it goes on after a gap as it began: the members who are
// there come with History. Nobody is told of those who left meanwhile, so a loop that
// keeps a list begins a new one at the gap.
//
// A topic without WithPresence has nothing to watch: the loop fails with
// FailedPrecondition.
func Watch[T any](ctx context.Context, c typedrpc.Caller, t Topic[T], key string) iter.Seq2[Member, error] {
	d, err := t.declared()
	if err == nil && !d.hub.Presence {
		err = unsent(typedrpc.FailedPrecondition, "who subscribes to %q is not told: declare it with topic.WithPresence", d.name)
	}
	if err != nil {
		return failed[Member](err)
	}
	return follow(ctx, c, d, d.presence, key, func(v string, about engine.Item, _ bool) (Member, error) {
		m, ok := hub.ReadTold(v)
		if !ok {
			return Member{}, typedrpc.Errorf(typedrpc.Internal, "cannot read %.20q: no presence is like that", v)
		}
		return Member{Subject: m.Subject, About: m.About, Left: m.Left, Changed: m.Changed, History: about.Flags&wire.History != 0}, nil
	})
}

// failed is a loop that ends with an error at once.
func failed[E any](err error) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		var none E
		yield(none, err)
	}
}

// follow is typedrpc.Receive with what is said of each item.
func follow[T, E any](ctx context.Context, c typedrpc.Caller, d *declared, s seam.Decl, key string, event func(v T, about engine.Item, afterGap bool) (E, error)) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		var v, zero T
		var none E
		seam.Follow(ctx, c, s, d.restarts, key, &v, func(about engine.Item, afterGap bool) (bool, error) {
			e, err := event(v, about, afterGap)
			v = zero
			return err == nil && yield(e, nil), err
		}, func(err error) bool { return yield(none, err) })
	}
}

// Listen subscribes to a key of t at the hub of this process, without a connection:
// for a bot that answers, or a store that writes down. It is asked for no permission,
// and is no Member. The subscription begins with the loop, and ends when the loop is
// left, ctx ends, the policy of t ends it, or the hub is closed; an error is the last
// pair, after all messages that came before it. History and policies are those of all
// subscribers, but for the window: whatever comes while the loop's body is busy is
// queued, up to MaxQueued. With WaitAtMost publishers wait for it, so the body must not
// publish to its own key then.
func Listen[T any](ctx context.Context, h *Hub, t Topic[T], key string) iter.Seq2[Event[T], error] {
	x, d, err := both(h, t)
	if err == nil && ctx == nil {
		err = errNoContext
	}
	if err != nil {
		return failed[Event[T]](err)
	}
	return func(yield func(Event[T], error) bool) {
		var none Event[T]
		l, err := x.Listen(ctx, &d.hub, key)
		if err != nil {
			yield(none, seam.Lift(err))
			return
		}
		defer l.Close()
		for {
			item, err := l.Next(ctx)
			if err != nil {
				yield(none, seam.Lift(err))
				return
			}
			e := Event[T]{Missed: missed(item.Dropped), History: item.History}
			if err := d.items.Decode(h.codec, item.Body, &e.Value); err != nil {
				yield(none, typedrpc.Errorf(typedrpc.Internal, "cannot decode a message of %q: %w", d.name, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
