// Package stats has the numbers of connections and servers, as plain values, and Recorder,
// which is told what happens as it does. The numbers are what
// [github.com/typedrpc/typedrpc.Conn.Stats] and
// [github.com/typedrpc/typedrpc.Server.Stats] return: made when they are asked for, they
// cost nothing before. A second is a good interval: a server answers for ten thousand
// connections within some milliseconds.
package stats

import "time"

// Conn is what a connection holds, and has done since it began, at one moment.
type Conn struct {
	// Linked says that there is a link; without one the session waits for it, or the
	// connection for its next session.
	Linked bool
	// RoundTrip is the shortest that was measured on this link; 0: none was, as towards
	// plain JSON-RPC peers, which are not asked.
	RoundTrip time.Duration
	// Sessions that were begun. One that a server accepted has one.
	Sessions int64

	Load
}

// Server is what a server holds, and has done since its first request, at one
// moment. The moments of its connections are some microseconds apart.
type Server struct {
	Conns    int   // that are open, those without a link included
	Accepted int64 // connections since the server began
	Links    int   // that live, those in their handshake included
	Opening  int   // functions of SignIn.Verify that run
	Plain    int   // connections of plain JSON-RPC peers …
	MaxPlain int   // … of Server.MaxPlainConns
	Posts    int   // HTTP POSTs under way
	Detached int   // handlers of Keyed calls that go on although their sessions were lost

	Kept         int   // sessions without a link, whose clients may come back …
	MaxKept      int   // … of Server.MaxKept …
	KeptBytes    int64 // … and what they held when they were last asked, at most a second ago …
	MaxKeptBytes int64 // … of Server.MaxKeptBytes

	MaxMemory int64 // of which Load.Memory is in use, by handshakes and POSTs too

	// Evicted says what was ended against its client's will since the server began.
	Evicted Evicted

	// Load is the sum of all connections. What counts upwards includes those that have
	// ended, and what is sent and received over POST.
	Load
}

// Evicted counts what a server ended because of a bound, by the bound.
type Evicted struct {
	Grace  int64 // sessions whose client did not come back within Limits.Grace
	Kept   int64 // sessions without a link, for Server.MaxKept or MaxKeptBytes
	Memory int64 // connections, links in their handshake, and POSTs, for Server.MaxMemory
}

// Load is what one connection holds and has done, or many together.
type Load struct {
	// Bytes.
	Unacked  int64 // sent, and not acknowledged: of Limits.MaxUnacked
	Buffered int64 // replies, items and notifications that wait for the socket: of Limits.MaxBuffered
	Unread   int64 // items, and parts of messages, that came and were not received yet
	Grown    int64 // what the windows of streams have grown by here: at most half of Limits.MaxBuffered
	Memory   int64 // of Server.MaxMemory; 0 at the client

	Out     Places // calls and streams of this side
	In      Places // of the peer
	Waiting int    // calls and streams of this side that have no place yet: they wait for one, for a link, or for their next attempt

	NotifyOut Window // notifications that the peer has not handled yet
	NotifyIn  Window // those that this side has not; a plain peer has no window
	ItemsOut  Window // items of all streams that the peer has not received yet

	// Since the beginning.
	Sent     Traffic
	Received Traffic
	Resumes  int64 // how often a session went on over another link
}

// Places are what calls and streams have of what their callee takes at once.
type Places struct {
	Calls    int   // calls and streams that have a place …
	Streams  int   // … streams among them …
	Most     int   // … of so many, Limits.MaxCalls; 0: the peer has announced no bound
	Bytes    int64 // of their requests …
	MaxBytes int64 // … of so many, Limits.MaxBuffered; 0: the peer has announced no bound
}

// Window is what has been sent of what may be, in bytes, each message counted with 64
// more. One message may always go, whatever its size.
type Window struct {
	Used int64
	Size int64 // 0: there is no bound
}

// Traffic is what went one way over sessions, without handshakes. Messages are those
// of the WebSocket: one carries what was ready when it was written.
type Traffic struct {
	Messages int64
	Bytes    int64 // before compression
}

// Add adds another's numbers to l. It panics if either is nil.
func (l *Load) Add(o *Load) {
	made(l, o)
	l.Unacked += o.Unacked
	l.Buffered += o.Buffered
	l.Unread += o.Unread
	l.Grown += o.Grown
	l.Memory += o.Memory
	l.Out.add(o.Out)
	l.In.add(o.In)
	l.Waiting += o.Waiting
	l.NotifyOut.add(o.NotifyOut)
	l.NotifyIn.add(o.NotifyIn)
	l.ItemsOut.add(o.ItemsOut)
	l.Ended(o)
}

// Ended adds to l what only grows (Sent, Received and Resumes) of o, the load of a
// connection that has ended and holds nothing any more. It panics if either is nil.
func (l *Load) Ended(o *Load) {
	made(l, o)
	l.Sent.add(o.Sent)
	l.Received.add(o.Received)
	l.Resumes += o.Resumes
}

func made(l, o *Load) {
	if l == nil || o == nil {
		panic("stats: a Load is nil")
	}
}

func (p *Places) add(o Places) {
	p.Calls += o.Calls
	p.Streams += o.Streams
	p.Most += o.Most
	p.Bytes += o.Bytes
	p.MaxBytes += o.MaxBytes
}

func (w *Window) add(o Window) {
	w.Used += o.Used
	w.Size += o.Size
}

func (t *Traffic) add(o Traffic) {
	t.Messages += o.Messages
	t.Bytes += o.Bytes
}
