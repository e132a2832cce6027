package e2e_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
	"github.com/typedrpc/typedrpc/topic"
)

// letter is an item of the caller's that counts 128.
func letter(id uint64, flags wire.Flags) wire.Frame {
	return wire.Frame{Type: wire.Item, Flags: wire.FromCaller | flags, ID: id, Payload: testkit.Quoted(64)}
}

// credited are the items that CREDIT has come for.
func credited(p *testkit.RawPeer) (items int) {
	for _, f := range p.Got(wire.Credit) {
		items += int(f.Items)
	}
	return items
}

// reads is a server with streams whose handlers read until they stall, and a client that
// is driven by hand and has called n of them, with the ids from 1.
func reads(t *testing.T, d typedrpc.Dialect, n int, limits typedrpc.Limits) (*testkit.RawPeer, *typedrpc.Conn) {
	t.Helper()
	mux := lab.Bidi(func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		if req == "stall" {
			return lab.Lingers(ctx, req, s)
		}
		for _, err := range s.All() {
			if err != nil {
				return err
			}
		}
		return nil
	})
	p, c := lab.RawClient(t, d, &typedrpc.Server{Mux: mux, Limits: limits})
	for id := range uint64(n) {
		call := wire.Frame{Type: wire.Call, ID: id + 1, Kind: wire.BidiStream, Method: lab.FlowBoth.Name(), Payload: []byte(`""`)}
		if id == 0 {
			call.Payload = []byte(`"stall"`)
		}
		is.New(t).NoErr(p.Send(call))
	}
	synctest.Wait()
	return p, c
}

// What has been consumed is credited with the next message that goes, and by one of its
// own when it is more than a sixteenth of the window, or when the sender asks for it.
func TestSlack_creditGoesWithTheNextMessage(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		p, c := reads(t, d, 2, typedrpc.Limits{})
		for range 32 { // 4 KiB: a sixteenth
			is.NoErr(p.Send(letter(2, 0)))
			synctest.Wait()
		}
		is.Equal(credited(p), 0)
		is.NoErr(p.Send(letter(2, 0)))
		is.Equal(credited(p), 33)

		is.NoErr(p.Send(letter(2, 0)))
		is.Equal(credited(p), 0)
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 3, Method: lab.FlowCall.Name(), Payload: []byte(`""`)}))
		is.Equal(credited(p), 1) // with the answer

		is.NoErr(p.Send(letter(2, 0)))
		time.Sleep(2 * time.Second)
		is.Equal(credited(p), 1) // with the acknowledgement

		for range 5 {
			is.NoErr(p.Send(letter(2, wire.Prompt)))
			is.Equal(credited(p), 1)
		}
		is.NoErr(p.Send(letter(2, 0)))
		is.Equal(credited(p), 0) // who asks no more waits again

		is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1},
			wire.Frame{Type: wire.End, Flags: wire.FromCaller, ID: 2}))
		lab.Settled(t, c)
	})
}

// All streams together hold back what is within a sixteenth of the budget, with what waits to be
// received: others' items could wait for theirs.
func TestSlack_ofAllStreams(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		p, c := reads(t, d, 10, typedrpc.Limits{MaxBuffered: 64 << 10})
		for id := range uint64(8) {
			is.NoErr(p.Send(slices.Repeat([]wire.Frame{letter(2+id, 0)}, 4)...))
			synctest.Wait()
		}
		is.Equal(credited(p), 0) // 4 KiB are held back
		is.NoErr(p.Send(letter(10, 0)))
		due := credited(p)
		is.True(due >= 32) // the last may be consumed when the others' has left
		is.NoErr(p.Send(wire.Frame{Type: wire.Call, ID: 11, Method: lab.FlowCall.Name(), Payload: []byte(`""`)}))
		is.Equal(due+credited(p), 33)

		is.NoErr(p.Send(letter(2, 0)))
		is.Equal(credited(p), 0)
		// For a handler that does not read.
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: testkit.Quoted(4<<10 - 128 - 64)}))
		is.Equal(credited(p), 0)
		is.NoErr(p.Send(letter(1, 0)))
		is.Equal(credited(p), 1)
		is.NoErr(p.Send(letter(3, 0)))
		is.Equal(credited(p), 1)

		is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
		for id := range uint64(9) {
			is.NoErr(p.Send(wire.Frame{Type: wire.End, Flags: wire.FromCaller, ID: id + 2}))
		}
		lab.Settled(t, c)
	})
}

