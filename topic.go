package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Topic declares messages of one type that go to everybody who has subscribed
// to a key: a room of a chat, the symbol of a price, the id of a document.
// Like a Method it is declared once, in a package that both sides import, and
// is safe for concurrent use. A subscription is a server stream of the topic's
// name whose request is the key; a second one, of the name with ".presence"
// behind it, tells who has subscribed.
type Topic[T any] struct {
	spec  *spec
	again bool // restartable
}

// topicTraits are what a topic's spec has beside a stream's.
type topicTraits struct {
	slow     SlowPolicy
	last     int           // history: messages; 0: no such bound
	recent   time.Duration // history: age; 0: no such bound
	presence *spec

	topic *hub.Topic // all that a hub knows of it
}

// NewTopic declares a topic. It panics like NewMethod; the name may have 246
// bytes.
func NewTopic[T any](name string, traits ...TopicTrait) Topic[T] {
	about := &topicTraits{slow: Disconnect}
	s := newSpec(name, KindServerStream, traits, func(t TopicTrait, s *spec) { s.topic = about; t.topic(s) })
	s.topic = about
	if _, ok := any(new(T)).(*Bytes); ok {
		panic(fmt.Sprintf("typedrpc: topic %q: Bytes are for streams, a topic's messages are the codec's; use []byte", name))
	}
	s.down.New = func() any { return new(T) }
	s.check = func(c Codec) error { return errors.Join(checkType[string](s, c), checkType[T](s, c)) }
	p := newSpec(name+presenceSuffix, KindServerStream, []TopicTrait(nil), TopicTrait.topic)
	p.down.New = func() any { return new(string) }
	p.check = func(c Codec) error { return checkType[string](p, c) }
	slow := s.topic.slow
	s.topic.presence = p
	s.topic.topic = &hub.Topic{
		Decl: &s.decl, Last: s.topic.last, Recent: s.topic.recent,
		Policy: hub.Policy{Do: hub.Do(slow.do), Wait: slow.wait, Bytes: slow.bytes},
	}
	return Topic[T]{spec: s}
}

const presenceSuffix = ".presence"

// Restartable returns the declaration with another behaviour of Subscribe and
// Presence: a loop that breaks off with a Gap subscribes to its key again, as
// soon as there is a session. What Receive says of restartable streams holds for
// both; Subscribe and Presence say what comes after the gap. The two
// declarations have one name and are the same to HandleTopic and Publish.
func (t Topic[T]) Restartable() Topic[T] {
	t.again = true
	return t
}

// Name returns the topic's name.
func (t Topic[T]) Name() string { return t.spec.name }

// SlowPolicy says what becomes of a subscriber that receives more slowly than
// others publish: one whose stream's window (64 KiB at first) is spent, and
// for whom more messages are queued than the policy allows. It never delays
// or harms other subscribers, except that WaitAtMost makes the publisher wait.
// What is dropped is counted and told with the next message, see Event. The
// policies are values: Disconnect, DropOldest, DropNewest, LatestOnly, and
// what WaitAtMost and Within return.
type SlowPolicy struct {
	do    slowDo
	wait  time.Duration
	bytes int // 0: 256 KiB
}

type slowDo uint8

const (
	disconnect = slowDo(hub.Disconnect)
	dropOldest = slowDo(hub.DropOldest)
	dropNewest = slowDo(hub.DropNewest)
	latestOnly = slowDo(hub.LatestOnly)
	waitAtMost = slowDo(hub.WaitAtMost)
)

var (
	// Disconnect ends the subscription with ResourceExhausted. It is the
	// default: subscribing again is easy, and nobody overlooks the error as
	// one overlooks a message that is missing.
	Disconnect = SlowPolicy{do: disconnect}
	// DropOldest drops the messages that have waited longest.
	DropOldest = SlowPolicy{do: dropOldest}
	// DropNewest drops what does not fit any more.
	DropNewest = SlowPolicy{do: dropNewest}
	// LatestOnly queues one message: each new one takes the place of the one
	// before. It is for states, such as prices, of which only the last counts.
	LatestOnly = SlowPolicy{do: latestOnly}
)

// WaitAtMost makes the publisher wait for the subscriber, after all others of
// the room have been served, and disconnects it when d has passed since it
// fell behind and it has not caught up with half of what was queued.
// Publishers to other keys do not wait. Their context does not end the wait: a
// message that others of the room have belongs to all of it.
func WaitAtMost(d time.Duration) SlowPolicy { return SlowPolicy{do: waitAtMost, wait: d} }

