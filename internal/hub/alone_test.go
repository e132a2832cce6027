package hub

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/flow"
	"github.com/typedrpc/typedrpc/internal/status"
)

// TestHub_order: publishers of one key take turns, those of another do not wait for
// them, and waiting ends with the context.
func TestHub_order(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		h := New(Options{Codec: "json"})
		chat := topic("chat", 0)
		chat.Policy = Policy{Do: WaitAtMost, Wait: time.Hour, Bytes: 1}
		l, err := h.Listen(ctx, chat, "x")
		is.NoErr(err)
		take := func() string {
			item, err := l.Next(ctx)
			is.NoErr(err)
			return string(item.Body)
		}
		is.NoErr(h.Publish(ctx, chat, "x", []byte("0"))) // one may wait, whatever its size
		go h.Publish(ctx, chat, "x", []byte("a"))
		synctest.Wait()
		go h.Publish(ctx, chat, "x", []byte("b"))
		synctest.Wait()
		is.NoErr(h.Publish(ctx, chat, "y", nil))
		short, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		is.Equal(codeOf(h.Publish(short, chat, "x", nil)), status.DeadlineExceeded)
		is.Equal(take()+take()+take(), "0ab")
		l.Close()
		is.NoErr(h.Publish(ctx, chat, "x", nil))
		is.Equal(h.Snapshot(), Snapshot{})
		is.NoErr(h.Close())
		is.Equal(codeOf(h.Publish(ctx, chat, "x", nil)), status.Unavailable)
	})
}

// TestHub_twins: two declarations of one name hear each other, in one order, and forget
// each other.
func TestHub_twins(t *testing.T) {
	is := is.New(t)
	ctx := t.Context()
	h := New(Options{Codec: "json"})
	var ls []*Listener
	for range 3 {
		l, err := h.Listen(ctx, topic("chat", 0), "x")
		is.NoErr(err)
		ls = append(ls, l)
	}
	is.Equal(h.Snapshot().Rooms, 3)
	for gone := 1; gone >= 0; gone-- { // one between others, then the oldest
		is.NoErr(h.Publish(ctx, topic("chat", 0), "x", []byte("a")))
		is.NoErr(h.Publish(ctx, topic("other", 0), "x", []byte("b")))
		is.NoErr(h.Publish(ctx, topic("chat", 0), "other", []byte("c")))
		is.NoErr(h.Publish(ctx, ls[0].sub.room.topic, "x", []byte("d")))
		for _, l := range ls {
			one, ok := l.take()
			is.True(ok)
			other, ok := l.take()
			is.True(ok)
			is.Equal(string(one.Body)+string(other.Body), "ad")
			_, ok = l.take()
			is.True(!ok)
		}
		ls[gone].Close()
		ls = append(ls[:gone:gone], ls[gone+1:]...)
	}
	is.Equal(h.Snapshot().Rooms, 1)
	_, err := h.Listen(ctx, topic("chat", 0), "x")
	is.NoErr(err)
	ls[0].Close() // behind a newer one
	is.Equal(h.Snapshot().Rooms, 1)
	is.NoErr(h.Close())
}

// TestTopic_serverBound: half of the server's budget is kept for calls.
func TestTopic_serverBound(t *testing.T) {
	is := is.New(t)
	server := flow.NewLedger(1000)
	var of flow.Account
	of.Open(server, nil)
	a := &account{own: flow.NewBudget(10_000), server: &of}
	is.True(a.take(300))
	is.Equal(of.Used(), int64(recordCost)) // the message is counted where it is held
	of.Force(501 - recordCost)
	is.True(!a.take(1))
	of.Give(501 - recordCost)
	is.True(!a.take(900)) // it might be the first to hold it
	is.True(a.take(200))
	a.give(300)
	a.give(200)
	is.Equal(server.Used(), int64(0))
	is.Equal(a.own.Used(), int64(0))
}
