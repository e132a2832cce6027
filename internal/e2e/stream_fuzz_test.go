package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/session"
	"github.com/typedrpc/typedrpc/internal/testkit"
	"github.com/typedrpc/typedrpc/internal/testkit/lab"
	"github.com/typedrpc/typedrpc/internal/wire"
)

// FuzzStreams drives a peer that has all features from a byte string against a
// live Conn that handles and makes streams of all kinds: it must not panic,
// hang, pass its budgets, or keep anything.
func FuzzStreams(f *testing.F) {
	for mode := range byte(8) {
		// A stream of each kind, with items, credit and its end.
		f.Add([]byte{mode, 0, 3, 0, 1, 0, 0, 1, 0, 2, 1, 0, 3, 0, 4, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 1, 4, 1, 9, 0, 5, 0})
		// Fragments of each message, whole and not.
		f.Add([]byte{mode, 0, 3, 1, 6, 2, 0, 1, 6, 2, 0, 0, 2, 1, 0, 1, 6, 2, 0, 0, 6, 8, 1, 6, 2, 200, 0, 1, 5, 0, 2, 0, 1, 6})
		// The Conn's own streams, answered well and badly.
		f.Add([]byte{mode, 10, 0, 10, 1, 10, 2, 1, 1, 2, 0, 1, 2, 2, 0, 4, 1, 1, 0, 6, 1, 0, 6, 2, 1, 6, 2, 2, 0, 6, 7, 3, 9, 9})
		f.Add([]byte{mode, 10, 2, 10, 3, 10, 3, 10, 3, 4, 1, 3, 1, 10, 4, 10, 5, 10, 6, 9, 200, 10, 7, 12, 10, 1})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2048 {
			return
		}
		synctest.Test(t, func(t *testing.T) { disrupt(t, &testkit.Script{Data: data}) })
	})
}

var fuzzLimits = typedrpc.Limits{MaxCalls: 6, Window: 400, MaxMessage: 1000, MaxBuffered: 3000}

// fuzzMux handles streams in the ways that their requests name.
func fuzzMux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, lab.FlowDown, func(ctx context.Context, n int, send func(string) error) error {
		for i := range n * 10 {
			if err := send(testkit.Letters(i * 20)); err != nil {
				return err
			}
		}
		return nil
	})
	typedrpc.Handle(mux, lab.FlowUp, func(ctx context.Context, n int, items iter.Seq2[string, error]) (int, error) {
		got := 0
		for _, err := range items {
			if got++; err != nil || got == n {
				return got, err
			}
		}
		return got, nil
	})
	typedrpc.Handle(mux, lab.FlowBoth, func(ctx context.Context, req string, s *typedrpc.Stream[string, string]) error {
		if len(req) > 20 {
			return lab.Lingers(ctx, req, s) // and reads nothing
		}
		return lab.EchoItems(ctx, req, s)
	})
	typedrpc.Handle(mux, lab.FlowCall, func(_ context.Context, s string) (string, error) { return s, nil })
	typedrpc.Handle(mux, lab.FlowNote, func(context.Context, string) error { return nil })
	return mux
}

// disruptor is a peer that follows a script, and the Conn that it talks to.
type disruptor struct {
	*testkit.Script
	*testkit.RawPeer
	conn    *typedrpc.Conn
	nextID  uint64
	streams []*typedrpc.Stream[string, string]
	leave   []context.CancelFunc
}

