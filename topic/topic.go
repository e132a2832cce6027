// Package topic has messages that go to everybody who has subscribed to a key: a
// room of a chat, the symbol of a price, the id of a document.
//
//	var Room = topic.New[Message]("chat.room", topic.History(50, 24*time.Hour), topic.DropOldest)
//
//	var hub topic.Hub // where the topics of a process meet
//	topic.Handle(mux, &hub, Room, mayEnter)
//	err := topic.Publish(ctx, &hub, Room, "lobby", message)
//
//	for event, err := range topic.Subscribe(ctx, conn, Room, "lobby") {
//		…
//	}
//
// The server publishes and clients subscribe. A message is encoded once, however
// many subscribe. How much of the past a new subscriber gets, what becomes of one
// that is slow, and whether it is told who else is there, are traits of the topic.
//
// # How old a message is
//
// What a slow subscriber gets is as old as what may wait for it: in the window of its
// stream (64 KiB at first), and what its policy queues before that. Measured with prices
// of 100 bytes, a thousand a second, for a page that takes sixty, over a path of 50 ms:
//
//	policy                                median   oldest   taken
//	LatestOnly                             42 ms    43 ms   59 a second
//	DropOldest                             6.3 s    8.1 s   59
//	DropOldest, MaxQueued 16 KiB           4.8 s    6.6 s   59
//	DropOldest, 16 KiB, window 4 KiB      0.39 s   0.48 s   59
//	DropNewest                              31 s     33 s   59
//	DropNewest, 16 KiB, window 4 KiB       1.9 s    2.1 s   59
//	WaitAtMost(time.Minute)                 30 s     33 s   59, and nobody more than 59
//	Disconnect                             3.2 s    6.4 s   59, and ended after two seconds
//
// The window is typedrpc.Limits.Window of the side that subscribes. LatestOnly does not
// go by it: it has a few messages under way at most, one to begin with, and more only
// while they arrive as fast as the path allows. What it delivers is at most two round trips
// old, or one message more: as long as the loop's body, or a slow line, takes for one. A
// message that left before a link broke is as old as the outage.
//
// Plain JSON-RPC peers, and whoever reads with a GET, do not tell what they have received. To
// them LatestOnly keeps nothing back that the socket takes, so what they get is as old as
// what all buffers on the way hold: with 64 KiB of them, which a kernel has at least, such a
// page is 5 s behind. A page that is to see the present uses a typedrpc client.
package topic

