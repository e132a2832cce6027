package hook

import "context"

// What tests see of the inside: sums and sizes, as plain values. Each struct is
// a copy that was made at one moment, under the lock that guards what it
// counts. The arguments are any because this package cannot import their types.

// Conn returns the sums of a *typedrpc.Conn.
var Conn func(conn any) ConnSums

// ConnSums are what a connection holds and owes.
type ConnSums struct {
	// Calls that we make, by where they are.
	Queue   int // frames that are ready to be taken, of calls and all else
	Large   int // those that wait until another has left in fragments
	Waiting int // calls without a slot, or held for the next session
	Pending int // taken, and not answered
	Resting int // waiting for their next attempt
	Slots   int // calls in queue and pending …
	Flowing int // … those of them that are streams …
	Held    int // … their bytes of the peer's budget …
	Passed  int // … and those of calls that passed a larger one
	NextID  uint64

	// What waits for the writer.
	Cutting   int  // bytes of messages that are leaving in fragments
	Midway    bool // an ordered one is among them
	Overtaken bool // an ordered one waits in large
	Queued    int  // bytes of replies, items and notifications in queue …
	Unsent    int  // … and of replies that wait for room there

	// Notifications that we send.
	NotifyWindow int // bytes granted
	NotifyUsed   int // bytes sent or queued, and not credited
	NotifySizes  int // notifications that were sent and are not credited

	// Streams, whoever called.
	SentItems int // bytes of items that the peer has not credited
	ItemsOut  int // bytes of items that came and are not credited …
	Spent     int // … and of them, of those that were consumed while no credit is due
	Unread    int // bytes of items that nobody has received yet, and of what is being assembled
	Grown     int // bytes that windows have grown by
	Creditors int // streams that owe the peer credit
	Streams   []StreamSums

	// Calls and notifications that we handle.
	Inbound    int
	Inflow     int  // streams among them
	Partial    int  // messages of which parts have come
	InBytes    int  // of the payloads of calls
	Parked     int  // calls that wait for replies to be read
	Lane       bool // there is one
	LaneBytes  int  // of the notifications that wait for the lane
	Credits    int  // notifications to credit
	MostUnread int  // what Unread may be

	Account int64 // bytes that it holds of its server's ledger, beside its log; 0 on the client's side

	// What the peer announced.
	PeerCalls  uint64
	PeerWindow uint64
	PeerBudget uint64
	PeerCache  string // the identity of its cache of answers; "": it has none
	Cache      string // of our own

	// The session. All is zero while there is none.
	Open     bool   // there is one, and it has not ended
	Sent     uint64 // counted frames sent, …
	Acked    uint64 // … acknowledged by the peer, …
	Received uint64 // … and received
	Logged   int    // bytes sent and not acknowledged
}

// Stream returns the sums of a *typedrpc.Stream.
var Stream func(stream any) StreamSums

// StreamSums are what one side of a stream holds.
type StreamSums struct {
	Caller bool // this side called
	Lent   bool // it has something to send, or to be credited

	Pieces     int // items that wait to be sent
	SendWindow int // bytes granted by the peer
	Used       int // bytes sent or queued, and not credited

	Window int // bytes granted to the peer
	Out    int // bytes received and not credited
	Got    int // bytes of items that wait to be received, each with its overhead
}

// Ordered reports that the handler whose context ctx is runs on the lane, or was
// called from a handler that does.
var Ordered func(ctx context.Context) bool

// Server returns the sums of a *typedrpc.Server.
var Server func(srv any) ServerSums

// ServerSums are what a server holds.
type ServerSums struct {
	Links     int   // that live
	Accepted  int   // connections, with or without a link
	Checks    int   // authentications under way
	Plain     int   // connections of plain peers
	Budget    int64 // bytes that all connections hold
	Left      int64 // bytes that those which ended had not given back
	Promised  int64 // bytes that handlers may still answer
	Kept      int   // sessions without a link …
	KeptBytes int64 // … and the bytes that they held when they were last asked
	Detached  int   // handlers of keyed calls whose sessions were lost
}

// Hub returns the sums of a *topic.Hub.
var Hub func(hub any) HubSums

// HubSums are what a hub holds.
type HubSums struct {
	Rooms      int
	Idle       int // of them, those that are kept for their history alone
	Accounts   []AccountSums
	Watched    int  // rooms whose presence is asked for again and again
	Announcing bool // something is to be announced
}

// AccountSums are what the subscriptions of one connection have queued.
type AccountSums struct {
	Used, Max int64
}

// Room returns the sums of one key of a *topic.Hub's topic. They are zero if
// there is no such room.
var Room func(hub any, topic, key string) RoomSums

// RoomSums are what a room holds.
type RoomSums struct {
	Held    []int // by subscription: bytes queued, or sent and not credited
	Pending int   // changes of presence that wait for those who look on
}

// Present counts a subscription of each subject in (1) or out (-1) of a room,
// as if there were one, all at one moment. There must be the room.
var Present func(hub any, topic, key string, by int, subjects ...string)

// Deliver gives a room a message as its broker does; nil: some may be lost.
// There must be the room.
var Deliver func(hub any, topic, key string, msg []byte)

// Replay returns the sums of an *idempotency.Cache.
var Replay func(cache any) ReplaySums

// ReplaySums are what a cache remembers.
type ReplaySums struct {
	ID      string
	Entries int
	Aging   int   // of them, those that have an answer
	Shares  int   // authenticated subjects that have any
	Used    int   // entries that are counted, …
	Bytes   int64 // … and their bytes
}