func disrupt(t *testing.T, s *testkit.Script) {
	mode := s.Byte()
	d := &disruptor{Script: s}
	dialect := typedrpc.Dialect(mode % 2)
	mux, quiet := fuzzMux(), slog.New(slog.DiscardHandler)
	limits := wire.Limits{Message: 150_000, Calls: 4, Window: 500, Budget: 100_000}
	if mode&2 == 0 {
		d.RawPeer, d.conn = lab.RawClient(t, dialect, &typedrpc.Server{Mux: mux, Limits: fuzzLimits, Logger: quiet, MaxMemory: 4000})
	} else {
		d.RawPeer, d.conn, _ = lab.RawServer(t, limits, &typedrpc.DialOptions{Dialect: dialect, Mux: mux, Limits: fuzzLimits, Logger: quiet})
	}
	for d.More() && d.step(t.Context()) {
		synctest.Wait()
		if over := d.overBudget(); over != "" {
			t.Fatal(over)
		}
	}
	d.T.Kill()
	d.conn.Close()
	for _, cancel := range d.leave {
		cancel()
	}
	for _, s := range d.streams {
		s.Cancel()
	}
	lab.Settled(t, d.conn)
	time.Sleep(time.Minute) // redials, goodbyes, lingering writers
}

// overBudget says which bound of the Conn was passed.
func (d *disruptor) overBudget() string {
	s := hook.Conn(d.conn)
	most := s.MostUnread + testkit.MessageOverhead
	var over []string
	check := func(name string, n, most int) {
		if n > most || n < 0 {
			over = append(over, fmt.Sprint(name, " ", n, " of ", most))
		}
	}
	streams := s.Inbound + s.Pending + len(d.streams)
	check("unread", s.Unread, most)
	check("inBytes", s.InBytes, most)
	check("grown", s.Grown, fuzzLimits.MaxBuffered/2)
	check("sentItems", s.SentItems, int(s.PeerBudget)+streams*200_000)
	check("queued", s.Queued, 2*fuzzLimits.MaxBuffered+streams*200_000)
	check("partial", s.Partial, s.Inbound+s.Pending+1)
	check("inbound", s.Inbound, fuzzLimits.MaxCalls)
	check("account", int(s.Account), 4000+fuzzLimits.MaxMessage+testkit.MessageOverhead)
	for _, x := range s.Streams {
		if !x.Caller {
			check("window", x.Out, max(2*x.Window, x.Window/16+fuzzLimits.MaxMessage+testkit.MessageOverhead))
		}
	}
	return strings.Join(over, ", ")
}

// id is one that is in flight, most often, or the one to come.
func (d *disruptor) id(next uint64) uint64 {
	b := d.Byte()
	if b < 200 {
		return max(1, next-min(next-1, uint64(b%4)))
	}
	return max(1, uint64(b-199)) * 3
}

func (d *disruptor) payload() []byte {
	n := d.Byte()
	if d.Dialect != session.Binary && n%9 > 6 {
		n = 0
	}
	switch n % 9 {
	case 0:
		return []byte("3")
	case 1:
		return []byte(`"text"`)
	case 2, 3:
		return testkit.Quoted(2 + 5*int(n))
	case 4:
		return testkit.Quoted(1000)
	case 5:
		return testkit.Quoted(1500) // over the limit
	case 6:
		return []byte("0")
	case 7:
		return testkit.Quoted(600)[:300] // a part
	}
	return nil
}

// flags takes a byte for MORE, FROM_CALLER and others.
func (d *disruptor) flags(possible wire.Flags) (f wire.Flags) {
	b := d.Byte()
	if b&1 != 0 && d.Dialect == session.Binary {
		f |= wire.More
	}
	if b&2 == 0 {
		f |= wire.FromCaller
	}
	return f & possible
}

