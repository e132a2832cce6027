package stats

import "time"

// A Recorder is told what happens, by Server.Recorder, DialOptions.Recorder and
// topic.Hub's. It makes metrics of it, for example. Events are plain values, in no order
// between different calls, and may come on any number of goroutines at once.
//
// Its methods are called by goroutines that have other work, the one that reads from the
// socket among them: they must return soon, and must not wait. They may ask for Stats, and
// use nothing else of the library. A panic is logged, and ends nothing; runtime.Goexit, as t.FailNow
// calls it, would end the goroutine, and must not be called.
//
// What embeds None has all methods, also those that are added later.
type Recorder interface {
	// Call is told of the end of every call, stream and notification.
	Call(Call)
	// Item is told of each item of a stream that is queued to be sent, or was received
	// by the program.
	Item(Item)
	// Link is told of links of connections that begin and end. Handshakes that fail are
	// none.
	Link(Link)
	// Session is told of sessions that begin, go on over another link, and end.
	Session(Session)
	// Topic is told what a hub does.
	Topic(Topic)
}

// None is a Recorder that records nothing.
type None struct{}

func (None) Call(Call)       {}
func (None) Item(Item)       {}
func (None) Link(Link)       {}
func (None) Session(Session) {}
func (None) Topic(Topic)     {}

// Kind says what a call is. typedrpc.KindMethod and its siblings are these
// constants.
type Kind uint8

// The kinds.
const (
	Method Kind = iota
	Notification
	ServerStream
	ClientStream
	BidiStream
)

// String is the kind in words, as "server stream".
func (k Kind) String() string {
	if k > BidiStream {
		return "unknown"
	}
	return [...]string{"method", "notification", "server stream", "client stream", "bidirectional stream"}[k]
}

// Call is a call, stream or notification that has ended. One that this side sends ends with
// the answer, its context, or the connection, and all attempts of a RetryPolicy are one; a
// notification ends with its place in the queue. One that came ends when its handler has
// returned, with its refusal, or with the session in which it waited for its turn. What an
// outgoing interceptor answered itself is none, nor is what this side did not come to send: a
// request that cannot be encoded, or one whose context had ended before.
type Call struct {
	// Conn is the *typedrpc.Conn; of a POST it is one that has no peer to call.
	Conn any
	// Method is the name of the declaration. It is "" where nobody on this side declared
	// it, and never what a peer chose: it may name a metric.
	Method   string
	Kind     Kind
	Outgoing bool          // this side calls; false: it handles
	Code     int64         // a typedrpc.Code, as the caller sees it; 0: it succeeded
	NotRun   bool          // it failed before any handler saw it
	Attempts int           // of an outgoing call, with the first
	Duration time.Duration // 0 of what was refused, and of notifications that are sent
}

// Item is an item of a stream.
type Item struct {
	Conn     any    // the *typedrpc.Conn
	Method   string // as Call's
	Outgoing bool   // this side has called
	Sent     bool   // this side sends it; false: it has come
	Bytes    int    // encoded
}

// Link is a link that has begun or ended.
type Link struct {
	Conn     any           // the *typedrpc.Conn
	Dialled  bool          // this side did; false: it has accepted it
	Up       bool          // it has begun; false: it has ended
	End      End           // why, when it has ended
	Duration time.Duration // of its life, then
}

// Session is a session that has begun, goes on, or has ended.
type Session struct {
	Conn    any  // the *typedrpc.Conn
	Dialled bool // as Link's
	Event   SessionEvent
	End     End // why, when it has ended
}

// SessionEvent is what has become of a session.
type SessionEvent uint8

// What becomes of sessions.
const (
	SessionBegun SessionEvent = iota
	SessionResumed
	SessionEnded
)

// String is the event in a word, as "resumed".
func (e SessionEvent) String() string {
	if e > SessionEnded {
		return "unknown"
	}
	return [...]string{"begun", "resumed", "ended"}[e]
}

// End is why a link or a session has ended.
type End uint8

// Why links and sessions end.
const (
	EndNone      End = iota // it has not
	EndClosed               // one side closed the connection, or is going away
	EndBroken               // the network, or the peer's process
	EndSilent               // the peer gave no sign of life, did not read, or was too slow
	EndReplaced             // another link took its place
	EndGrace                // the client did not come back within Limits.Grace
	EndEvicted              // for Server.MaxKept or MaxKeptBytes
	EndMemory               // for Server.MaxMemory
	EndIdentity             // the identity has ended, was revoked, or is not allowed
	EndViolation            // one side broke the protocol, or passed its limits
)

// String is the reason in a word, as "grace".
func (e End) String() string {
	if e > EndViolation {
		return "unknown"
	}
	return [...]string{"none", "closed", "broken", "silent", "replaced", "grace", "evicted", "memory", "identity", "violation"}[e]
}

// Topic is what a hub has done.
type Topic struct {
	Name  string // of the declaration
	Event TopicEvent
	N     int // messages, or subscriptions
}

// TopicEvent is what a hub does.
type TopicEvent uint8

// What hubs do.
const (
	Subscribed   TopicEvent = iota // a subscription has begun
	Unsubscribed                   // and ended
	Published                      // the broker took a message
	Delivered                      // one came from it: N is to how many subscribers of this hub
	Dropped                        // messages that slow subscribers miss, or those who cannot take them
	Disconnected                   // a slow subscriber was ended
)

// String is the event in a word, as "published".
func (e TopicEvent) String() string {
	if e > Disconnected {
		return "unknown"
	}
	return [...]string{"subscribed", "unsubscribed", "published", "delivered", "dropped", "disconnected"}[e]
}