// What is not credited never holds a sender back: beside a sixteenth of the window, and
// of the budget, an item of any size goes. One more waits.
func TestSlack_letsAnItemOfAnySizeGo(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		limits := testkit.Roomy
		limits.Window, limits.Budget = 16_000, 100_000
		p, c, _ := lab.RawServer(t, limits, &typedrpc.DialOptions{Dialect: d})
		s, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
		is.NoErr(err)
		id := p.Got(wire.Call)[0].ID
		var all sync.WaitGroup
		send := func(n int) {
			all.Go(func() { is.NoErr(s.Send(testkit.Letters(n))) })
			synctest.Wait()
		}
		out := func() (sizes []int) {
			for _, f := range p.Got(wire.Item, wire.Chunk) {
				sizes = append(sizes, len(f.Payload))
			}
			return sizes
		}
		for range 7 {
			send(62)
		}
		send(38) // with its quotes and 64 it is 104: 1,000 are out
		is.Equal(out(), []int{64, 64, 64, 64, 64, 64, 64, 40})
		send(99_990 - 66)
		is.Equal(sum(out()), 99_990-64)
		send(1)
		is.Equal(len(out()), 0)
		is.NoErr(p.Send(wire.Frame{Type: wire.Credit, ID: id, Items: 9}))
		is.Equal(out(), []int{3})

		send(1000) // 67 and 1,066: no longer within the slack
		is.Equal(len(out()), 1)
		send(20_000)
		is.Equal(len(out()), 0)
		is.NoErr(p.Send(wire.Frame{Type: wire.Credit, ID: id, Items: 1}))
		is.Equal(len(out()), 0) // 1,066
		is.NoErr(p.Send(wire.Frame{Type: wire.Credit, ID: id, Items: 1}))
		is.Equal(len(out()), 1)
		all.Wait()
		s.Cancel()
		is.NoErr(p.Send(wire.Frame{Type: wire.Fail, ID: id, Code: 1}))
		lab.Settled(t, c)
	})
}

func sum(all []int) (n int) {
	for _, v := range all {
		n += v
	}
	return n
}

// A receiver bears with what a sender may do: an item of any size beside a sixteenth of
// its window.
func TestSlack_isTaken(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		p, c := reads(t, d, 1, typedrpc.Limits{Window: 16_000}) // it reads nothing
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: testkit.Quoted(936)}))
		is.NoErr(p.Send(wire.Frame{Type: wire.Item, Flags: wire.FromCaller, ID: 1, Payload: testkit.Quoted(60_000)}))
		is.Equal(len(p.Got(wire.Fail)), 0)
		is.NoErr(p.Send(letter(1, 0)))
		is.Equal(len(p.Got(wire.Fail)), 1)
		is.True(p.Alive())
		lab.Settled(t, c)
	})
}

// LatestOnly lives by credit that comes at once, and asks for it; other policies do not.
func TestSlack_latestOnlyAsksForCredit(t *testing.T) {
	for _, latest := range []bool{true, false} {
		lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
			is := is.New(t)
			policy := topic.DropOldest
			if latest {
				policy = topic.LatestOnly
			}
			tp := topic.New[string]("test.slack", policy, topic.History(2, 0))
			hub := new(topic.Hub)
			mux := typedrpc.NewMux()
			topic.Handle(mux, hub, tp, topic.Everybody)
			is.NoErr(topic.Publish(t.Context(), hub, tp, "x", "before"))
			p, c := lab.RawClient(t, d, &typedrpc.Server{Mux: mux})
			is.NoErr(p.Send(wire.Frame{
				Type: wire.Call, ID: 1, Kind: wire.ServerStream, Flags: wire.NoItems, Method: tp.Name(), Payload: []byte(`"x"`),
			}))
			synctest.Wait()
			items := p.Got(wire.Item)
			is.NoErr(p.Send(wire.Frame{Type: wire.Credit, Flags: wire.FromCaller, ID: 1, Items: uint64(len(items))}))
			is.NoErr(topic.Publish(t.Context(), hub, tp, "x", "after"))
			items = append(items, p.Got(wire.Item)...)
			is.Equal(len(items), 2)
			is.True(!slices.ContainsFunc(items, func(f wire.Frame) bool { return f.Flags&wire.Prompt != 0 != latest }))
			is.NoErr(p.Send(wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: 1}))
			lab.Settled(t, c)
			is.NoErr(hub.Close())
		})
	}
}

