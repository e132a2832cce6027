package engine

import (
	"sync"

	"github.com/typedrpc/typedrpc/internal/flow"
)

// outlet is what a stream has to send, and what of it has left and is not credited. Most of a
// thousand subscriptions have neither, so it is lent: for the first item or the terminal frame,
// until there is nothing any more. All of it is under Conn.mu.
type outlet struct {
	line    line
	pack    packer
	flow    flow.Sender
	standby *lineup // who waits to send; it stays. nil: nobody has waited
}

// unsent is the outlet of all streams that have none. It stays empty: whoever writes asks
// for another first.
var unsent outlet

// outlets are those that nobody has. Their rings keep what little they had.
var outlets = sync.Pool{New: func() any { return new(outlet) }}

// outletLocked gives x an outlet to write to.
func (x *Stream) outletLocked() *outlet {
	if x.outlet == &unsent {
		x.outlet = outlets.Get().(*outlet)
		x.line.turn.turn = x
		x.flow.Window = int(x.granted)
	}
	return x.outlet
}

// restOutletLocked gives the outlet back when there is nothing in it. Somebody may still look at
// room.
func (x *Stream) restOutletLocked() {
	o := x.outlet
	if o == &unsent || !o.line.empty() || o.line.turn.list != nil || o.line.sent != 0 ||
		o.pack.buf != nil || o.flow.Used != 0 || o.flow.Sizes.Len() > 0 || o.standby != nil {
		return
	}
	x.outlet = &unsent
	o.line.turn.turn = nil
	outlets.Put(o)
}

// grantLocked sets the window that the peer grants; 0: without limit.
func (x *Stream) grantLocked(n int) {
	x.granted = int32(n)
	if x.outlet != &unsent {
		x.flow.Window = n
	}
}
