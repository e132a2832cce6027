package link

import (
	"sync"
	"sync/atomic"
	"time"
)

// Account is what pays for messages while they are being received.
type Account interface {
	Take(n int) bool // if there is room
	Give(n int)
}

// Codes are the close codes with which a link ends itself over what it receives.
type Codes struct {
	Slow  uint16 // a message makes too little progress
	Full  uint16 // there is no room for the rest of one
	Flood uint16 // control frames, and fragments of nothing or next to nothing
}

// rateWindow is the time over which a message must make the least rate.
const rateWindow = 10 * time.Second

// intake is what is being received. A message under way is paid for as its
// buffer grows, and given up when it makes too little progress. One that fits
// into the first buffer costs a few atomic steps, and no lock.
//
// There is one timer for a link on which messages are waited for: it is set when
// one has begun and has not come, and again only if it finds one under way.
type intake struct {
	account Account // nil: none
	rate    int64   // bytes per second; 0: any will do
	codes   Codes
	link    *Link
	data    *atomic.Int64 // bytes of messages that came; nil: the transport has whole ones
	charged int           // reader's: what the buffer is paid for

	seq atomic.Uint64 // odd while a message is under way

	mu      sync.Mutex // of look's fields, too
	look    atomic.Pointer[look]
	stopped bool
}

// look is when progress was last looked at, and its timer.
type look struct {
	timer *time.Timer
	seq   uint64
	got   int64
	at    time.Time
}

// watched is a transport that tells of parts of messages.
type watched interface{ watch(*intake) }

func (in *intake) begin() {
	if in == nil {
		return
	}
	in.seq.Add(1)
}

// waits says that the transport waits for the peer, perhaps within a message.
func (in *intake) waits() {
	if in == nil || in.rate == 0 || in.seq.Load()%2 == 0 || in.look.Load() != nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armLocked()
}

func (in *intake) end() {
	if in != nil {
		in.seq.Add(1)
	}
}

// progress is what has come of messages, the one under way included: nothing else
// comes while there is one.
func (in *intake) progress() int64 {
	if in.data == nil {
		return 0
	}
	return in.data.Load()
}

// resize pays for a buffer of n bytes instead of the one that there is.
func (in *intake) resize(n int) error {
	if in == nil || in.account == nil {
		return nil
	}
	if more := n - in.charged; more > 0 && !in.account.Take(more) {
		return &CloseError{Code: int(in.codes.Full), Reason: "no room for a message of this size at the moment"}
	}
	in.charged = n
	return nil
}

// settle gives back what was paid for a buffer that is gone.
func (in *intake) settle() {
	if in.charged > 0 {
		in.account.Give(in.charged)
		in.charged = 0
	}
}

func (in *intake) armLocked() {
	if in.stopped || in.look.Load() != nil {
		return
	}
	l := &look{seq: in.seq.Load(), at: time.Now()}
	l.timer = time.AfterFunc(rateWindow, in.check)
	in.look.Store(l)
}

// check gives up a message that was under way for all of a window and made too
// little of it.
func (in *intake) check() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopped {
		return
	}
	l := in.look.Load()
	seq, got, now := in.seq.Load(), in.progress(), time.Now()
	if seq%2 == 0 {
		in.look.Store(nil)
		if in.seq.Load()%2 == 1 { // it began before it could see that
			in.armLocked()
		}
		return
	}
	if seq == l.seq && float64(got-l.got) < float64(in.rate)*now.Sub(l.at).Seconds() {
		in.stopped = true
		in.link.Fail(&CloseError{Code: int(in.codes.Slow), Reason: "a message comes too slowly", Err: ErrSlow})
		return
	}
	l.seq, l.got, l.at = seq, got, now
	l.timer.Reset(rateWindow)
}

func (in *intake) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stopped = true
	if l := in.look.Load(); l != nil {
		l.timer.Stop()
	}
}