// A stream that is busy does not make others wait for credit that is held back: for a large
// item, for small ones, and where limits are larger than senders use.
func TestSlack_besideABusyStream(t *testing.T) {
	late := func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		if req == "busy" {
			return lab.Lingers(ctx, req, s)
		}
		time.Sleep(5 * time.Second) // its items are acknowledged, and then consumed
		for _, err := range s.All() {
			if err != nil {
				return err
			}
		}
		return nil
	}
	busy := func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		if req == "busy" { // takes one, and works on it
			time.Sleep(7 * time.Second)
			if _, err := s.Recv(); err != nil {
				return err
			}
			return lab.Lingers(ctx, req, s)
		}
		for _, err := range s.All() {
			if err != nil {
				return err
			}
		}
		return nil
	}
	tests := map[string]struct {
		handler func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error
		limits  typedrpc.Limits
		first   []int // of the busy stream
		quick   []int // sent before
		then    []int // and those that do not wait
	}{
		"a large item":  {late, typedrpc.Limits{MaxBuffered: 64 << 10}, []int{30_000}, slices.Repeat([]int{900}, 4), []int{33_000}},
		"small items":   {busy, typedrpc.Limits{MaxBuffered: 64 << 10}, []int{32_300, 31_000}, nil, slices.Repeat([]int{900}, 20)},
		"a huge item":   {late, typedrpc.Limits{Window: 1 << 30, MaxBuffered: 1 << 30, MaxMessage: 15_900_000}, nil, slices.Repeat([]int{1 << 20}, 2), []int{15 << 20}},
		"a huge window": {late, typedrpc.Limits{Window: 1 << 30, MaxBuffered: 1 << 30}, nil, slices.Repeat([]int{1 << 20}, 15), slices.Repeat([]int{1 << 20}, 20)},
	}
	for name, tt := range tests {
		lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
			is := is.New(t)
			t.Log(name)
			c, s := lab.Joined(t, d, lab.Bidi(tt.handler), tt.limits)
			open := func(req string, sizes []int) *typedrpc.Stream[string, string] {
				stream, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, req)
				is.NoErr(err)
				for _, n := range sizes {
					is.NoErr(stream.Send(testkit.Letters(n)))
				}
				return stream
			}
			first := open("busy", tt.first)
			quick := open("", tt.quick)
			time.Sleep(12 * time.Second)
			began := time.Now()
			for _, n := range tt.then {
				is.NoErr(quick.Send(testkit.Letters(n)))
				synctest.Wait()
			}
			is.Equal(time.Since(began), time.Duration(0))
			first.Cancel()
			quick.CloseSend()
			lab.Settled(t, c, s)
		})
	}
}

// What goes to a handler whose side of the stream has failed, and that does not return although
// its context has ended, does not make others wait for credit that is held back.
func TestSlack_besideAFailedStream(t *testing.T) {
	theirs := typedrpc.NewBidiStream[string, string, string]("flow.failing")
	ours := typedrpc.NewBidiStream[string, string, string]("flow.failing", typedrpc.MaxSize(2000))
	for name, items := range map[string][]int{
		"whole items": {3000, 900}, "fragments": {150_000}, "fragments behind it": {3000, 150_000},
	} {
		lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
			is := is.New(t)
			t.Log(name)
			mux := lab.Bidi(func(_ context.Context, _ string, s *typedrpc.Stream[string, string]) error {
				time.Sleep(10 * time.Second) // its items are acknowledged, and then consumed
				for _, err := range s.All() {
					if err != nil {
						return err
					}
				}
				return nil
			})
			typedrpc.Handle(mux, ours, func(ctx context.Context, _ string, _ *typedrpc.Stream[string, string]) error {
				<-ctx.Done() // the item was too large for it
				time.Sleep(time.Minute)
				return nil
			})
			c, s := lab.Joined(t, d, mux, typedrpc.Limits{MaxBuffered: 64 << 10})
			failing, err := typedrpc.Open(t.Context(), c, theirs, "")
			is.NoErr(err)
			quick, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, "")
			is.NoErr(err)
			go func() {
				for i := 0; failing.Send(testkit.Letters(items[min(i, len(items)-1)])) == nil; i++ {
					synctest.Wait()
				}
			}()
			time.Sleep(time.Second)
			is.NoErr(quick.Send(testkit.Letters(900)))
			time.Sleep(12 * time.Second)
			is.True(hook.Conn(c).SentItems > 60<<10)
			began := time.Now()
			for range 20 {
				is.NoErr(quick.Send(testkit.Letters(900)))
				time.Sleep(time.Millisecond)
			}
			is.Equal(time.Since(began), 20*time.Millisecond)
			quick.CloseSend()
			time.Sleep(time.Minute)
			lab.Settled(t, c, s)
		})
	}
}

// What handlers have taken while more waits for them, and is less than half of their windows,
// does not fill the budget: it is not there any more, and others may wait for it.
func TestFlow_takenIsNoneOfTheBudget(t *testing.T) {
	lab.BothDialects(t, func(t *testing.T, d typedrpc.Dialect) {
		is := is.New(t)
		came := make(chan struct{})
		mux := lab.Bidi(func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
			if req == "other" {
				if _, err := s.Recv(); err != nil {
					return err
				}
				close(came)
				return nil
			}
			for range 6 { // of seven
				if _, err := s.Recv(); err != nil {
					return err
				}
			}
			select { // this one needs the other's
			case <-came:
			case <-ctx.Done():
			}
			return nil
		})
		c, s := lab.Joined(t, d, mux, typedrpc.Limits{MaxBuffered: 128 << 10})
		var streams []*typedrpc.Stream[string, string]
		open := func(req string) *typedrpc.Stream[string, string] {
			x, err := typedrpc.Open(t.Context(), c, lab.FlowBoth, req)
			is.NoErr(err)
			streams = append(streams, x)
			return x
		}
		for range 4 {
			x := open("")
			for range 7 {
				is.NoErr(x.Send(testkit.Letters(4000)))
			}
			synctest.Wait()
		}
		is.True(hook.Conn(s).Unread < 20_000)
		began := time.Now()
		is.NoErr(open("other").Send(testkit.Letters(50_000)))
		is.Equal(time.Since(began), time.Duration(0))
		for _, x := range streams {
			_, err := x.Recv()
			is.Equal(err, io.EOF)
		}
		lab.Settled(t, c, s)
	})
}
