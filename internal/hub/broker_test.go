package hub

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"
	"github.com/typedrpc/typedrpc/internal/flow"
)

// TestBroker_memoryOrder: publishers of one channel take turns, those of
// another do not wait for them, and waiting ends with the context.
func TestBroker_memoryOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		ctx := t.Context()
		b := newMemoryBroker()
		gate := make(chan struct{})
		var got []string
		cancel, err := b.Subscribe(ctx, "x", func(msg []byte) {
			<-gate
			got = append(got, string(msg))
		})
		is.NoErr(err)
		_, err = b.Subscribe(ctx, "y", func([]byte) {})
		is.NoErr(err)
		go b.Publish(ctx, "x", []byte("a"))
		synctest.Wait()
		go b.Publish(ctx, "x", []byte("b"))
		synctest.Wait()
		is.NoErr(b.Publish(ctx, "y", nil))
		short, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		is.Equal(b.Publish(short, "x", nil), context.DeadlineExceeded)
		close(gate)
		synctest.Wait()
		is.Equal(got, []string{"a", "b"})
		cancel()
		cancel()
		is.NoErr(b.Publish(ctx, "x", nil))
		is.Equal(len(b.channels), 1)
		is.NoErr(b.Close())
		is.Equal(b.Publish(ctx, "x", nil), errBrokerClosed)
		_, err = b.Subscribe(ctx, "x", nil)
		is.Equal(err, errBrokerClosed)
		cancel()
	})
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