// Within returns the policy with another bound than 256 KiB for what is queued
// for one subscriber, in bytes of encoded messages, each counted with 64 more.
// One message fits always. Beside this bound a connection's subscriptions
// together may queue Limits.MaxBuffered, and those of all connections half of
// Server.MaxMemory; what does not fit there is the policy's, too.
func (p SlowPolicy) Within(bytes int) SlowPolicy {
	p.bytes = bytes
	if bytes <= 0 {
		p.bytes = -1 // refused by Slow
	}
	return p
}

// Slow is what becomes of a topic's slow subscribers. The default is
// Disconnect.
func Slow(p SlowPolicy) TopicTrait {
	return topicTrait(func(s *spec) {
		if p.bytes < 0 {
			panic(fmt.Sprintf("typedrpc: topic %q: SlowPolicy.Within needs a positive number of bytes", s.name))
		}
		if p.do == waitAtMost && p.wait <= 0 {
			panic(fmt.Sprintf("typedrpc: topic %q: WaitAtMost must be positive, it is %v", s.name, p.wait))
		}
		s.topic.slow = p
	})
}

// History gives a new subscriber the last n messages of its key, or those of
// the last d, or what both allow, before the live ones, without a gap and
// without a repetition. 0 is no bound of that kind; one is needed. A Hub keeps
// what it has heard since the key was first used with it, up to
// HubOptions.HistoryBytes for each key, in memory.
func History(n int, d time.Duration) TopicTrait {
	return topicTrait(func(s *spec) {
		if n < 0 || d < 0 || n == 0 && d == 0 {
			panic(fmt.Sprintf("typedrpc: topic %q: History needs a number of messages or an age, and neither negative; they are %d and %v", s.name, n, d))
		}
		s.topic.last, s.topic.recent = n, d
	})
}

// A TopicTrait is a fact about a topic.
type TopicTrait interface{ topic(*spec) }

type topicTrait func(*spec)

func (f topicTrait) topic(s *spec) { f(s) }

// HandleTopic lets mux's peers subscribe to t, and see its presence. allow is
// asked for each subscription, in the handler's context, and refuses it with
// an error; nil allows every key. A key is a string of at most 255 bytes of
// UTF-8, and may be empty. Several muxes may share a hub. A subscription that has
// nothing to send has no goroutine, unless interceptors of mux wait for its end. It
// panics like Handle, and if the hub's codec cannot carry T.
func HandleTopic[T any](mux *Mux, hub *Hub, t Topic[T], allow func(ctx context.Context, key string) error) {
	if mux == nil || t.spec == nil {
		panic("typedrpc: HandleTopic needs a Mux, and a topic that was made by NewTopic")
	}
	if hub == nil {
		panic(fmt.Sprintf("typedrpc: topic %q: the hub is nil", t.spec.name))
	}
	if err := t.spec.check(hub.codec); err != nil {
		panic(err.Error())
	}
	coder, wrapped := hub.coder(t.spec), len(mux.interceptors) > 0
	mux.add(&entry{spec: t.spec, serve: serveTopic(t.spec, coder, allow, hub.h.Subscribe, wrapped)})
	mux.add(&entry{spec: t.spec.topic.presence, serve: serveTopic(t.spec, coder, allow, hub.h.Watch, wrapped)})
}

// serveTopic is the handler of a topic's stream, or of its presence's. It returns
// when what begin has begun rests, unless interceptors wait for its end.
func serveTopic(s *spec, coder *hub.Coder, allow func(ctx context.Context, key string) error,
	begin func(context.Context, *engine.Stream, *hub.Topic, string, hub.Peer) (engine.Resumer, error), wrapped bool) func(context.Context, *Request) (*buf.Buf, error) {
	return func(ctx context.Context, r *Request) (*buf.Buf, error) {
		var key string
		if err := r.decode(r.spec, &key); err != nil {
			return nil, err
		}
		if err := hub.CheckKey(key); err != nil {
			return nil, up(err, nil)
		}
		if allow != nil {
			if err := allow(ctx, key); err != nil {
				return nil, err
			}
		}
		h, err := begin(ctx, r.stream, s.topic.topic, key, peer(r.Conn, s, coder))
		switch {
		case err != nil:
		case wrapped:
			err = r.stream.Attend(ctx, h)
		default:
			r.stream.Entrust(h)
			err = h.Resume(ctx)
		}
		return nil, lift(err, r.Conn.codec)
	}
}

