package typedrpc

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/typedrpc/typedrpc/internal/wire"
)

// Limits bound what a peer can make this side hold or do. They are announced
// in the handshake, so that a typedrpc peer refuses locally what would be
// refused here. The zero value of every field is its default; a negative one
// is refused when the server or connection is made.
type Limits struct {
	// MaxMessage is the size in bytes of one request, response, item or
	// notification received, in its encoding. Default 4 MiB, at most
	// 16 MiB less 64 KiB.
	MaxMessage int
	// MaxCalls is how many calls and streams of the peer run here at once. A typedrpc
	// peer waits for its turn; from others, more are refused with
	// ResourceExhausted, NotSent. Default 1,024.
	MaxCalls int
	// MaxBuffered is how many bytes of requests being handled are held for
	// one connection (a typedrpc peer waits for its turn), and how many bytes
	// of replies, items and notifications may wait for its socket before
	// handlers wait too and new calls do not begin. As many bytes again may
	// be stream items that nobody has received yet: a typedrpc peer sends no
	// more than that, and a stream that passes twice as much fails. At least
	// one message always fits. Default 8 MiB each.
	MaxBuffered int
	// MaxUnacked is how many bytes of what was sent are kept until the peer
	// has acknowledged them, to be sent again when the link breaks. When they
	// are spent sending waits; one message always fits. They count in
	// MaxBuffered's bytes of what waits for the socket, too. On a path of long
	// delay this bounds the throughput: so many bytes for each round trip.
	// Default 8 MiB.
	MaxUnacked int
	// Window is how many bytes of notifications, or of one stream's items
	// (each counted with 64 more), a peer may send before they were taken
	// here. A stream's grows to 1 MiB, while the sum of what they have grown
	// by is at most half of MaxBuffered. Default 64 KiB.
	Window int
	// MaxDepth is how deep a message of the JSON-RPC dialect may nest.
	// Default 64.
	MaxDepth int
	// HandshakeTimeout bounds dialling or accepting up to the first answer
	// of the peer, authentication included. Default 10 s.
	HandshakeTimeout time.Duration
	// KeepAlive is the time without a received byte after which the peer is
	// asked for a sign of life; after two the link is dead. A dialled
	// connection uses the server's interval if that is shorter. Default 20 s.
	KeepAlive time.Duration
	// Grace is how long a session goes on without a link: calls and streams
	// wait, handlers run. When no new link has come by then the session is
	// lost, and every call is told what is known of it. The shorter one of
	// both sides' holds, each from the moment that it missed the link. Default
	// 30 s. Negative: not at all, a session ends with its link.
	Grace time.Duration
	// WriteTimeout is how long a write may make no progress before the link
	// is dead. Default 10 s.
	WriteTimeout time.Duration
}

// maxMessageCeiling is what a binary frame's body holds, less room for the
// rest of the frame.
const maxMessageCeiling = wire.MaxBody - 64<<10 + 1

// withDefaults fills in the defaults and refuses nonsense.
func (l Limits) withDefaults() (Limits, error) {
	ints := []struct {
		name      string
		v         *int
		def, most int
	}{
		{"MaxMessage", &l.MaxMessage, 4 << 20, maxMessageCeiling},
		{"MaxCalls", &l.MaxCalls, 1024, 1 << 20},
		{"MaxBuffered", &l.MaxBuffered, 8 << 20, math.MaxInt32},
		{"MaxUnacked", &l.MaxUnacked, 8 << 20, math.MaxInt32},
		{"Window", &l.Window, 64 << 10, 1 << 30},
		{"MaxDepth", &l.MaxDepth, wire.MaxDepth, 10_000},
	}
	for _, f := range ints {
		switch {
		case *f.v < 0 || *f.v > f.most:
			return l, fmt.Errorf("typedrpc: Limits.%s is %d, it must be between 0 (the default, %d) and %d", f.name, *f.v, f.def, f.most)
		case *f.v == 0:
			*f.v = f.def
		}
	}
	durations := []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"HandshakeTimeout", &l.HandshakeTimeout, 10 * time.Second},
		{"KeepAlive", &l.KeepAlive, 20 * time.Second},
		{"WriteTimeout", &l.WriteTimeout, 10 * time.Second},
	}
	switch {
	case l.Grace == 0:
		l.Grace = 30 * time.Second
	case l.Grace < 0:
		l.Grace = -1
	}
	for _, f := range durations {
		switch {
		case *f.v < 0:
			return l, fmt.Errorf("typedrpc: Limits.%s is negative", f.name)
		case *f.v == 0:
			*f.v = f.def
		}
	}
	return l, nil
}

// announced is what the handshake says of l.
func (l Limits) announced() wire.Limits {
	return wire.Limits{
		Message: uint64(l.MaxMessage), Calls: uint64(l.MaxCalls), Window: uint64(l.Window),
		Budget: uint64(l.MaxBuffered), Depth: uint64(l.MaxDepth),
	}
}

// announcedBy is what holds for a peer that announced l: what it left out has
// the protocol's default.
func announcedBy(l wire.Limits) wire.Limits {
	def, _ := Limits{}.withDefaults()
	d := def.announced()
	return wire.Limits{
		Message: cmp.Or(l.Message, d.Message), Calls: cmp.Or(l.Calls, d.Calls), Window: cmp.Or(l.Window, d.Window),
		Budget: cmp.Or(l.Budget, d.Budget), Depth: cmp.Or(l.Depth, d.Depth),
	}
}

// plainPeer is what is assumed of a peer that announces nothing: as much as
// we grant ourselves, and no credit for notifications.
func (l Limits) plainPeer() wire.Limits {
	a := l.announced()
	a.Window = 0
	return a
}

// A flood closes the connection: more refused calls and frames for calls that
// never were than an honest peer can produce by accident.
const (
	floodBurst = 2048 // offences at once …
	floodRate  = 1000 // … and per second
)

// offences is a leaky bucket of a peer's offences.
type offences struct {
	level float64
	at    time.Time
}

// add counts one offence and reports a flood.
func (o *offences) add(now time.Time) bool {
	o.level = max(0, o.level-now.Sub(o.at).Seconds()*floodRate) + 1
	o.at = now
	return o.level > floodBurst
}
