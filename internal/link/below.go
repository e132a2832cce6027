package link

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"time"
)

// below is the connection that a WebSocket lives on. It sees every byte of the
// peer, and so what the library hides: control frames, and fragments without a
// payload. Those cost the peer six bytes and this side a loop, so they are paced.
//
// What is not atomic is used by who reads the connection, which the library's own
// lock lets only one do at a time.
type below struct {
	broken  atomic.Bool // reading from it has failed
	flooded atomic.Bool // too much of what is paced has come
	conn    io.Closer   // nil in a browser
	in      *intake     // nil: nobody watches

	// progress is called for all that comes. Set while a Read is under way.
	progress atomic.Pointer[func()]

	frames frames       // those that came
	data   atomic.Int64 // bytes of messages in them
	wire   atomic.Int64 // bytes read …
	useful atomic.Int64 // … and those of them that are no idle ones

	paced *paced // nil: nothing has had to be
}

// paced is what is kept of what most links never have.
type paced struct {
	leaked  time.Time // when idle bytes were last forgiven
	recent  float64   // control frames, in a leaky bucket …
	dripped time.Time // … that was looked at then
}

const (
	// frameHead is the largest head of a frame.
	frameHead = 14
	// smallPart is the least that a frame within a message should have: of
	// those that have less all bytes are idle.
	smallPart = 64

	// Idle bytes: so many at once, and so many per second. A frame without a
	// payload takes some 100 ns, so this is less than a hundredth of a processor.
	idleBurst = 1 << 20
	idleRate  = 64 << 10
	// idleTurn is how many there may be before others have their turns first.
	// What is being read of a part counts until it is whole.
	idleTurn = 128 << 10

	// Pings and pongs: so many at once, and so many per second. A ping is
	// answered, which is a system call.
	controlBurst = 1000
	controlRate  = 100
	// controlTurn is how many there may be before others have their turns first.
	controlTurn = 32
)

var errFlood = errors.New("the peer sends what costs it less than this side")

// listen has progress be called for what comes from now on.
func (b *below) listen(progress func()) {
	if b.progress.Load() == nil {
		f := progress // a copy, so that only this first one allocates
		b.progress.Store(&f)
	}
}

// read reads from r, the connection.
func (b *below) read(r io.Reader, p []byte) (int, error) {
	b.in.waits()
	n, err := r.Read(p)
	if e := b.came(p[:n]); err == nil {
		err = e
	}
	if err != nil {
		b.broken.Store(true)
	}
	return n, err
}

// came counts what was read, and refuses more when too much of it was idle.
func (b *below) came(p []byte) error {
	if b.flooded.Load() {
		return errFlood
	}
	if len(p) == 0 {
		return nil
	}
	b.data.Add(b.frames.scan(p))
	if f := b.progress.Load(); f != nil {
		(*f)()
	}
	if idle := b.wire.Add(int64(len(p))) - b.useful.Load(); idle > idleTurn {
		return b.pace(idle)
	}
	return nil
}

// spent says that n bytes of what came were of use, heads included.
func (b *below) spent(n int) {
	// Heads are mostly smaller, and what was compressed is larger now.
	if wire := b.wire.Load(); b.useful.Add(int64(n)) > wire {
		b.useful.Store(wire)
	}
}

func (b *below) pacing() *paced {
	if b.paced == nil {
		b.paced = new(paced)
	}
	return b.paced
}

// pace forgives what time allows of the idle bytes. While there are more, others
// have their turns first.
func (b *below) pace(idle int64) error {
	p, now := b.pacing(), time.Now()
	forgiven := min(int64(now.Sub(p.leaked).Seconds()*idleRate), idle)
	p.leaked = now
	b.useful.Add(forgiven)
	switch idle -= forgiven; {
	case idle > idleBurst:
		b.flooded.Store(true)
		return errFlood
	case idle > idleTurn:
		runtime.Gosched()
	}
	return nil
}

// control counts a ping or pong, and reports whether it is to be answered.
func (b *below) control() bool {
	p, now := b.pacing(), time.Now()
	p.recent = max(0, p.recent-now.Sub(p.dripped).Seconds()*controlRate) + 1
	p.dripped = now
	switch {
	case p.recent > controlBurst:
		b.flooded.Store(true)
	case p.recent > controlTurn:
		runtime.Gosched() // to answer one may be a write
	}
	return !b.flooded.Load()
}
