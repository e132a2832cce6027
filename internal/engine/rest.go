package engine

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

// Resumer is a stream's handler that needs no goroutine while it has nothing to
// do.
type Resumer interface {
	// Resume goes on with what there is to do, and returns ErrRests, or else what the
	// stream ends with. ctx is the handler's.
	Resume(ctx context.Context) error
}

// ErrRests says that a handler waits: until Wake, until an item that Offer or
// Blocked had no room for may go, or until its context ends.
var ErrRests = errors.New("the handler rests")

// rest is whether a handler that can be resumed runs.
type rest struct {
	handler Resumer       // set before the first rest, under Conn.mu; nil: there is none
	woken   chan struct{} // capacity 1, of one that waits on its goroutine; nil: it has none
	next    *Stream       // behind it, of those that were roused
}

// What state is.
const (
	running uint32 = iota
	resting
	calledFor // it runs, and is to look once more before it rests
)

// Entrust makes h what goes on with the stream: from now on its handler may
// return ErrRests, and is run again when there is something to do. The program's function
// has returned: what it has left behind is not nested any more.
func (x *Stream) Entrust(h Resumer) {
	x.conn.mu.Lock()
	x.rest.handler = h
	x.conn.mu.Unlock()
	x.in.mu.Lock()
	defer x.in.mu.Unlock()
	if x.rest.woken == nil { // else interceptors wait
		x.in.ended |= returned
	}
	x.in.armLocked()
}

// Entrusted is whom the stream was entrusted to, nil: nobody.
func (x *Stream) Entrusted() Resumer {
	if x == nil {
		return nil
	}
	return x.rest.handler
}

// Attend has h go on with the stream, on this goroutine, until it ends: for a
// handler that others wait for. ctx may end before the stream's own.
func (x *Stream) Attend(ctx context.Context, h Resumer) error {
	x.rest.woken = make(chan struct{}, 1)
	x.Entrust(h)
	for {
		if err := h.Resume(ctx); err != ErrRests {
			return err
		}
		if !x.state.CompareAndSwap(running, resting) {
			x.state.Store(running)
			continue
		}
		select {
		case <-x.rest.woken:
		case <-ctx.Done():
			x.state.CompareAndSwap(resting, running)
		}
	}
}

// Wake has a handler that rests look whether there is something to do. It may be
// called with any lock held.
func (x *Stream) Wake() {
	for {
		switch {
		case x.state.CompareAndSwap(resting, running):
			switch {
			case x.rest.woken != nil:
				signal(x.rest.woken)
			case x.Watched(): // it may wait for its window
				go x.in.again()
			default:
				x.conn.roused.add(x)
			}
			return
		case x.state.CompareAndSwap(running, calledFor), x.state.Load() == calledFor:
			return
		}
	}
}

// roused are the connection's handlers that rested and have something to do. They
// have a goroutine together and take turns, because what they do goes to one queue:
// a thousand of a connection's would else be a thousand among those who want the
// processors, and those of others one.
type roused struct {
	mu          sync.Mutex // below all others
	first, last *Stream
	busy        bool
}

func (r *roused) add(x *Stream) {
	r.mu.Lock()
	if r.first == nil {
		r.first = x
	} else {
		r.last.rest.next = x
	}
	r.last = x
	begin := !r.busy
	r.busy = true
	r.mu.Unlock()
	if begin {
		go r.run()
	}
}

func (r *roused) run() {
	over := false
	defer func() {
		if !over {
			go r.run() // a codec has ended the goroutine
		}
	}()
	for x := r.take(); x != nil; x = r.take() {
		x.in.again()
		runtime.Gosched()
	}
	over = true
}

func (r *roused) take() *Stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.first
	if x == nil {
		r.busy = false
		return nil
	}
	r.first, x.rest.next = x.rest.next, nil
	if r.first == nil {
		r.last = nil
	}
	return x
}

// rests ends a handler's goroutine for now. If there is something to do already it
// reports false, or that has its turn.
func (in *Inbound) rests() bool {
	in.overhead(-handlerOverhead - in.body.Size()) // of the size that it was counted with
	in.body.Release()
	in.body = nil
	x := in.stream
	if x.state.CompareAndSwap(running, resting) {
		return true
	}
	x.state.Store(running)
	if !x.Watched() {
		in.conn.roused.add(x)
		return true
	}
	in.overhead(handlerOverhead)
	return false
}

// again runs a handler that has rested.
func (in *Inbound) again() {
	in.overhead(handlerOverhead)
	in.run()
}

// overhead changes what the handler is taken to hold.
func (in *Inbound) overhead(n int) {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	in.held += int32(n)
	if n > 0 {
		c.account.Force(n)
		c.account.Serve(n)
		c.atRest--
	} else {
		c.account.Served(-n, 0)
		c.atRest++
	}
}

// roomLocked tells who waits that the window may have room.
func (x *Stream) roomLocked() {
	x.standby.stir()
	if x.starved {
		x.starved = false
		x.Wake()
	}
}

// starveLocked has the handler woken when the connection's queue has moved.
func (x *Stream) starveLocked() {
	if !x.listed {
		x.listed = true
		x.conn.starved = append(x.conn.starved, x)
	}
}

// feedLocked wakes those whom the queue had no room for.
func (o *outbox) feedLocked() {
	all := o.starved
	o.starved = nil
	for _, x := range all {
		x.listed = false
		x.Wake()
	}
}
