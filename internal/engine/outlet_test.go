package engine

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/buf"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// An outlet goes back when there is nothing in it, and not before; whoever has it next has
// the window of its own.
func TestOutlet(t *testing.T) {
	queue := new(items)
	for name, use := range map[string]func(o *outlet) (undo func()){
		"an item that waits": func(o *outlet) func() {
			o.line.pieces.Push(Item{})
			return func() { o.line.pieces.Pop() }
		},
		"an END that waits": func(o *outlet) func() {
			o.line.last = new(item)
			return func() { o.line.last = nil }
		},
		"a place in the queue": func(o *outlet) func() {
			queue.push(&o.line.turn)
			return func() { queue.remove(&o.line.turn) }
		},
		"half an item": func(o *outlet) func() {
			o.line.sent = 1
			return func() { o.line.sent = 0 }
		},
		"a buffer that is being filled": func(o *outlet) func() {
			o.pack.buf = buf.Sized(1)
			return func() { o.pack.rest() }
		},
		"bytes that are not credited": func(o *outlet) func() {
			o.flow.Used = 64
			return func() { o.flow.Used = 0 }
		},
		"an item that is not credited": func(o *outlet) func() {
			o.flow.Sizes.Push(64)
			return func() { o.flow.Sizes.Pop() }
		},
		"somebody who waits": func(o *outlet) func() {
			enterLineup(&o.standby, 1)
			return func() { o.standby = nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			x := newStream(&Conn{}, &Decl{}, KindServerStream, false)
			is.True(x.outlet == &unsent)
			x.grantLocked(1 << 10)
			is.Equal(unsent.flow.Window, 0)
			o := x.outletLocked()
			is.True(o != &unsent && o == x.outletLocked())
			is.True(o.line.turn.turn == x)
			is.Equal(o.flow.Window, 1<<10)
			x.grantLocked(2 << 10)
			is.Equal(o.flow.Window, 2<<10)
			undo := use(o)
			x.restOutletLocked()
			is.True(x.outlet == o)
			undo()
			x.restOutletLocked()
			is.True(x.outlet == &unsent)
			is.True(o.line.turn.turn == nil) // nor does it keep the stream
			is.Equal(x.outletLocked().flow.Window, 2<<10)
		})
	}
	is := is.New(t)
	is.True(unsent.line.empty() && unsent.line.turn == item{} && unsent.pack == packer{} && unsent.standby == nil)
}

// Streams that have nothing to send share what is empty, so nothing that a peer says of their
// windows writes to it.
func TestOutlet_windowsOfStreamsThatHaveNone(t *testing.T) {
	is := is.New(t)
	var all sync.WaitGroup
	for range 2 {
		c := &Conn{}
		x := newStream(c, &Decl{}, KindServerStream, false)
		x.id = 1
		c.inbound = map[uint64]*Inbound{1: {conn: c, id: 1, stream: x, asked: &unasked}}
		all.Go(func() {
			for n := range uint64(1000) {
				if err := c.credited(&wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 1, Window: n + 1}); err != nil {
					t.Error(err)
				}
			}
			if x.granted != 1000 {
				t.Error("the windows were not heard of")
			}
		})
	}
	all.Wait()
	is.Equal(unsent.flow.Window, 0)
}

// A deadline is told as the time that it is, and as the same one each time.
func TestInbound_deadline(t *testing.T) {
	is := is.New(t)
	_, some := (&Inbound{}).Deadline()
	is.True(!some)
	in := &Inbound{deadline: clock() + time.Hour}
	first, some := in.Deadline()
	second, _ := in.Deadline()
	is.True(some && first.Equal(second))
	left := time.Until(first)
	is.True(left <= time.Hour && left > time.Hour-time.Minute)
	is.True(time.Until(first.Round(0)) > time.Hour-time.Minute) // by the clock on the wall
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		in := &Inbound{conn: &Conn{life: life{ctx: t.Context()}}, deadline: clock() + time.Hour}
		at, _ := in.Deadline()
		is.True(at.Equal(time.Now().Add(time.Hour)))
		time.Sleep(time.Hour - 1)
		is.NoErr(in.Err())
		done := in.Done()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("too early")
		default:
		}
		time.Sleep(time.Nanosecond)
		is.Equal(in.Err(), context.DeadlineExceeded)
		<-done
	})
}

// What plain peers ask with is theirs alone: the record that stands for all others stays empty.
func TestInbound_asked(t *testing.T) {
	is := is.New(t)
	array := new(arrayReply)
	in := &Inbound{conn: &Conn{}, Answer: new(Answer)}
	in.conn.dialect = session.Binary
	in.askedBy(array, 3)
	is.True(in.asked == &unasked)
	is.True(unasked.array == nil)
	in.conn.dialect = session.Plain
	in.askedBy(array, 3)
	is.True(in.asked == &in.Answer.asked) // no allocation of its own
	is.True(in.array == array && in.index == 3)
	stream := &Inbound{conn: in.conn}
	stream.askedBy(nil, 0)
	is.True(stream.asked != &unasked)
	is.True(unasked.rawID == nil)
}