// Publish sends v to all subscribers of t's key, at this hub and at all others
// that share its broker. v is encoded once, whatever their number. Messages
// that one goroutine publishes to one key arrive in that order, and all
// subscribers of a hub see the messages of a key in the same order. Publish
// waits for the broker, with ctx, and never for subscribers, except with
// WaitAtMost when the hub has no broker of its own; that wait is the policy's
// and lasts as long as it says. nil says that the broker
// took v, not that anybody received it. Any number of goroutines may publish.
func Publish[T any](ctx context.Context, hub *Hub, t Topic[T], key string, v T) error {
	p := t.spec.down.Get().(*T)
	*p = v
	body := buf.Get()
	defer body.Release()
	var err error
	body.B, err = t.spec.encode(hub.codec, body.B, p)
	var none T
	*p = none
	t.spec.down.Put(p)
	if err != nil {
		return refuse(InvalidArgument, "cannot encode the message of %q: %w", t.spec.name, err)
	}
	return lift(hub.h.Publish(ctx, t.spec.topic.topic, key, body.B), nil)
}

// Event is a message of a topic as a subscriber gets it.
type Event[T any] struct {
	Value T
	// Missed is how many messages were lost to this subscriber before this
	// one: it was too slow for them, see SlowPolicy, or could not be given
	// them, because they were larger than it takes. -1: an unknown number,
	// none perhaps, because the broker lost its connection, or the subscription
	// of a restartable topic its session.
	Missed int
	// History says that the message was published before the subscription.
	History bool
}

// Subscribe subscribes to a key of t and ranges over its messages. Each loop
// over the result is a subscription of its own. All that is said of Receive
// holds here too: leaving the loop ends the subscription, an error is the last
// pair, and a loop whose session is lost ends with a Gap. To go on then,
// subscribe again; a topic with History repeats what it has.
//
// A topic that is Restartable does so by itself. The loop gets the gap as a pair
// of no event and an error, at once, and may go on. The first event after it has
// Missed -1. What the topic remembers comes first, with History set, also what
// the loop has seen before the gap.
func Subscribe[T any](ctx context.Context, c Caller, t Topic[T], key string) iter.Seq2[Event[T], error] {
	return follow(ctx, c, t.spec, t.again, key, func(v T, about engine.Item, afterGap bool) (Event[T], error) {
		e := Event[T]{Value: v, History: about.Flags&wire.History != 0}
		switch {
		case afterGap || about.Dropped >= hub.MissedUnknown:
			e.Missed = -1
		default:
			e.Missed = int(min(about.Dropped, math.MaxInt))
		}
		return e, nil
	})
}

// Member is somebody who subscribes to a key of a topic, or does so no more.
type Member struct {
	Subject string // of the connection's Identity; "": those without
	Left    bool
	// History says that the member was there when the loop began, or began
	// again after a gap, and has not left since.
	History bool
}

// Presence ranges over those who subscribe to a key of t: first the ones who
// are there, then everybody who comes or leaves. A subject with several
// subscriptions comes with the first and leaves with the last; all connections
// without a subject are one. A loop that is slow need not be told of somebody who
// came and left again meanwhile. When more changes than twice the members, 512 at
// least, wait for slow loops together, the slowest end with ResourceExhausted;
// they may ask again. Members at other hubs that share the broker
// come as soon as those have answered, and at the latest 40 s after such a hub
// was lost its members leave. Looking on is not a subscription. It ends as
// Subscribe does.
//
// Presence of a Restartable topic goes on after a gap as it began: the members
// who are there come with History. Nobody is told of those who left meanwhile, so
// a loop that keeps a list begins a new one at the gap.
func Presence[T any](ctx context.Context, c Caller, t Topic[T], key string) iter.Seq2[Member, error] {
	return follow(ctx, c, t.spec.topic.presence, t.again, key, func(v string, about engine.Item, _ bool) (Member, error) {
		m := Member{History: about.Flags&wire.History != 0}
		var came bool
		if m.Subject, came = strings.CutPrefix(v, "+"); !came {
			if m.Subject, m.Left = strings.CutPrefix(v, "-"); !m.Left {
				return m, Errorf(Internal, "cannot read %.20q: presence begins with + or -", v)
			}
		}
		return m, nil
	})
}

// follow is Receive with what is said of each item.
func follow[T, E any](ctx context.Context, c Caller, s *spec, again bool, key string, event func(v T, about engine.Item, afterGap bool) (E, error)) iter.Seq2[E, error] {
	return func(yield func(E, error) bool) {
		var none E
		l := loop{caller: c, spec: s, restarts: again}
		l.run(ctx, func(bool) any { return &key }, func(x face) (Raw, error) {
			for {
				if l.left {
					return nil, errLeft
				}
				v, about, err := recvItem[T](x, &s.down, nil)
				if err == io.EOF {
					return nil, nil
				}
				if err != nil {
					return nil, err
				}
				e, err := event(v, about, l.came())
				if err != nil {
					return nil, err
				}
				l.left = true
				l.left = !yield(e, nil)
			}
		}, func(err error) bool { return yield(none, err) })
	}
}
