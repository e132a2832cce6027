package e2e_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/typedrpctest"
)

// Many streams with one large item each kept to the rules and failed at the
// receiver's budget.
func TestFlow_largeItemsOfManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		free := make(chan struct{})
		mux := lab.Bidi(func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
			<-free
			return lab.EchoItems(ctx, req, s)
		})
		c, s := lab.Joined(t, typedrpc.Binary, mux, typedrpc.Limits{MaxMessage: 400_000, MaxBuffered: 800_000})
		failed := make(chan error, 20)
		for range 20 {
			go func() {
				stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
				if err == nil {
					err = stream.Send(testkit.Letters(350_000))
				}
				if err == nil {
					stream.CloseSend()
					_, err = stream.Recv()
				}
				if err == nil {
					stream.Cancel()
				}
				failed <- err
			}()
		}
		time.Sleep(time.Second)
		close(free)
		for range 20 {
			is.NoErr(<-failed)
		}
		lab.Settled(t, c, s)
	})
}

// A peer that announces a window without end, and never credits, made a sender
// keep accounts without end.
func TestFlow_hugeWindowsAreNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		limits := wire.Limits{Message: 1 << 20, Calls: 1 << 10, Window: 1 << 40, Budget: 1 << 40, Depth: 64}
		_, c, _ := lab.RawServer(t, limits, &typedrpc.DialOptions{Limits: typedrpc.Limits{MaxBuffered: 1 << 20}})
		s := hook.Conn(c)
		is.Equal(s.NotifyWindow, 16<<20)
		is.Equal(s.PeerWindow, uint64(16<<20))
		is.Equal(s.PeerBudget, uint64(64<<20))
		is.NoErr(c.Close())
	})
}

// A client whose own window is larger than the server's must not take it for
// the server's while its CALL has not left.
func TestFlow_windowBeforeTheCallLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c, again := lab.RawServer(t, wire.Limits{Window: 1000}, &typedrpc.DialOptions{Limits: typedrpc.Limits{Window: 1 << 20}})
		p.T.Kill()
		synctest.Wait()
		stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		go func() {
			for range 100 {
				stream.Send(testkit.Letters(100))
			}
		}()
		p = again()
		is.Equal(len(p.Got(wire.Item)), 1000/(100+2+64)) // the server's window
		stream.Cancel()
		is.NoErr(p.Send(wire.Frame{Type: wire.Fail, ID: 1, Code: 1}))
		synctest.Wait()
		lab.Settled(t, c)
	})
}

// An item may be offered before anything else has run.
func TestFlow_itemsBeforeTheCallLeft(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		mux := lab.Bidi(lab.EchoItems)
		srv := &typedrpc.Server{Mux: mux, Limits: typedrpc.Limits{Window: 1000}}
		c, s, err := typedrpctest.Dial(srv, &typedrpc.DialOptions{Dialect: d, Limits: typedrpc.Limits{Window: 1 << 20}})
		is.NoErr(err)
		defer c.Close()
		for range 20 {
			stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
			is.NoErr(err)
			go func() {
				for range 500 {
					stream.Send(testkit.Letters(100))
				}
				stream.CloseSend()
			}()
			n := 0
			for _, err := range stream.All() {
				is.NoErr(err)
				n++
			}
			is.Equal(n, 500)
		}
		lab.Settled(t, c, s)
	})
}

// Faults that streams and fragments had, each with what showed it.

// A caller that left in the middle of a fragmented answer dropped the rest of
// it, the last part too, and kept the call's place for ever.
func TestFragments_leavingAnAnswerFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{})
		ctx, cancel := context.WithCancel(t.Context())
		answered := make(chan error, 1)
		go func() {
			_, err := typedrpc.Call(ctx, c, lab.FlowCall, "")
			answered <- err
		}()
		call := p.Got(wire.Call)[0]
		is.NoErr(p.Send(wire.Frame{Type: wire.Result, Flags: wire.More, ID: call.ID, Payload: []byte(`"a`)}))
		synctest.Wait()
		cancel()
		is.True(errors.Is(<-answered, typedrpc.Canceled))
		is.Equal(len(p.Got(wire.Cancel)), 0) // its handler has returned
		is.NoErr(p.Send(wire.Frame{Type: wire.Chunk, ID: call.ID, Payload: []byte(`b"`)}))
		lab.Settled(t, c)
		is.True(p.Alive())
	})
}

// An item that CANCEL cut off, and then a large RESULT, which ends it, was taken
// for two messages at once.
func TestFragments_resultEndsAnItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		p, c := lab.RawClient(t, typedrpc.Binary, &typedrpc.Server{})
		s, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		id := p.Got(wire.Call)[0].ID
		is.NoErr(p.Send(
			wire.Frame{Type: wire.Item, Flags: wire.More, ID: id, Payload: []byte(`"a`)},
			wire.Frame{Type: wire.Result, Flags: wire.More, ID: id, Payload: []byte(`nu`)},
			wire.Frame{Type: wire.Chunk, ID: id, Payload: []byte(`ll`)},
		))
		_, err = s.Recv()
		is.Equal(err, io.EOF)
		is.True(p.Alive())
		lab.Settled(t, c)
	})
}