// step does what the script says next. It reports false at the end.
func (d *disruptor) step(ctx context.Context) bool {
	theirs := hook.Conn(d.conn).NextID // of the calls that the Conn made
	var f wire.Frame
	either := func() uint64 {
		if f.Flags&wire.FromCaller != 0 {
			return d.id(d.nextID)
		}
		return d.id(theirs)
	}
	switch op := d.Byte() % 14; op {
	case 0:
		kind := wire.Kind(d.Byte() % 4)
		f = wire.Frame{
			Type: wire.Call, Kind: kind, Flags: d.flags(wire.More), Payload: d.payload(), TimeLeft: uint64(d.Byte()%3) * 100,
			Method: []string{lab.FlowCall.Name(), lab.FlowDown.Name(), lab.FlowUp.Name(), lab.FlowBoth.Name()}[kind],
		}
		if kind == wire.ServerStream {
			f.Flags |= wire.NoItems
		}
		d.nextID++
		f.ID = d.nextID
	case 1:
		f = wire.Frame{Type: wire.Item, Flags: d.flags(wire.More | wire.FromCaller)}
		f.ID, f.Payload = either(), d.payload()
	case 2:
		if d.Dialect != session.Binary {
			return true
		}
		f = wire.Frame{Type: wire.Chunk, Flags: d.flags(wire.More | wire.FromCaller)}
		f.ID, f.Payload = either(), d.payload()
		if d.Byte() == 1 {
			f.ID = 0
		}
	case 3:
		f = wire.Frame{Type: wire.End, Flags: wire.FromCaller, ID: d.id(d.nextID)}
	case 4:
		f = wire.Frame{Type: wire.Credit, Flags: d.flags(wire.FromCaller), Items: 1 + uint64(d.Byte()%3)}
		f.ID, f.Window = either(), 50*uint64(d.Byte()%30)
	case 5:
		f = wire.Frame{Type: wire.Cancel, Flags: wire.FromCaller, ID: d.id(d.nextID)}
	case 6:
		f = wire.Frame{Type: wire.Result, Flags: d.flags(wire.More), ID: d.id(theirs), Payload: d.payload()}
	case 7:
		f = wire.Frame{Type: wire.Fail, ID: d.id(theirs), Code: 1 + int64(d.Byte()%16), Flags: wire.NotRun & -wire.Flags(d.Byte()%2), Message: "fuzzed"}
	case 8:
		f = wire.Frame{Type: wire.Notify, Method: lab.FlowNote.Name(), Flags: d.flags(wire.More), Payload: d.payload()}
	case 9:
		time.Sleep(time.Duration(d.Byte()) * 10 * time.Millisecond)
		return true
	case 10:
		d.use(ctx)
		return true
	case 11:
		if d.Byte() == 0 {
			b := wire.GoAwayBody{Reason: "fuzzed", Max: 100}
			f = wire.Frame{Type: wire.GoAway, Payload: b.Append(nil)}
			break
		}
		return true
	case 12:
		if d.Byte() == 0 {
			return false // the link is lost
		}
		return true
	default:
		return true
	}
	msg, err := d.Encode([]wire.Frame{f})
	if err != nil {
		return true // our own encoder knows better than to say that
	}
	return d.Write(msg) == nil
}

// use makes the Conn's user do something.
func (d *disruptor) use(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	d.leave = append(d.leave, cancel)
	var last *typedrpc.Stream[string, string]
	if len(d.streams) > 0 {
		last = d.streams[len(d.streams)-1]
	}
	size := func() int { return []int{3, 100, 1000, 70_000, 140_000}[d.Byte()%5] }
	switch op := d.Byte() % 9; {
	case op == 0:
		n := int(d.Byte() % 4)
		go func() {
			for range typedrpc.Receive(ctx, d.conn, lab.FlowDown, 3) {
				if n--; n == 0 {
					break
				}
			}
		}()
	case op == 1:
		n, size := int(d.Byte()%20), size()
		go typedrpc.SendAll(ctx, d.conn, lab.FlowUp, 3, func(yield func(string, error) bool) {
			for range n {
				if !yield(testkit.Letters(size), nil) {
					return
				}
			}
			if n == 7 {
				yield("", errors.New("of the source"))
			}
		})
	case op == 2:
		if s, err := typedrpc.Open(ctx, d.conn, lab.FlowBoth, testkit.Letters(size())); err == nil {
			d.streams = append(d.streams, s)
		}
	case op == 8:
		typedrpc.Go(ctx, d.conn, lab.FlowCall, testkit.Letters(size()))
	case last == nil:
	case op == 3:
		v := testkit.Letters(size())
		go last.Send(v)
	case op == 4:
		go last.Recv()
	case op == 5:
		last.CloseSend()
	case op == 6:
		last.Cancel()
	case op == 7:
		d.leave[int(d.Byte())%len(d.leave)]()
	}
}