import (
	"fmt"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hub"
	"github.com/typedrpc/typedrpc/internal/schema"
	"github.com/typedrpc/typedrpc/internal/seam"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// Topic declares messages of one type that go to everybody who has subscribed to a
// key. It is declared once, in a package that both sides import, and is safe for
// concurrent use. A subscription is a server stream of the topic's name whose request
// is the key; a second one, of the name with ".presence" behind it, tells who has
// subscribed.
type Topic[T any] struct{ d *declared }

// declared is a topic without its type.
type declared struct {
	name     string
	items    seam.Decl
	presence seam.Decl
	hub      hub.Topic // all that a hub knows of it; rooms go by its address
	restarts bool
	pool     sync.Pool // of *T
	policies []string  // that it was given
}

const presenceSuffix = ".presence"

// New declares a topic. It panics if the name is bad, as typedrpc.NewMethod does (it
// may have 246 bytes), if T is typedrpc.Bytes, and if a trait does not apply or
// contradicts another one.
func New[T any](name string, traits ...Trait) Topic[T] {
	d := &declared{name: name}
	if _, ok := any(new(T)).(*typedrpc.Bytes); ok {
		d.refuse("typedrpc.Bytes are for streams, a topic's messages are the codec's; use []byte")
	}
	var below []typedrpc.ServerStreamTrait
	for _, t := range traits {
		switch t := t.(type) {
		case nil:
			d.refuse("there is a nil trait")
		case policy:
			t.apply(d)
		case trait:
			t.apply(d)
		case flag:
			t.apply(d)
		case typedrpc.ServerStreamTrait: // a typedrpc.RequestTrait, or Safe
			below = append(below, t)
		default:
			d.refuse("%T is none of the traits there are", t)
		}
	}
	if d.hub.Policy.Do == hub.LatestOnly && d.hub.Policy.Bytes > 0 {
		d.refuse("LatestOnly keeps one message, whatever its size: it takes no MaxQueued")
	}
	if most := wire.MaxMethod - len(presenceSuffix); len(name) > most {
		d.refuse("its name has %d bytes, at most %d are allowed", len(name), most)
	}
	d.items = seam.Declared(typedrpc.NewServerStream[string, T](name, below...))
	d.presence = seam.Declared(typedrpc.NewServerStream[string, string](name + presenceSuffix))
	d.presence.Tagged(d.items) // by which interceptors decide who may
	if d.items.Listed() {
		d.refuse("its request is a key, which has no members for Params to name")
	}
	policy := ""
	if len(d.policies) > 0 {
		policy = d.policies[0]
	}
	d.items.Described(schema.Registered{
		Kind: "topic", Restartable: d.restarts, Presence: d.hub.Presence, Policy: policy,
		History: d.hub.Last, HistoryAge: d.hub.Recent, MaxQueued: d.hub.Policy.Bytes,
	})
	d.presence.Described(schema.Registered{Part: true})
	d.hub.Decl = d.items.Engine()
	d.hub.Decl.Newest = d.hub.Policy.Do == hub.LatestOnly
	d.pool.New = func() any { return new(T) }
	return Topic[T]{d}
}

// refuse panics at a declaration.
func (d *declared) refuse(format string, args ...any) {
	panic(fmt.Sprintf("typedrpc: topic %q: ", d.name) + fmt.Sprintf(format, args...))
}

// Name returns the topic's name, "" of the zero value.
func (t Topic[T]) Name() string {
	if t.d == nil {
		return ""
	}
	return t.d.name
}

// declared is t's declaration, if it has one.
func (t Topic[T]) declared() (*declared, error) {
	if t.d == nil {
		return nil, unsent(typedrpc.InvalidArgument, "the topic was not made by topic.New")
	}
	return t.d, nil
}

// unsent is the error of what this side did not do.
func unsent(code typedrpc.Code, format string, args ...any) error {
	e := typedrpc.Errorf(code, format, args...)
	e.Outcome = typedrpc.NotSent
	return e
}

// A Trait is a fact about a topic: one of this package, a typedrpc.RequestTrait, such as
// typedrpc.MaxSize, or typedrpc.Safe.
type Trait interface{ topicTrait }

type topicTrait = seam.RequestTrait

// Disconnect, DropOldest, DropNewest and LatestOnly are policies: traits that say what
// becomes of a subscriber that receives more slowly than others publish, one whose
// stream's window (64 KiB at first) is spent, and for whom more messages are queued
// than MaxQueued allows. The comment of the package says how old messages get. None but
// WaitAtMost delays other subscribers. What is dropped is counted and told with the next
// message, see Event. A topic has one: Disconnect, if it is given none. WaitAtMost is
// another.
const (
	// Disconnect ends the subscription with ResourceExhausted. It is the default:
	// subscribing again is easy, and nobody overlooks the error as one overlooks a
	// message that is missing.
	Disconnect = policy(iota)
	// DropOldest drops the messages that have waited longest.
	DropOldest
	// DropNewest drops what does not fit any more.
	DropNewest
	// LatestOnly queues one message: each new one takes the place of the one before,
	// also of those that have not left, and a loop of Subscribe whose body was busy is
	// given the newest of those that have come. It is for states, such as prices, of
	// which only the last counts, and delivers them young, whatever the window is, but not
	// to plain JSON-RPC peers. A History comes in whole.
	LatestOnly
)

type policy uint8

func (policy) RequestTrait() {}

func (p policy) apply(d *declared) {
	names := [...]string{"Disconnect", "DropOldest", "DropNewest", "LatestOnly"}
	if int(p) >= len(names) {
		d.refuse("%d is none of the policies", p)
	}
	d.decide(names[p], hub.Do(p), 0) // which are in the same order
}

// decide gives the topic its policy.
func (d *declared) decide(name string, do hub.Do, wait time.Duration) {
	if d.policies = append(d.policies, name); len(d.policies) > 1 {
		d.refuse("it has two policies, %s and %s", d.policies[0], d.policies[1])
	}
	d.hub.Policy.Do, d.hub.Policy.Wait = do, wait
}

// trait is one with a parameter.
type trait struct{ apply func(*declared) }

func (trait) RequestTrait() {}

// WaitAtMost is a policy as DropOldest is one. It makes the publisher wait for
// the subscriber, after all others of the key have been served, and disconnects the
// subscriber when d has passed since it fell behind and it has not caught up with half
// of what was queued. Publishers to other keys do not wait. Their context does not end
// the wait: a message that others of the key have belongs to all of it.
func WaitAtMost(d time.Duration) Trait {
	return trait{func(t *declared) {
		if d <= 0 {
			t.refuse("WaitAtMost must be positive, it is %v", d)
		}
		t.decide("WaitAtMost", hub.WaitAtMost, d)
	}}
}

// MaxQueued bounds what is queued for one subscriber, in bytes of encoded messages,
// each counted with 64 more. Default 256 KiB. One message fits always. Beside this
// bound a connection's subscriptions together may queue Limits.MaxBuffered, and those
// of all connections half of Server.MaxMemory; what does not fit there is the policy's,
// too.
func MaxQueued(bytes int) Trait {
	return trait{func(t *declared) {
		switch {
		case bytes <= 0:
			t.refuse("MaxQueued must be positive, it is %d", bytes)
		case t.hub.Policy.Bytes > 0:
			t.refuse("it has MaxQueued twice")
		}
		t.hub.Policy.Bytes = bytes
	}}
}

// History gives a new subscriber the last n messages of its key, or those of the last
// d, or what both allow, before the live ones, without a gap and without a repetition.
// 0 is no bound of that kind; one is needed. A Hub keeps what it has heard since the
// key was first used with it, up to Hub.MaxKeyHistory for each key, in memory; so one
// that was started later has less.
func History(n int, d time.Duration) Trait {
	return trait{func(t *declared) {
		switch {
		case n < 0 || d < 0 || n == 0 && d == 0:
			t.refuse("History needs a number of messages or an age, and neither negative; they are %d and %v", n, d)
		case t.hub.Remembers():
			t.refuse("it has History twice")
		}
		t.hub.Last, t.hub.Recent = n, d
	}}
}

type flag uint8

const (
	// WithPresence lets clients Watch who subscribes to a key, if Handle allows it.
	// Without it nobody is told.
	WithPresence = flag(iota)
	// Restartable is for loops of clients that go on when their session is lost: a
	// Subscribe or Watch that breaks off with a Gap begins again, as soon as there is
	// a session. What typedrpc.Receive says of restartable streams holds for both;
	// they say what comes after the gap.
	Restartable
)

func (flag) RequestTrait() {}

func (f flag) apply(d *declared) {
	switch f {
	case WithPresence:
		d.hub.Presence = true
	case Restartable:
		d.restarts = true
	default:
		d.refuse("%d is none of the traits there are", f)
	}
}
